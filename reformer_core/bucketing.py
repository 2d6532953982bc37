"""Sort by bucket, cut into chunks: who may look at whom is one run of slots (Eq. 4-6)."""

import math
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

Window = Literal["chunks", "sliding"]

_OF_BUCKETS = torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64

# Slots are counted in int32, and no two lie farther apart: a place and this are a number there.
_FARTHEST = 1 << 30


@dataclass(frozen=True, kw_only=True, eq=False)
class BucketPlan:
    """Who may look at whom, in every round: the value that attention, replay and pictures share.

    A *position* is a place in the text, a *slot* a place in one round's sorted order. In that order
    what a position may see is one contiguous run of slots, so that three numbers a slot say it all:

        visible(i, j) in round r  <=>  first[slot_i] <= slot_j <= last[slot_i],  j != i,
                                       and j before i if causal

    An empty run has first > last. The buckets and the rule travel along: `plan.with_buckets` makes
    the same plan of other buckets, and a plan can be drawn and described from itself alone.
    """

    buckets: Int[Tensor, "batch heads rounds length"]
    """The bucket of every position."""
    order: Int[Tensor, "batch heads rounds length"]
    """The position in every slot: by bucket, in reading order within one, padding last."""
    slot: Int[Tensor, "batch heads rounds length"]
    """The slot of every position: the inverse of `order`."""
    first: Int[Tensor, "batch heads rounds length"]
    """The first slot that a slot's occupant may see."""
    last: Int[Tensor, "batch heads rounds length"]
    """The last slot that a slot's occupant may see; below `first` when it may see none."""
    n_buckets: int
    chunk_length: int
    chunks_before: int
    chunks_after: int
    window: Window
    within_bucket: bool
    causal: bool
    padding: Bool[Tensor, "batch length"] | None

    def visible(self) -> Bool[Tensor, "batch heads rounds length length"]:
        """Say for every round, query and key whether the query may see the key (never itself).

        Builds length x length: for reading, tests and small pictures.
        """
        length = self.slot.shape[-1]
        run = [bound.gather(-1, self.slot).unsqueeze(-1) for bound in (self.first, self.last)]
        slot_of_key = self.slot.unsqueeze(-2)
        visible = (slot_of_key >= run[0]) & (slot_of_key <= run[1])
        position = torch.arange(length, device=self.slot.device)
        earlier, same = position < position[:, None], position == position[:, None]
        return visible & (earlier if self.causal else ~same)

    def times_seen(self) -> Int[Tensor, "batch heads length length"]:
        """Count in how many rounds a query may see a key: the N_ij of the paper's appendix."""
        return self.visible().sum(dim=2)

    def with_buckets(self, buckets: Int[Tensor, "batch heads rounds length"]) -> "BucketPlan":
        """Plan other buckets by the same rule."""
        return plan_chunks(buckets, **self.rule())

    def rule(self) -> dict:
        """Return the keywords of `plan_chunks` that made this plan."""
        made_of_tensors = {"buckets", "order", "slot", "first", "last"}
        return {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in made_of_tensors
        }


