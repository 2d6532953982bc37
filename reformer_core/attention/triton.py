"""LSH attention fused for CUDA: one launch per round and pass, memory in proportion to the length.

The forward carries one running softmax from round to round. The backward computes every tile again:
first for the queries, then for the keys, in an order that never changes. The kernels themselves are
in `kernels.py`, which needs Triton; this module can be imported without.

Where the kernels can run they are chosen. REFORMER_FUSED=0 in the environment, set before the first
attention, has `chunked.py` chosen instead: on a T4, whose tensor cores Triton does not use, measure
both with `make bench`.
"""

import functools
import importlib
import logging
import os
import re
import shutil
import sys
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from reformer_core.attention.rule import Rule
from reformer_core.bucketing import BucketPlan

OLDEST_TRITON = (3, 2)
OLDEST_CAPABILITY = (7, 5)
OLDEST_WITH_BFLOAT16 = (8, 0)
LARGEST_HEAD = 128
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Triton compiles a kernel of its own for widths, strides and addresses that 16 does not divide: it
# fetches one number at a time, and spills. Below 16 it multiplies no matrices at all.
_ALIGNED = 16
_COIN_BITS = 24

_KERNELS = ("attend", "query_gradients", "key_gradients")
# Tiles of the three kernels, in queries, keys and warps, by the bytes of a number, the oldest
# capability and the block that holds a vector: large ones that spill no register there, and that
# shared memory holds (`tests/core/aot.py` compiles them and keeps a table of what they take). Which
# are fastest, only a GPU can say.
_TILES = {
    2: {
        (7, 5): {
            16: ((32, 32, 8), (32, 32, 8), (32, 32, 8)),
            32: ((32, 32, 8), (32, 32, 8), (32, 16, 8)),
            64: ((32, 32, 8), (32, 32, 8), (32, 32, 8)),
            128: ((32, 32, 8), (16, 16, 8), (32, 16, 8)),
        },
        (8, 0): {
            16: ((64, 64, 4), (64, 64, 4), (64, 64, 4)),
            32: ((64, 64, 8), (64, 64, 8), (64, 32, 4)),
            64: ((64, 32, 4), (64, 32, 8), (64, 32, 8)),
            128: ((64, 32, 8), (64, 64, 8), (32, 64, 8)),
        },
        (9, 0): {
            16: ((64, 64, 4), (64, 64, 4), (64, 64, 4)),
            32: ((64, 64, 4), (64, 64, 4), (64, 64, 8)),
            64: ((64, 64, 4), (64, 64, 4), (32, 64, 4)),
            128: ((64, 64, 4), (64, 32, 4), (32, 64, 8)),
        },
    },
    4: {
        (7, 5): {
            16: ((32, 32, 8), (32, 32, 8), (32, 32, 8)),
            32: ((32, 32, 8), (16, 32, 8), (32, 16, 8)),
            64: ((16, 32, 8), (32, 32, 8), (32, 32, 8)),
            128: ((16, 16, 8), (16, 16, 8), (16, 32, 8)),
        },
        (8, 0): {
            16: ((32, 32, 8), (32, 32, 8), (32, 32, 8)),
            32: ((32, 32, 8), (16, 32, 8), (32, 16, 8)),
            64: ((32, 32, 8), (32, 16, 8), (32, 32, 8)),
            128: ((16, 16, 8), (16, 16, 8), (32, 16, 8)),
        },
    },
}
# All that a thread can have: unless told, the assembler spills some to let more threads run.
_REGISTERS = 255
_OLDEST_THAT_OVERLAPS = (8, 0)  # fetching the next keys with multiplying these

_COMPILERS = ("gcc", "clang")  # that Triton looks for on Linux, where CC does not name one

_log = logging.getLogger("reformer_core")


def available(device: torch.device) -> bool:
    """Say whether the kernels can run on a device; what a CUDA device lacks is logged once."""
    return device.type == "cuda" and _usable(torch.cuda.get_device_capability(device))


