"""What no implementation can undercut: the bytes and operations of a pass, and the device's peaks.

A pass takes at least as long as the device needs to move what must be moved, and at least as long
as it needs to multiply what must be multiplied. Both speeds are measured in the run itself, by a
large copy and a large product: what a data sheet promises no program reaches.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tests.benchmarks.case import Case, Kind
from tests.benchmarks.worker import time_here, time_on_cuda

COPIED_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}
"""Far more than the caches hold."""
MULTIPLIED = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices."""
REPEATS = 5
_ORDER_BYTES = 4
"""A position, as each round's order holds them."""
_PRODUCTS = {"forward": 2, "step": 7}
"""q k^T and p v; then q k^T again, dout v^T, dq, dk and dv."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a pass must do at least."""

    bytes: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What a device does at most, as it was measured."""

    bytes_per_s: float
    flops_per_s: dict[str, float]
    """By the dtype of the factors."""


def work_of(case: Case, kind: Kind, which: str) -> Work:
    """Count what a pass of attention must do; kinds but "full" have rounds.

    Every round fetches every vector from where its order says, once; outputs are written once. The
    products are those of whole tiles: a chunk of queries by its own chunk and the one before.
    Full attention has one round without order, and multiplies the pairs on and below the diagonal.
    The bound, which is products alone, fetches nothing.
    """
    queries, length = case.chunk_length, case.length
    rounds, order = (1, 0) if kind == "full" else (case.n_hashes, _ORDER_BYTES)
    if kind == "full":
        pairs = length * (length + 1) // 2
    else:
        pairs = rounds * -(-length // queries) * queries * 2 * queries
    vector = case.d_head * getattr(torch, case.dtype).itemsize
    fetched, written = 2 * vector + order, vector  # of qk and values; the output
    moved = rounds * fetched + written
    if which == "step":
        # qk, values and the output's gradient again; the output once, for its product with that
        # gradient; and both gradients.
        moved += rounds * (fetched + vector) + vector + 2 * vector
    return Work(
        bytes=0 if kind == "bound" else case.n_heads * length * moved,
        flops=case.n_heads * pairs * 2 * case.d_head * _PRODUCTS[which],
    )


def least_seconds(work: Work, peaks: Peaks, dtype: str) -> tuple[float, str]:
    """Return how long some work takes at least, and by what: "memory" or "products"."""
    by = {
        "memory": work.bytes / peaks.bytes_per_s,
        "products": work.flops / peaks.flops_per_s[dtype],
    }
    limit = max(by, key=by.get)
    return by[limit], limit


def measure_peaks(device: str, dtypes: set[str], threads: int) -> Peaks:
    """Measure how fast a device copies, and how fast it multiplies numbers of some dtypes."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Peaks(
            bytes_per_s=_copies(device),
            flops_per_s={dtype: _multiplies(device, dtype) for dtype in sorted(dtypes)},
        )
    finally:
        torch.set_num_threads(before)
        if device == "cuda":
            torch.cuda.empty_cache()  # the contestants are on the same device


def _copies(device: str) -> float:
    """Return the bytes that a copy moves in a second: each is read, and written."""
    source = torch.ones(COPIED_BYTES[device], dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source), device)


def _multiplies(device: str, dtype: str) -> float:
    """Return the operations a second of a product of square matrices."""
    size = MULTIPLIED[device]
    left, right = torch.randn(2, size, size, device=device, dtype=torch.float32).to(
        getattr(torch, dtype)
    )
    result = torch.empty_like(left)
    return 2 * size**3 / _fastest(lambda: torch.mm(left, right, out=result), device)


def _fastest(work: Callable[[], object], device: str) -> float:
    """Return the seconds of the fastest repeat; the first only warms up."""
    timed = time_on_cuda if device == "cuda" else time_here
    return min([timed(work) for _ in range(1 + REPEATS)][1:])
