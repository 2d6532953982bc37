"""Where one head's tokens went: buckets, sorted order, and the pairs that the window loses."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int, Int8

from reformer_core.bucketing import BucketPlan, Window, plan_chunks
from reformer_viz.measure.bucket_load import mates_seen
from reformer_viz.measure.pairs import check_index, plan_under
from reformer_viz.measure.words import count, listed

HIDDEN, SEEN, LOST, ELSEWHERE, FOUND = range(5)
"""What a round makes of a pair: it hides it; sees it; loses it, two tokens of one bucket, to the
window; hides it while another round sees it; loses it while another round sees it."""

MOST_PAIRWISE = 1024
"""Of longer sequences pictures show pairs in bins, not one by one."""

SEVERAL = -1
"""Instead of a bucket, where a bin holds none or several."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BinnedPairs:
    """Who sees whom where neighbours share a cell: rows are queries, columns are keys."""

    seen: Int[np.ndarray, "cells cells"]
    """How many of a cell's pairs the round sees."""
    bucket: Int[np.ndarray, "cells cells"]
    """The bucket of the queries that see something there: SEVERAL where they differ or see none."""
    elsewhere: Bool[np.ndarray, "cells cells"]
    """Whether other rounds see pairs there that this one hides."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucketing:
    """What one head did with one sequence, in every round: all that a picture of it needs.

    A *pair* is a query and a key that it might look at: any other token, or with `causal` any
    earlier one. `mates` are the pairs whose tokens share a bucket. Padding is in no pair.
    """

    buckets: Int[np.ndarray, "rounds length"]
    order: Int[np.ndarray, "rounds length"]
    slot: Int[np.ndarray, "rounds length"]
    first: Int[np.ndarray, "rounds length"]
    last: Int[np.ndarray, "rounds length"]
    window_first: Int[np.ndarray, " length"]
    """The first slot that a slot's window covers, whatever the buckets."""
    window_last: Int[np.ndarray, " length"]
    sizes: Int[np.ndarray, "rounds n_buckets"]
    """How many tokens each bucket holds, padding not counted."""
    seen: Int[np.ndarray, " rounds"]
    """The pairs that a round sees."""
    mates_seen: Int[np.ndarray, " rounds"]
    mates_lost: Int[np.ndarray, " rounds"]
    """The pairs of one bucket that are too far apart in sorted order for the window."""
    possible: int
    """All pairs: what full attention sees."""
    n_buckets: int
    chunk_length: int
    chunks_before: int
    chunks_after: int
    window: Window
    within_bucket: bool
    causal: bool
    padding: Bool[np.ndarray, " length"] | None
    labels: tuple[str, ...] | None
    """What to call the tokens, for pictures."""

    @property
    def n_rounds(self) -> int:
        """How many rounds were hashed."""
        return self.buckets.shape[0]

    @property
    def length(self) -> int:
        """How many tokens there are, padding counted."""
        return self.buckets.shape[1]

    @cached_property
    def real(self) -> Bool[np.ndarray, " length"]:
        """Which tokens are not padding."""
        return np.ones(self.length, dtype=bool) if self.padding is None else ~self.padding

    @property
    def mates_found(self) -> Int[np.ndarray, " rounds"]:
        """Those of `mates_lost` that another round sees."""
        return self._across_rounds[0]

    @property
    def seen_by_any(self) -> int:
        """The pairs that at least one round sees, each counted once."""
        return self._across_rounds[1]

    def under(
        self,
        *,
        rounds: int | None = None,
        chunk_length: int | None = None,
        window: Window | None = None,
        within_bucket: bool | None = None,
    ) -> "Bucketing":
        """Plan the same buckets by another rule, or only the first rounds; None leaves it as it is.

        Raises ValueError for what `plan_chunks` refuses, and for more rounds than were hashed.
        """
        rule = {"chunk_length": chunk_length, "window": window, "within_bucket": within_bucket}
        plan = plan_under(self, rounds=rounds, **rule)
        return self if plan is None else measure_bucketing(plan, labels=self.labels)

    def check_round(self, round: int) -> None:
        """Refuse a round that was not measured."""
        if not 0 <= round < self.n_rounds:
            raise ValueError(
                f"round must be in 0..{self.n_rounds - 1}, got {round}: "
                f"{self.n_rounds} were measured"
            )

    def check_token(self, token: int) -> None:
        """Refuse a token that is not in the sequence."""
        if not 0 <= token < self.length:
            raise ValueError(
                f"token must be in 0..{self.length - 1}, got {token}: "
                f"the sequence has {self.length} tokens"
            )

    def kinds(self, round: int) -> Int8[np.ndarray, "length length"]:
        """Say of every query (row) and key (column) what a round makes of the pair.

        The codes are HIDDEN, SEEN, LOST, ELSEWHERE and FOUND. Builds length x length numbers.
        """
        self.check_round(round)
        mates = self.buckets[round, :, None] == self.buckets[round]
        kinds = np.where(mates & self._allowed, LOST, HIDDEN).astype(np.int8)
        flat = kinds.reshape(-1)
        by_any = self._seen_by_any
        flat[by_any] = np.where(flat[by_any] == LOST, FOUND, ELSEWHERE)
        query, key = self._pairs(round)
        kinds[query, key] = SEEN
        return kinds

    def kinds_for(self, round: int, token: int) -> Int8[np.ndarray, " length"]:
        """Say of every key what a round makes of the pair with one query: a row of `kinds`."""
        self.check_round(round)
        self.check_token(token)
        position = np.arange(self.length)
        allowed = position < token if self.causal else position != token
        if not self.real[token]:
            return np.full(self.length, HIDDEN, dtype=np.int8)
        mates = allowed & self.real & (self.buckets[round] == self.buckets[round, token])
        seen = [allowed & self._sees(each, token, position) for each in range(self.n_rounds)]
        by_any = np.any(seen, axis=0)
        kinds = np.where(mates, np.where(by_any, FOUND, LOST), np.where(by_any, ELSEWHERE, HIDDEN))
        return np.where(seen[round], SEEN, kinds).astype(np.int8)

    def binned(self, round: int, in_sorted_order: bool, cells: int) -> BinnedPairs:
        """Count a round's pairs in a square of cells x cells, straight from the runs.

        Rows are queries and columns keys, by slot or by position. Builds no length x length.
        """
        self.check_round(round)
        if not 1 <= cells <= self.length:
            raise ValueError(
                f"cells must be in 1..{self.length}, got {cells}: a cell holds at least one token"
            )
        place = self.slot[round] if in_sorted_order else np.arange(self.length)
        cell = place.astype(np.int64) * cells // self.length
        shape = cells, cells
        query, key = self._pairs(round)
        at = cell[query] * cells + cell[key]
        lowest, highest = np.full(cells * cells, self.n_buckets), np.full(cells * cells, -1)
        np.minimum.at(lowest, at, self.buckets[round, query])
        np.maximum.at(highest, at, self.buckets[round, query])
        elsewhere = np.zeros(cells * cells, dtype=bool)
        for other in set(range(self.n_rounds)) - {round}:
            query, key = self._pairs(other)
            hidden = ~self._sees(round, query, key)
            elsewhere[cell[query[hidden]] * cells + cell[key[hidden]]] = True
        return BinnedPairs(
            seen=np.bincount(at, minlength=cells * cells).reshape(shape),
            bucket=np.where(lowest == highest, lowest, SEVERAL).reshape(shape),
            elsewhere=elsewhere.reshape(shape),
        )

    def runs(self, round: int) -> list[tuple[int, int, int]]:
        """List a round's non-empty buckets in sorted order: bucket, first slot, last slot."""
        sizes = self.sizes[round]
        ends = np.cumsum(sizes)
        return [
            (int(bucket), int(ends[bucket] - sizes[bucket]), int(ends[bucket] - 1))
            for bucket in np.flatnonzero(sizes)
        ]

    def describe(self, round: int = 0, token: int | None = None) -> str:
        """Say in a sentence or two what a round did, or what it did with one token."""
        self.check_round(round)
        if token is None:
            return f"{self._overall()} {self._of_round(round)}"
        self.check_token(token)
        return self._of_token(round, token)

    @cached_property
    def _allowed(self) -> Bool[np.ndarray, "length length"]:
        position = np.arange(self.length)
        allowed = position < position[:, None] if self.causal else position != position[:, None]
        return allowed & self.real & self.real[:, None]

    @cached_property
    def _seen_by_any(self) -> Int[np.ndarray, " pairs"]:
        pairs = [self._pairs(round) for round in range(self.n_rounds)]
        return np.unique(np.concatenate([query * self.length + key for query, key in pairs]))

    def _pairs(self, round: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
        """List the queries and keys of the pairs that a round sees."""
        return pairs_seen(self.order[round], self.first[round], self.last[round], self.causal)

    def _sees(self, round: int, query, key):
        """Say whether a round sees pairs that are in the right order: three comparisons a pair."""
        slot, slot_of_key = self.slot[round], self.slot[round, key]
        first, last = self.first[round, slot], self.last[round, slot]
        return (first[query] <= slot_of_key) & (slot_of_key <= last[query])

    @cached_property
    def _across_rounds(self) -> tuple[Int[np.ndarray, " rounds"], int]:
        """Count the pairs that rounds find for each other, and those that any of them sees.

        A pair counts in the first round that sees it, which the plans themselves answer.
        """
        found, by_any = np.zeros(self.n_rounds, dtype=np.int64), 0
        for round in range(self.n_rounds):
            query, key = self._pairs(round)
            for earlier in range(round):
                fresh = ~self._sees(earlier, query, key)
                query, key = query[fresh], key[fresh]
            by_any += len(query)
            for other in set(range(self.n_rounds)) - {round}:
                mates = self.buckets[other, query] == self.buckets[other, key]
                found[other] += (mates & ~self._sees(other, query, key)).sum()
        return found, by_any

    def _overall(self) -> str:
        padded = int((~self.real).sum())
        padding = f" ({padded:,} of them padding)" if padded else ""
        if self.window == "chunks":
            window = f"chunks of {self.chunk_length:,}"
        else:
            reach = self.chunk_length * (self.chunks_before + self.chunks_after)
            window = f"a sliding window of {count(reach, 'slot')}"
        return (
            f"{count(self.length, 'token')}{padding}, {count(self.n_buckets, 'bucket')}, "
            f"{count(self.n_rounds, 'round')}, {window}."
        )

    def _of_round(self, round: int) -> str:
        sizes = self.sizes[round]
        seen, lost = int(self.mates_seen[round]), int(self.mates_lost[round])
        across = "" if self.within_bucket else f" It sees {self.seen[round]:,} across buckets."
        return (
            f"Round {round}: buckets hold {sizes.min():,} to {count(int(sizes.max()), 'token')}. "
            f"Of {count(seen + lost, 'pair')} in one bucket, the round sees {seen:,} and loses "
            f"{lost:,} to the window; other rounds see {self.mates_found[round]:,} of those."
            f"{across} Together the rounds see {self.seen_by_any:,} of "
            f"{count(self.possible, 'pair')}."
        )

    def _of_token(self, round: int, token: int) -> str:
        if not self.real[token]:
            return padding_in_words(self.labels, token)
        return token_in_words(self, self.kinds_for(round, token), round, token)


def measure_bucketing(
    plan: BucketPlan, batch: int = 0, head: int = 0, labels: Sequence[str] | None = None
) -> Bucketing:
    """Take apart what a plan does with one sequence in one head, and count what the window loses.

    Every number comes from the plan that attention used. `labels` names the tokens, one each.
    """
    check_index("batch", batch, plan.buckets.shape[0], "the plan")
    check_index("head", head, plan.buckets.shape[1], "the plan")
    length = plan.buckets.shape[-1]
    if labels is not None and len(labels) != length:
        raise ValueError(f"labels must name every token, got {len(labels)} for {length} tokens")
    if int(plan.buckets.max()) >= plan.n_buckets or int(plan.buckets.min()) < 0:
        raise ValueError(
            f"buckets must be in 0..{plan.n_buckets - 1}, got {int(plan.buckets.min())} to "
            f"{int(plan.buckets.max())}: plan them with the n_buckets they were hashed with"
        )

    def of_head(tensor) -> np.ndarray:
        return tensor[batch, head].cpu().numpy()

    buckets, order, slot, first, last = map(
        of_head, (plan.buckets, plan.order, plan.slot, plan.first, plan.last)
    )
    padding = None if plan.padding is None else plan.padding[batch].cpu().numpy()
    whole_window = plan_chunks(plan.buckets, **{**plan.rule(), "within_bucket": False})
    real = np.ones(length, dtype=bool) if padding is None else ~padding
    sizes = np.stack([np.bincount(row[real], minlength=plan.n_buckets) for row in buckets])
    mates = mates_seen(sizes, buckets, order, first, last, plan.causal).sum(1)
    seen = mates
    if not plan.within_bucket:
        rounds = zip(order, first, last, strict=True)
        seen = np.array([len(pairs_seen(*round, plan.causal)[0]) for round in rounds])
    return Bucketing(
        buckets=buckets,
        order=order,
        slot=slot,
        first=first,
        last=last,
        window_first=of_head(whole_window.first)[0],
        window_last=of_head(whole_window.last)[0],
        sizes=sizes,
        seen=seen,
        mates_seen=mates,
        mates_lost=pairs_among(sizes, plan.causal).sum(1) - mates,
        possible=pairs_among(int(real.sum()), plan.causal),
        n_buckets=plan.n_buckets,
        chunk_length=plan.chunk_length,
        chunks_before=plan.chunks_before,
        chunks_after=plan.chunks_after,
        window=plan.window,
        within_bucket=plan.within_bucket,
        causal=plan.causal,
        padding=padding,
        labels=None if labels is None else tuple(labels),
    )


def token_in_words(data, kinds: Int8[np.ndarray, " length"], round: int, token: int) -> str:
    """Say where a token is, and what a round makes of its pairs: `kinds`, a code for every key.

    `data` is a `Bucketing`, or what has its buckets, slots, chunk length and labels.
    """
    slot = int(data.slot[round, token])
    seen, lost = np.flatnonzero(kinds == SEEN), np.flatnonzero(np.isin(kinds, (LOST, FOUND)))
    found, more = int((kinds == FOUND).sum()), int((kinds == ELSEWHERE).sum())
    sees = f"sees {count(len(seen), 'token')}{listed(seen)}" if len(seen) else "sees nobody"
    return (
        f"Round {round}: token {token:,}{name_in_words(data.labels, token)} is in bucket "
        f"{data.buckets[round, token]:,}, slot {slot:,}, chunk {slot // data.chunk_length:,}. "
        f"It {sees}, and loses {len(lost):,} of its bucket to the window{listed(lost)}. "
        f"Other rounds see {found:,} of the lost, and {more:,} of other buckets."
    )


def padding_in_words(labels: tuple[str, ...] | None, token: int) -> str:
    """Say that a token is padding."""
    name = name_in_words(labels, token)
    return f"Token {token:,}{name} is padding: it sees nobody, and nobody sees it."


def name_in_words(labels: tuple[str, ...] | None, token: int) -> str:
    """Return a token's label in quotes after a blank, or nothing without labels."""
    return "" if labels is None else f" “{labels[token]}”"


def pairs_seen(
    order: Int[np.ndarray, " length"],
    first: Int[np.ndarray, " length"],
    last: Int[np.ndarray, " length"],
    causal: bool,
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """List the queries and the keys of the pairs that a round's runs show."""
    widths = np.maximum(last - first + 1, 0).astype(np.int64)
    query = np.repeat(order, widths)
    place_in_run = np.arange(widths.sum()) - np.repeat(np.cumsum(widths) - widths, widths)
    key = order[np.repeat(first, widths) + place_in_run]
    allowed = key < query if causal else key != query
    return query[allowed], key[allowed]


def pairs_among(n_tokens, causal: bool):
    """Count the pairs that so many tokens make: ordered ones, or with `causal` half of them."""
    ordered = n_tokens * (n_tokens - 1)
    return ordered // 2 if causal else ordered