def plan_chunks(
    buckets: Int[Tensor, "batch heads rounds length"],
    *,
    chunk_length: int,
    causal: bool,
    n_buckets: int | tuple[int, ...] | None = None,
    chunks_before: int = 1,
    chunks_after: int = 0,
    window: Window = "chunks",
    within_bucket: bool = True,
    padding: Bool[Tensor, "batch length"] | None = None,
) -> BucketPlan:
    """Sort each round by bucket and give every slot the run of slots it may see (Eq. 4-6).

    `window="chunks"` is the paper's rule: the sorted sequence is cut into chunks, and a query sees
    its own, `chunks_before` before it and `chunks_after` after it. Nothing wraps around the ends,
    and no round looks into another. `window="sliding"` counts from the query itself: the
    `chunk_length * chunks_before` slots before its own and, when not causal, `chunk_length *
    chunks_after` after it. `within_bucket` (Eq. 4) keeps a query among its bucket-mates.

    The chunk rule is not strictly causal: later tokens carry no weight, but they move the borders
    of the chunks. The sliding rule within buckets is: no later token changes an earlier run.

    `padding` is True where a token is padding: it is sorted last, is never seen and sees nobody.
    Any length is right, also one shorter than a chunk; the last chunk may be short.

    Raises ValueError when the rule contradicts itself, or the buckets or the padding do not keep
    it. That no bucket is outside `n_buckets` is looked at on a processor alone.
    """
    check_rule(chunk_length, causal, chunks_before, chunks_after, window)
    _check_buckets(buckets)
    if padding is not None:
        check_padding(padding, buckets.shape[0], buckets.shape[-1], buckets.device)
    n_buckets = _counted(buckets, n_buckets, padding)
    chunk_length, chunks_before, chunks_after = map(
        int, (chunk_length, chunks_before, chunks_after)
    )
    length = buckets.shape[-1]

    key = buckets.to(torch.int16 if n_buckets <= torch.iinfo(torch.int16).max else torch.int64)
    if padding is not None:
        key = key.masked_fill(padding[:, None, None], torch.iinfo(key.dtype).max)
    order = _sort_buckets(key)
    in_order = key.gather(-1, order)
    position = torch.arange(length, device=buckets.device)
    slot = torch.empty_like(order).scatter_(-1, order, position.expand(buckets.shape))
    place = position.int().expand(buckets.shape)

    if window == "chunks":
        start = place - place % min(chunk_length, _FARTHEST)
        first = start - min(chunk_length * chunks_before, _FARTHEST)
        last = start + (min(chunk_length * (1 + chunks_after), _FARTHEST) - 1)
    else:
        first = place - min(chunk_length * chunks_before, _FARTHEST)
        last = place - 1 if causal else place + min(chunk_length * chunks_after, _FARTHEST)
    first, last = first.clamp_min(0), last.clamp_max(length - 1)
    if within_bucket:
        starts, ends = _bucket_runs(in_order, place)
        first, last = torch.maximum(first, starts), torch.minimum(last, ends)
        if causal:  # bucket-mates stand in reading order: the earlier ones end before the slot
            last = torch.minimum(last, place - 1)
    if padding is not None:
        real = (~padding).sum(-1, dtype=torch.int32)[:, None, None, None]
        last = torch.minimum(last, real - 1)
        last = torch.where(place < real, last, first - 1)
    return BucketPlan(
        buckets=buckets,
        order=order,
        slot=slot,
        first=first.contiguous(),
        last=last.contiguous(),
        n_buckets=n_buckets,
        chunk_length=chunk_length,
        chunks_before=chunks_before,
        chunks_after=chunks_after,
        window=window,
        within_bucket=within_bucket,
        causal=causal,
        padding=padding,
    )


@torch.library.custom_op("reformer::sort_buckets", mutates_args=())
def _sort_buckets(key: Tensor) -> Tensor:
    """Return the order that sorts the last axis, equals in reading order.

    On a CPU NumPy sorts 16-bit integers digit by digit, ten times faster than torch, which
    compares; and a graph sees one operation.
    """
    if key.device.type == "cpu" and key.dtype == torch.int16:
        return torch.from_numpy(np.argsort(key.contiguous().numpy(), axis=-1, kind="stable"))
    return torch.argsort(key, dim=-1, stable=True).contiguous()


@_sort_buckets.register_fake
def _(key: Tensor) -> Tensor:
    return key.new_empty(key.shape, dtype=torch.int64)