def objection(qk: Tensor, values: Tensor) -> str | None:
    """Say in a sentence why the kernels cannot take these inputs; None when they can."""
    dtypes = DTYPES
    if qk.is_cuda and torch.cuda.get_device_capability(qk.device) < OLDEST_WITH_BFLOAT16:
        dtypes = tuple(dtype for dtype in DTYPES if dtype != torch.bfloat16)
    for name, tensor in (("qk", qk), ("values", values)):
        if tensor.dtype not in dtypes:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            return (
                f"{name} must be of {allowed} for the fused kernels on this device, got "
                f"{tensor.dtype}: convert it, or attend in chunks"
            )
        if not 1 <= tensor.shape[-1] <= LARGEST_HEAD:
            return (
                f"{name} must have heads of 1 to {LARGEST_HEAD} for the fused kernels, got "
                f"{tensor.shape[-1]}: use more heads, or attend in chunks"
            )
    return None


def attend(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    rule: Rule,
) -> tuple[Float[Tensor, "batch heads length d_value"], Float[Tensor, "batch heads length"]]:
    """Return the output and log_total = log sum exp(score), both in float32.

    log_total is -inf where a position sees nobody and attends to itself. No gradient flows. Raises
    ValueError for a dtype or head size that the kernels do not have.
    """
    with torch.cuda.device_of(qk):
        return _Launch(qk, values, rule).attend()


def gradients(
    d_out: Float[Tensor, "batch heads length d_value"],
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    out: Float[Tensor, "batch heads length d_value"],
    log_total: Float[Tensor, "batch heads length"],
    rule: Rule,
) -> tuple[Float[Tensor, "batch heads length d_head"], Float[Tensor, "batch heads length d_value"]]:
    """Return the gradients of qk and values, in their dtypes, from what `attend` returned.

    The same inputs give the same bits every time. The weights come of scores less log_total, both
    rounded as coarsely as they are large: their error is about |q| / 10^7.
    """
    with torch.cuda.device_of(qk):
        return _Launch(qk, values, rule).gradients(d_out, out, log_total)


@functools.cache
def _usable(capability: tuple[int, int]) -> bool:
    """Say whether Triton and the device are new enough, and log what is not."""
    lack = _lack(capability)
    if lack:
        _log.warning("LSH attention runs in chunks instead of fused: %s", lack)
    return not lack


def _lack(capability: tuple[int, int]) -> str | None:
    """Name what the fused kernels lack, be it that they are wanted."""
    if os.environ.get("REFORMER_FUSED") == "0":
        return "REFORMER_FUSED=0 says so"
    if torch.version.hip:
        return "they are made for CUDA, and this torch is for ROCm"
    try:
        version = getattr(importlib.import_module("triton"), "__version__", "")
    except ImportError:
        return "Triton is not installed"
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        return f"what is installed as Triton has no version, got {version!r}"
    if tuple(map(int, numbers.groups())) < OLDEST_TRITON:
        return f"Triton {version} is older than {_dotted(OLDEST_TRITON)}"
    if capability < OLDEST_CAPABILITY:
        return f"compute capability {_dotted(capability)} is below {_dotted(OLDEST_CAPABILITY)}"
    if sys.platform == "linux" and not (os.environ.get("CC") or any(map(shutil.which, _COMPILERS))):
        return f"Triton needs a C compiler, and finds neither {' nor '.join(_COMPILERS)}"
    return None


def _dotted(version: tuple[int, int]) -> str:
    """Write a version as people do."""
    return ".".join(map(str, version))


