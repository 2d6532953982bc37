"""How evenly buckets fill, and what the longest ones cost: pairs of one bucket that nobody sees."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from reformer_core.bucketing import BucketPlan


@dataclass(frozen=True, kw_only=True, eq=False)
class BucketLoad:
    """What every bucket of a plan holds and loses; a *hashing* is one round of one head's sequence.

    A pair of one bucket is a query and a key that it might look at (with `causal` an earlier one).
    It is lost when the two stand too far apart in sorted order for the window of that round.
    """

    sizes: Int[np.ndarray, "hashings n_buckets"]
    """Tokens in each bucket, padding not counted."""
    pairs: Int[np.ndarray, "hashings n_buckets"]
    """Pairs of one bucket."""
    lost: Int[np.ndarray, "hashings n_buckets"]
    """Those of `pairs` that the round does not see."""
    batch: Int[np.ndarray, " hashings"]
    head: Int[np.ndarray, " hashings"]
    round: Int[np.ndarray, " hashings"]
    length: int
    safe: int
    """A bucket of at most so many tokens loses no pair, wherever chunks are cut."""

    @property
    def n_buckets(self) -> int:
        """How many buckets every hashing has."""
        return self.sizes.shape[1]

    @property
    def even(self) -> float:
        """Tokens in each bucket if all held as many."""
        return float(self.sizes.sum() / self.sizes.size)

    def longest(self, n: int) -> list[tuple[int, int]]:
        """List the longest buckets as (hashing, bucket), the longest first."""
        order = np.argsort(-self.sizes, axis=None, kind="stable")[:n]
        return [(int(place) // self.n_buckets, int(place) % self.n_buckets) for place in order]

    def name(self, hashing: int, bucket: int) -> str:
        """Say where a bucket is, with no more words than there are choices."""
        parts = [f"bucket {bucket:,}"]
        for what, of_hashing in (("round", self.round), ("head", self.head), ("batch", self.batch)):
            if of_hashing.max() > 0:
                parts.append(f"{what} {of_hashing[hashing]:,}")
        return ", ".join(parts)

    def describe(self) -> str:
        """Say how unequal the buckets are, and what the longest ones lose."""
        hashing, bucket = self.longest(1)[0]
        pairs, lost = int(self.pairs.sum()), int(self.lost.sum())
        own = int(self.pairs[hashing, bucket])
        own_lost = int(self.lost[hashing, bucket])
        return (
            f"{_many(len(self.sizes), 'hashing')} of {_many(self.length, 'token')} into "
            f"{_many(self.n_buckets, 'bucket')}: evenly shared {self.even:.1f} tokens each, but "
            f"{(self.sizes == 0).mean():.0%} are empty and the longest holds "
            f"{int(self.sizes.max()):,} ({self.name(hashing, bucket)}). Of "
            f"{_many(pairs, 'pair')} in one bucket {lost:,} are lost to the window "
            f"({_share(lost, pairs)}), of the longest bucket's {own:,} pairs {own_lost:,} "
            f"({_share(own_lost, own)}). Up to {_many(self.safe, 'token')} a bucket loses none."
        )


def measure_bucket_load(plan: BucketPlan) -> BucketLoad:
    """Count what every bucket of every sequence, head and round holds, and the pairs it loses.

    Linear in the length: a slot's bucket-mates in its window are counted from the ends of its run,
    never listed.
    """
    batch, heads, rounds, length = plan.buckets.shape
    buckets, order, first, last = (
        tensor.flatten(0, 2).cpu().numpy().astype(np.int64)
        for tensor in (plan.buckets, plan.order, plan.first, plan.last)
    )
    real = np.ones((batch, length), dtype=bool)
    if plan.padding is not None:
        real = ~plan.padding.cpu().numpy()
    real = np.repeat(real, heads * rounds, axis=0)
    if buckets[real].size and not 0 <= buckets[real].min() <= buckets[real].max() < plan.n_buckets:
        raise ValueError(
            f"buckets must be in 0..{plan.n_buckets - 1}, got {buckets.min()} to {buckets.max()}: "
            f"plan them with the n_buckets they were hashed with"
        )
    cell = np.arange(len(buckets))[:, None] * plan.n_buckets + buckets
    n_cells = len(buckets) * plan.n_buckets
    sizes = np.bincount(cell[real], minlength=n_cells).reshape(-1, plan.n_buckets)
    mates = mates_seen(sizes, buckets, order, first, last, plan.causal)
    seen = np.bincount(cell[real], mates[real], minlength=n_cells).astype(np.int64)
    pairs = sizes * (sizes - 1) // (2 if plan.causal else 1)
    places = np.unravel_index(np.arange(len(buckets)), (batch, heads, rounds))
    return BucketLoad(
        sizes=sizes,
        pairs=pairs,
        lost=pairs - seen.reshape(sizes.shape),
        **dict(zip(("batch", "head", "round"), places, strict=True)),
        length=length,
        safe=_safe_size(plan),
    )


def mates_seen(
    sizes: Int[np.ndarray, "hashings n_buckets"],
    buckets: Int[np.ndarray, "hashings length"],
    order: Int[np.ndarray, "hashings length"],
    first: Int[np.ndarray, "hashings length"],
    last: Int[np.ndarray, "hashings length"],
    causal: bool,
) -> Int[np.ndarray, "hashings length"]:
    """Count for every position the bucket-mates that it sees."""
    ends = np.cumsum(sizes, axis=1)
    in_order = np.take_along_axis(buckets, order, axis=1)
    end = np.take_along_axis(ends, in_order, axis=1)
    start = end - np.take_along_axis(sizes, in_order, axis=1)
    slot = np.broadcast_to(np.arange(buckets.shape[1]), buckets.shape)
    low, high = np.maximum(first, start), np.minimum(last, end - 1)
    if causal:  # bucket-mates stand in reading order: the earlier ones before the slot
        high = np.minimum(high, slot - 1)
    seen = np.maximum(high - low + 1, 0) - ((low <= slot) & (slot <= high))
    of_position = np.empty_like(seen)
    np.put_along_axis(of_position, order, seen, axis=1)
    return of_position


def _safe_size(plan: BucketPlan) -> int:
    """Return the longest bucket that the narrowest window of any slot covers whole."""
    back, ahead = plan.chunk_length * plan.chunks_before, plan.chunk_length * plan.chunks_after
    return 1 + (back if plan.causal else min(back, ahead))


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none of none"
