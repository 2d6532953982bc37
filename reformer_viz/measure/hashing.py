"""Bring your own hash: any function from vectors to integers may take the place of core's."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Hash = Callable[[Tensor], Tensor | np.ndarray]
"""A function from vectors "batch heads length d_head" (a float32 tensor on the processor) to whole
numbers: "batch heads rounds length", as `hash_vectors` returns, or "batch heads length", one round.
Buckets are numbered from 0 in every round, and hang on their own vector alone: pictures hash more
vectors than the given ones."""

MOST_BUCKETS = 65_536
"""A hash that numbers buckets beyond this left gaps, or is none."""


@torch.no_grad()
def apply_hash(
    hash: Hash,
    vectors: Float[Tensor, "batch heads length d_head"],
    n_buckets: int | None = None,
) -> tuple[Int[Tensor, "batch heads rounds length"], int]:
    """Hash vectors with the reader's own function; return the buckets and how many there are.

    The function gets a copy of the vectors, so that nothing it does to them is seen elsewhere.
    `n_buckets` None counts the buckets from the result: one more than the largest number.

    Raises ValueError for a result that is not whole numbers, has another shape, or has a number
    below 0, beyond `n_buckets`, or from MOST_BUCKETS on.
    """
    given = hash(vectors.detach().to("cpu", torch.float32, copy=True))
    if not isinstance(given, Tensor | np.ndarray):
        raise ValueError(
            f"hash must return a tensor or an array of whole numbers, got "
            f"{type(given).__name__}: return one bucket for every vector"
        )
    buckets = torch.as_tensor(given).cpu()
    _check_whole(buckets)
    buckets = _with_rounds(buckets.long(), tuple(vectors.shape[:3]))
    low, high = (int(bound) for bound in buckets.aminmax())
    if low < 0:
        raise ValueError(f"hash must number buckets from 0, got {low}: add what is missing")
    if high >= MOST_BUCKETS:
        raise ValueError(
            f"hash must number fewer than {MOST_BUCKETS:,} buckets, got {high:,}: number them "
            f"without gaps, or take the remainder"
        )
    n_buckets = high + 1 if n_buckets is None else n_buckets
    if high >= n_buckets:
        raise ValueError(
            f"hash must return buckets in 0..{n_buckets - 1}, got {high}: return smaller ones, or "
            f"say n_buckets={high + 1}"
        )
    return buckets, n_buckets


def name_of(hash: Hash) -> str:
    """Return what to call a hash in a caption."""
    name = getattr(hash, "__name__", type(hash).__name__)
    return "your function" if name == "<lambda>" else name


def _check_whole(buckets: Tensor) -> None:
    """Refuse what is not of an integer type, even where the numbers happen to be whole."""
    if buckets.is_floating_point() or buckets.is_complex() or buckets.dtype == torch.bool:
        name = str(buckets.dtype).removeprefix("torch.")
        raise ValueError(
            f"hash must return whole numbers, got {name}: a bucket is a choice, so end with "
            f".argmax(-1), .long() or astype(int)"
        )


def _with_rounds(
    buckets: Int[Tensor, "..."], per_vector: tuple[int, int, int]
) -> Int[Tensor, "batch heads rounds length"]:
    """Bring a result of either shape into that of `hash_vectors`."""
    batch, heads, length = per_vector
    if tuple(buckets.shape) == per_vector:
        return buckets[:, :, None]
    rounds = buckets.shape[2] if buckets.dim() == 4 else 0
    if not rounds or tuple(buckets.shape) != (batch, heads, rounds, length):
        raise ValueError(
            f'hash must return "batch heads rounds length" or "batch heads length", for these '
            f"vectors {(batch, heads, 'rounds', length)} or {per_vector}, got "
            f"{tuple(buckets.shape)}: return one bucket for every vector"
        )
    return buckets