def _bucket_runs(
    in_order: Int[Tensor, "batch heads rounds length"],
    place: Int[Tensor, "batch heads rounds length"],
) -> tuple[Int[Tensor, "batch heads rounds length"], Int[Tensor, "batch heads rounds length"]]:
    """Find the first and the last slot of the bucket that each slot belongs to."""
    opens = (in_order != in_order.roll(1, -1)) | (place == 0)
    closes = opens.roll(-1, -1)
    starts = place.masked_fill(~opens, 0).cummax(-1).values
    ends = place.masked_fill(~closes, place.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    return starts, ends


def check_padding(padding: Tensor, batch: int, length: int, device: torch.device) -> None:
    """Refuse a padding that does not say True or False of every token, where the tokens are."""
    if padding.shape != (batch, length):
        raise ValueError(
            f"padding must be (batch, length) = {(batch, length)} like what it speaks of, "
            f"got {tuple(padding.shape)}"
        )
    if padding.dtype != torch.bool:
        raise ValueError(
            f"padding must be bool, True where a token is padding, got {padding.dtype}: compare, "
            "say attention_mask == 0"
        )
    if padding.device != device:
        raise ValueError(
            f"padding must be on the device of what it speaks of, {device}, got {padding.device}: "
            "move it"
        )


def _check_buckets(buckets: Tensor) -> None:
    """Refuse what does not number the bucket of every position."""
    if buckets.dim() != 4:
        raise ValueError(
            f"buckets must be (batch, heads, rounds, length), got {tuple(buckets.shape)}: give "
            "an axis of one to what they lack"
        )
    if buckets.dtype not in _OF_BUCKETS:
        raise ValueError(
            f"buckets must be of uint8, int8, int16, int32 or int64, got {buckets.dtype}: number "
            "them, as hash_vectors does"
        )
    if buckets.shape[-1] == 0:
        raise ValueError("buckets must have at least one position, got length 0: give a token")


def _counted(
    buckets: Int[Tensor, "batch heads rounds length"],
    n_buckets: int | tuple[int, ...] | None,
    padding: Bool[Tensor, "batch length"] | None,
) -> int:
    """Return how many buckets there are, after a look whether all are among them.

    Nobody waits for a GPU to look, nor can a graph.
    """
    if n_buckets is None:
        if buckets.numel() == 0:
            return 1
        low, high = (int(edge) for edge in buckets.aminmax())
        n_buckets = high + 1
    else:
        n_buckets = n_buckets if isinstance(n_buckets, Integral) else math.prod(n_buckets)
        unseen = buckets.device.type != "cpu" or torch.compiler.is_compiling()
        if unseen or buckets.numel() == 0:
            return int(n_buckets)
        low, high = (int(edge) for edge in buckets.aminmax())
    if low >= 0 and high < n_buckets:
        return int(n_buckets)
    if padding is not None:  # whose buckets nobody reads
        return _counted(buckets.masked_fill(padding[:, None, None], 0), n_buckets, None)
    raise ValueError(
        f"buckets must be numbered from 0 to n_buckets - 1 = {n_buckets - 1}, got {low} to {high}: "
        "give the n_buckets that they were hashed with"
    )


def check_rule(
    chunk_length: int, causal: bool, chunks_before: int, chunks_after: int, window: str
) -> None:
    """Refuse a window rule that contradicts itself."""
    sizes = {
        "chunk_length": chunk_length,
        "chunks_before": chunks_before,
        "chunks_after": chunks_after,
    }
    for name, number in sizes.items():
        if not isinstance(number, Integral):
            raise ValueError(f"{name} must be a whole number, got {number!r}: round it")
    if chunk_length < 1:
        raise ValueError(f"chunk_length must be at least 1, got {chunk_length}")
    for name, number in (("chunks_before", chunks_before), ("chunks_after", chunks_after)):
        if number < 0:
            raise ValueError(f"{name} must not be negative, got {number}")
    if window not in ("chunks", "sliding"):
        raise ValueError(f'window must be "chunks" or "sliding", got {window!r}')
    if causal and chunks_after:
        raise ValueError(
            f"chunks_after must be 0 when causal, got {chunks_after}: nobody sees later tokens"
        )
    if window == "sliding" and chunks_before + chunks_after == 0:
        raise ValueError(
            "a sliding window of no slots sees nobody: give chunks_before or chunks_after, got 0"
        )