class _Launch:
    """The arguments that all kernels share, and the order in which they run."""

    def __init__(self, qk: Tensor, values: Tensor, rule: Rule) -> None:
        refused = objection(qk, values)
        if refused:
            raise ValueError(refused)
        plan = rule.plan
        batch, heads, rounds, length = plan.slot.shape
        self.kernels = _kernels()
        self.padding = None
        if plan.padding is not None:
            # The kernel counts through it in steps of one: a slice or a transpose has others.
            self.padding = plan.padding.contiguous()
            # 0 times what stands there could be NaN, and nobody may see it
            padded = self.padding[:, None, :, None]
            qk, values = (part.masked_fill(padded, 0) for part in (qk, values))
        self.widths = qk.shape[-1], values.shape[-1]
        self.qk, self.values = self._laid_out(qk), self._laid_out(values)
        self.plan, self.once = plan, not rule.count_repeats
        self.rows, self.length, self.rounds = batch * heads, length, rounds
        self.inputs = (self.qk, self.values, _inverse_norm(qk), *self._plan_tensors())
        self.strides = *_strides(self.qk), *_strides(self.values)
        self.shared = {
            "heads": heads,
            "length": length,
            "rounds": rounds,
            "seed_low": _signed(rule.seed),
            "seed_high": _signed(rule.seed >> 32),
            "dropped_below": round(rule.dropout * (1 << _COIN_BITS)),
            "share": 1 / (1 - rule.dropout),
            "DROPOUT": rule.dropout > 0,
            "HIDDEN": _hidden_in_run(plan),
        }
        capability = (8, 0)  # of nobody: on a CPU, Triton's interpreter runs any tiles
        if qk.is_cuda:
            capability = torch.cuda.get_device_capability(qk.device)
        self.tiling = tiling(
            capability, qk.shape[-1], values.shape[-1], max(qk.itemsize, values.itemsize)
        )

    def attend(self) -> tuple[Tensor, Tensor]:
        """Return output and log_total, which every round goes on from."""
        out = self.values.new_empty(self.values.shape, dtype=torch.float32)
        log_total = out.new_empty(out.shape[:3])
        arguments = *self.inputs, self.padding, out, log_total, *self.strides
        for index in range(self.rounds):
            self._run("attend", "BLOCK_M", index, arguments, IS_FIRST=index == 0)
        return out[..., : self.widths[1]], log_total

    def gradients(self, d_out: Tensor, out: Tensor, log_total: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of qk and values; d_out is rounded to what is multiplied by it."""
        if self.plan.padding is not None:
            d_out = d_out.masked_fill(self.plan.padding[:, None, :, None], 0)
        out = self._laid_out(out).contiguous()
        alone = log_total == -torch.inf
        d_values = torch.where(alone.unsqueeze(-1), d_out, 0).float()
        d_values = self._laid_out(d_values).contiguous()
        d_out = self._laid_out(d_out.to(self.values.dtype))
        d_qk = self.qk.new_empty(self.qk.shape, dtype=torch.float32)
        projected = torch.empty_like(log_total)
        strides = *self.strides, *_strides(d_out)
        for_queries = *self.inputs, out, d_out, log_total, projected, d_qk, *strides
        for_keys = *self.inputs, d_out, log_total, projected, d_qk, d_values, *strides
        reach = _reach(self.plan)
        for index in range(self.rounds):
            self._run("query_gradients", "BLOCK_M", index, for_queries, IS_FIRST=index == 0)
            self._run("key_gradients", "BLOCK_N", index, for_keys, **reach)
        of_head, of_value = (slice(width) for width in self.widths)
        d_qk, d_values = d_qk[..., of_head], d_values[..., of_value]
        return d_qk.to(self.qk.dtype), d_values.to(self.values.dtype)

    def _laid_out(self, vectors: Tensor) -> Tensor:
        """Return vectors as the kernels want them, filled up to the width of the launch."""
        return _laid_out(vectors, _launched_width(*self.widths))

    def _plan_tensors(self) -> tuple[Tensor, ...]:
        """Return the plan by slot and, where earlier rounds matter, by position as well."""
        plan = self.plan
        by_slot = tuple(part.contiguous() for part in (plan.order, plan.first, plan.last))
        if not self.once or self.rounds == 1:
            return *by_slot, plan.slot, plan.order  # never read
        # All rounds of a position lie together, and a run, two int32, is fetched as one int64.
        slot_at = plan.slot.transpose(-1, -2).int().contiguous()
        run_at = torch.stack([run.gather(-1, plan.slot) for run in by_slot[1:]], -1)
        run_at = run_at.transpose(-2, -3).contiguous().view(torch.int64)
        return *by_slot, slot_at, run_at

    def _run(self, kernel: str, tiled_by: str, index: int, arguments: tuple, **more: int) -> None:
        """Run a kernel on every tile of one round."""
        tiles = -(-self.length // self.tiling[kernel][tiled_by])
        getattr(self.kernels, kernel)[(tiles * self.rows,)](
            *arguments,
            round=index,
            tiles=tiles,
            ONCE=self.once and index > 0,
            **self.shared,
            **self.tiling[kernel],
            **more,
        )


def tiling(capability: tuple[int, int], d_head: int, d_value: int, itemsize: int) -> dict:
    """Choose each kernel's tiles, as keywords of its launch, by the table above."""
    oldest = max(since for since in _TILES[itemsize] if since <= capability)
    width = _launched_width(d_head, d_value)
    block = _block(width)
    tiles = _TILES[itemsize][oldest][block]
    overlapped = itemsize == 2 and capability >= _OLDEST_THAT_OVERLAPS
    widths = {"D": width, "V": width, "BLOCK_D": block, "BLOCK_V": block}
    launch = widths | {"num_stages": 1 + overlapped, "maxnreg": _REGISTERS}
    return {
        kernel: launch | {"BLOCK_M": queries, "BLOCK_N": keys, "num_warps": warps}
        for kernel, (queries, keys, warps) in zip(_KERNELS, tiles, strict=True)
    }


def _launched_width(d_head: int, d_value: int) -> int:
    """Return the width that both are filled up to: one whose vectors are whole words of 16 bytes.

    One for both, because widths that differ are kernels of their own too, and some of those spill.
    """
    return -(-max(d_head, d_value) // _ALIGNED) * _ALIGNED


def _block(width: int) -> int:
    """Round a width up to what Triton can multiply: a power of two."""
    return 1 << (width - 1).bit_length()


def _kernels() -> ModuleType:
    """Import the kernels, which need Triton."""
    return importlib.import_module("reformer_core.attention.kernels")


def _inverse_norm(
    qk: Float[Tensor, "batch heads length d_head"],
) -> Float[Tensor, "batch heads length"]:
    """Return 1 / |q| in float32; 0 for a zero row, whose key is zero and moves nothing."""
    norm = torch.linalg.vector_norm(qk, dim=-1, dtype=torch.float32)
    return norm.reciprocal().masked_fill_(norm == 0, 0)


def _reach(plan: BucketPlan) -> dict[str, int]:
    """Say how many slots a query can stand after, and before, a key that it sees."""
    own = 1 if plan.window == "chunks" else 0
    length = plan.slot.shape[-1]
    before, after = (
        min((chunks + own) * plan.chunk_length, length)
        for chunks in (plan.chunks_before, plan.chunks_after)
    )
    return {"reach_before": before, "reach_after": after}


def _hidden_in_run(plan: BucketPlan) -> str:
    """Name what a query must not see inside its run; within buckets a causal run ends before it."""
    if plan.causal:
        return "nothing" if plan.within_bucket else "later"
    return "itself"


def _laid_out(
    vectors: Float[Tensor, "batch heads length narrow"], width: int
) -> Float[Tensor, "batch heads length width"]:
    """Return vectors of a width that 16 divides, by copying where they are not laid out well.

    Their numbers lie side by side, zeros after them, and 16 divides all other strides and the
    address too. Zeros change no product.
    """
    narrow = vectors.shape[-1]
    well = not any(number % _ALIGNED for number in (vectors.data_ptr(), *_strides(vectors)))
    if well and narrow == width and vectors.stride(-1) == 1:
        return vectors
    copy = vectors.new_zeros((*vectors.shape[:3], width))
    copy[..., :narrow] = vectors
    return copy


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """Return how far batches, heads and positions lie apart."""
    return tensor.stride()[:3]


def _signed(word: int) -> int:
    """Return the low 32 bits as the signed number that Triton takes for one."""
    return (word & 0xFFFFFFFF) - ((word & 0x80000000) << 1)
