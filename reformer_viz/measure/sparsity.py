"""Who sees whom, which round saw it first, what full attention would weigh, and what it costs."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.attention.dense import keys_from
from reformer_core.bucketing import BucketPlan, Window, plan_chunks
from reformer_core.models import Trace
from reformer_viz.measure.pairs import Grid, HeadPlan, grid_for, one_head, take_head
from reformer_viz.measure.words import count, in_percent, percent

MOST_SCORES = 2**25
"""Up to so many of full attention's scores are computed; above, some queries stand for all."""

_SCORES_AT_ONCE = 2**20
_FEWEST_QUERIES = 1024  # drawn: twice the rows of a picture of shared cells, so that none is empty


@dataclass(frozen=True, kw_only=True, eq=False)
class Mass:
    """Full attention's weight, of every query or of some, and how much of it the rounds see.

    The weights are those of `full_attention`: keys of unit length, and oneself only where there is
    nobody else. A query that has nobody else is left out.
    """

    queries: Int[np.ndarray, " queries"]
    """The queries that were looked at."""
    found: Float[np.ndarray, "rounds queries"]
    """The share of a query's weight that the rounds up to each one see."""
    weights: Float[np.ndarray, "cells cells"]
    """The weight of a cell's keys, summed, on average over its queries: rows sum to 1. NaN where
    there is no pair."""
    grid: Grid
    """The cells of `weights`."""
    n_askers: int
    """How many queries have anybody but themselves to look at."""

    @property
    def sampled(self) -> bool:
        """Say whether some queries stand for all."""
        return len(self.queries) < self.n_askers

    def share(self, rounds: int) -> float:
        """Return how much of its weight a query finds in the first rounds, on average."""
        return float(self.found[rounds - 1].mean()) if rounds else 0.0

    def error(self, rounds: int) -> float:
        """Return the standard error of that average: 0 when every query was looked at."""
        if not self.sampled:
            return 0.0
        return float(self.found[rounds - 1].std(ddof=1) / len(self.queries) ** 0.5)

    def describe(self, rounds: int) -> str:
        """Say how much of the weight the first rounds find, and how well that is known."""
        words = f"{in_percent(self.share(rounds))} of full attention's weight"
        if not self.sampled:
            return f"They find {words}."
        return (
            f"They find about {words} (standard error {in_percent(self.error(rounds))}: "
            f"{len(self.queries):,} of {self.n_askers:,} queries drawn)."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sparsity:
    """Which pairs one head's rounds see in one sequence, by the round that first sees them.

    A *pair* is a query and a key that it might look at: any other token, or with `causal` any
    earlier one; padding is in none. The matrices have a row for every query and a column for every
    key, or above 1,024 tokens a cell for `grid.per_cell` neighbours.
    """

    first_seen: Int[np.ndarray, "rounds cells cells"]
    """How many pairs of a cell a round is the first to see."""
    possible: Int[np.ndarray, "cells cells"]
    """How many pairs a cell holds: what full attention sees."""
    seen: Int[np.ndarray, " rounds"]
    """The pairs that each round sees, whether or not an earlier one did."""
    tiles: int
    """The scores that every round takes in whole tiles: a chunk's queries by all their window."""
    mass: Mass | None
    """None where the vectors were not given."""
    grid: Grid
    buckets: Int[np.ndarray, "rounds length"]
    n_buckets: int
    chunk_length: int
    chunks_before: int
    chunks_after: int
    window: Window
    within_bucket: bool
    causal: bool
    padding: Bool[np.ndarray, " length"] | None

    @property
    def n_rounds(self) -> int:
        """How many rounds were hashed."""
        return self.buckets.shape[0]

    @property
    def length(self) -> int:
        """How many tokens there are, padding counted."""
        return self.buckets.shape[1]

    @cached_property
    def n_possible(self) -> int:
        """How many pairs there are."""
        return int(self.possible.sum(dtype=np.int64))

    @cached_property
    def pairs_first_seen(self) -> Int[np.ndarray, " rounds"]:
        """How many pairs each round is the first to see."""
        return self.first_seen.sum(axis=(1, 2), dtype=np.int64)

    @property
    def visible_fraction(self) -> float:
        """The share of all pairs that some round sees, in [0, 1]."""
        return int(self.pairs_first_seen.sum()) / self.n_possible

    @property
    def mass_found(self) -> float | None:
        """The share of full attention's weight on the pairs that some round sees.

        The average over the queries that have anybody to look at; None without vectors.
        """
        return None if self.mass is None else self.mass.share(self.n_rounds)

    @property
    def cost(self) -> float:
        """The scores that all rounds take in whole tiles, as a multiple of length x length."""
        return self.n_rounds * self.tiles / self.length**2

    @cached_property
    def first_round(self) -> Int[np.ndarray, "length length"]:
        """The first round that sees each pair, -1 where none does.

        Raises ValueError where positions share cells.
        """
        if self.grid.per_cell > 1:
            raise ValueError(
                f"first_round needs a cell for every pair, got {self.grid.per_cell} x "
                f"{self.grid.per_cell} pairs a cell: read first_seen"
            )
        return np.where(self.first_seen.any(0), self.first_seen.argmax(0), -1)

    def check_rounds(self, rounds: int) -> None:
        """Refuse more rounds than were measured, or none."""
        if not 1 <= rounds <= self.n_rounds:
            raise ValueError(
                f"rounds must be in 1..{self.n_rounds}, got {rounds}: {self.n_rounds} were measured"
            )

    def describe(self, rounds: int | None = None) -> str:
        """Say what the first rounds see, find and cost; None: all rounds."""
        rounds = self.n_rounds if rounds is None else rounds
        self.check_rounds(rounds)
        weight = [] if self.mass is None else [self.mass.describe(rounds)]
        return " ".join([self._rule(rounds), self._pairs(rounds), *weight, self._cost(rounds)])

    def _rule(self, rounds: int) -> str:
        padded = 0 if self.padding is None else int(self.padding.sum())
        padding = f" ({padded:,} of them padding)" if padded else ""
        reach = self.chunk_length * (self.chunks_before + self.chunks_after)
        window = {
            "chunks": f"chunks of {self.chunk_length:,}",
            "sliding": f"a sliding window of {count(reach, 'slot')}",
        }[self.window]
        return (
            f"{count(self.length, 'token')}{padding}, {count(self.n_buckets, 'bucket')}, "
            f"{count(rounds, 'round')}, {window}."
        )

    def _pairs(self, rounds: int) -> str:
        new = [int(pairs) for pairs in self.pairs_first_seen[:rounds]]
        by_round = ", ".join(f"round {round} adds {pairs:,}" for round, pairs in enumerate(new))
        return (
            f"Of {count(self.n_possible, 'pair')} they see {sum(new):,}, "
            f"{percent(sum(new), self.n_possible)}: {by_round}."
        )

    def _cost(self, rounds: int) -> str:
        tiles, dense = rounds * self.tiles, self.length**2
        return (
            f"In whole tiles that takes {count(tiles, 'score')}, {percent(tiles, dense)} of full "
            f"attention's {dense:,}."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SparsityPerHead:
    """What the LSH layers of a model see, find and cost, one number for every head."""

    layers: Int[np.ndarray, " layers"]
    """Which of the model's layers have LSH attention, counted from 0."""
    visible_fraction: Float[np.ndarray, "layers heads"]
    """The share of all pairs that some round sees."""
    mass_found: Float[np.ndarray, "layers heads"]
    """The share of full attention's weight on those pairs, the average over queries."""
    mass_error: Float[np.ndarray, "layers heads"]
    """The standard error of `mass_found`: 0 where every query was looked at."""
    cost: Float[np.ndarray, " layers"]
    """The scores that all rounds take in whole tiles, as a multiple of length x length."""
    n_rounds: Int[np.ndarray, " layers"]
    length: int

    def describe(self) -> str:
        """Say which head finds least and which most of full attention's weight."""
        least, most = (self._name(at(self.mass_found)) for at in (np.argmin, np.argmax))
        error = float(self.mass_error.max())
        known = f" (standard errors up to {in_percent(error)})" if error else ""
        return (
            f"{count(self.length, 'token')}, {count(len(self.layers), 'LSH layer')}, "
            f"{count(self.mass_found.shape[1], 'head')} each. A head sees on average "
            f"{in_percent(float(self.visible_fraction.mean()))} of the pairs and finds "
            f"{in_percent(float(self.mass_found.mean()))} of full attention's weight{known}: "
            f"least {least}, most {most}."
        )

    def _name(self, flat: np.integer) -> str:
        layer, head = np.unravel_index(flat, self.mass_found.shape)
        share = in_percent(float(self.mass_found[layer, head]))
        return f"{share} in layer {self.layers[layer]}, head {head}"


@torch.no_grad()
def measure_sparsity(
    plan: BucketPlan,
    qk: Float[Tensor, "batch heads length d_head"] | None = None,
    batch: int = 0,
    head: int = 0,
    *,
    seed: int = 0,
) -> Sparsity:
    """Find which round first sees each pair, and what share of full attention's weight they hold.

    Every number comes from the plan that attention used, and the weights from the shared
    query-keys `qk`; without them there are no weights. Never builds length x length above 1,024
    tokens: pairs are counted in shared cells, and where all scores would be more than
    `MOST_SCORES`, queries are drawn by `seed`, spread evenly, and the sentence says so.

    Raises ValueError for a batch or head that is not there, vectors of another shape or with NaN,
    and sequences in which nobody has anybody to look at.
    """
    grid = grid_for(plan.buckets.shape[-1])
    return _measure(plan, qk, batch, head, grid, seed, MOST_SCORES)


def measure_sparsity_per_head(trace: Trace, batch: int = 0, *, seed: int = 0) -> SparsityPerHead:
    """Measure what every head of a model's LSH layers sees of one sequence, and finds.

    `trace` is what `model.trace(tokens)` returns: looking moves nothing in the model. Raises
    ValueError for a model without LSH layers.
    """
    lsh = [(i, layer) for i, layer in enumerate(trace.layers) if layer.plan is not None]
    if not lsh:
        raise ValueError(
            f"the model must have an LSH layer, got {len(trace.layers)} of other kinds: "
            f'give its config attention=("lsh",)'
        )
    _, n_heads, _, length = lsh[0][1].plan.buckets.shape
    whole, most_scores = Grid(length, length), MOST_SCORES // (len(lsh) * n_heads)
    of_layers = [
        [
            _measure(layer.plan, layer.qk, batch, head, whole, seed, most_scores)
            for head in range(n_heads)
        ]
        for _, layer in lsh
    ]

    def of_heads(number) -> np.ndarray:
        return np.array([[float(number(of_head)) for of_head in heads] for heads in of_layers])

    return SparsityPerHead(
        layers=np.array([i for i, _ in lsh]),
        visible_fraction=of_heads(lambda sparsity: sparsity.visible_fraction),
        mass_found=of_heads(lambda sparsity: sparsity.mass_found),
        mass_error=of_heads(lambda sparsity: sparsity.mass.error(sparsity.n_rounds)),
        cost=of_heads(lambda sparsity: sparsity.cost)[:, 0],
        n_rounds=np.array([heads[0].n_rounds for heads in of_layers]),
        length=length,
    )


@torch.no_grad()
def _measure(
    plan: BucketPlan,
    qk: Tensor | None,
    batch: int,
    head: int,
    grid: Grid,
    seed: int,
    most_scores: int,
) -> Sparsity:
    alone = one_head(plan, batch, head)
    of_head = take_head(alone)
    of_head.check_pairs()
    mass = None
    if qk is not None:
        most_queries = max(_FEWEST_QUERIES, most_scores // of_head.length)
        [mass] = weigh(vectors_of(qk, plan, batch, head), [of_head], grid, seed, most_queries)
    return sparsity_of(alone, mass, grid)


def sparsity_of(plan: BucketPlan, mass: Mass | None, grid: Grid) -> Sparsity:
    """Count the pairs that a plan of one head of one sequence shows."""
    head = take_head(plan)
    first_seen, seen = count_first_seen(head, grid)
    return Sparsity(
        first_seen=first_seen,
        possible=grid.possible(head.real, plan.causal),
        seen=seen,
        tiles=_whole_tiles(plan),
        mass=mass,
        grid=grid,
        buckets=plan.buckets[0, 0].cpu().numpy(),
        padding=None if plan.padding is None else ~head.real,
        **{name: rule for name, rule in plan.rule().items() if name != "padding"},
    )


def vectors_of(qk: Tensor, plan: BucketPlan, batch: int, head: int) -> Tensor:
    """Take one head's vectors, finite and as many as the plan has positions."""
    batches, heads, _, length = plan.buckets.shape
    if qk.shape[:3] != (batches, heads, length):
        raise ValueError(
            f"qk must be (batch, heads, length, d_head) with {(batches, heads, length)} as in the "
            f"plan, got {tuple(qk.shape)}: give the vectors that were hashed"
        )
    broken = (~qk[batch, head].isfinite()).nonzero()
    if len(broken):
        raise ValueError(
            f"qk must be finite, got NaN or infinity at token {int(broken[0, 0])} of head {head}: "
            f"look for the layer that made it"
        )
    return qk[batch, head].detach().cpu()


def count_first_seen(
    head: HeadPlan, grid: Grid, place: Int[np.ndarray, " length"] | None = None
) -> tuple[Int[np.ndarray, "rounds cells cells"], Int[np.ndarray, " rounds"]]:
    """Count in every cell the pairs that each round is the first to see, and all that it sees.

    `place` says which row and column a position has; None: reading order.
    """
    place = np.arange(head.length) if place is None else place
    first_seen = np.zeros((head.n_rounds, grid.n_cells, grid.n_cells), dtype=np.int32)
    seen = np.zeros(head.n_rounds, dtype=np.int64)
    for queries in head.blocks(np.arange(head.length)):
        for round in range(head.n_rounds):
            row, key = head.pairs(round, queries)
            seen[round] += len(row)
            row, key = head.unseen_before(round, queries, row, key)
            first_seen[round] += grid.count(place[queries[row]], place[key])
    return first_seen, seen


class FullWeights(NamedTuple):
    """Full attention's weights, whatever the buckets: of all queries of a sequence, or of some."""

    queries: Int[np.ndarray, " queries"]
    rows: Iterable[Float[np.ndarray, "some_queries some_keys"]]
    """Blocks of neighbouring queries; when causal, as far as the last of a block looks."""


def weigh(
    qk: Float[Tensor, "length d_head"],
    plans: list[HeadPlan],
    grid: Grid,
    seed: int,
    most_queries: int,
) -> list[Mass]:
    """Compute full attention's weights once, and what share of them each of some plans finds.

    The plans are of the same buckets. Of more than `most_queries` queries, so many are drawn. Rows
    are computed in blocks, O(length) memory each.
    """
    return share_out(look_fully(qk, plans[0], seed, most_queries), plans, grid)


def look_fully(
    qk: Float[Tensor, "length d_head"], plan: HeadPlan, seed: int, most_queries: int
) -> FullWeights:
    """Attend to everybody that a plan's sequence lets a query look at, a block at a time.

    The rows are computed as they are asked for, once: who wants them again makes a list of them.
    """
    queries = _draw(plan.askers(), most_queries, seed)
    at_once = max(1, _SCORES_AT_ONCE // plan.length)
    keys = keys_from(qk[None, None])[0, 0]
    starts = range(0, len(queries), at_once)
    blocks = (queries[start : start + at_once] for start in starts)
    return FullWeights(queries, (_full_weights(qk, keys, block, plan) for block in blocks))


def share_out(full: FullWeights, plans: list[HeadPlan], grid: Grid) -> list[Mass]:
    """Find what share of full attention's weights each of some plans of the same buckets finds."""
    queries, head, start = full.queries, plans[0], 0
    together = _Together.of(plans)
    found = np.zeros((len(plans), head.n_rounds, len(queries)))
    weights = np.zeros((grid.n_cells, grid.n_cells))
    for rows in full.rows:
        block = slice(start, start + len(rows))
        grid.add_rows(weights, queries[block], rows)
        found[:, :, block] = _weight_by_round(together, queries[block], rows)
        start = block.stop
    of_row = np.bincount(queries // grid.per_cell, minlength=grid.n_cells)
    weights /= np.maximum(of_row, 1)[:, None]
    weights[grid.possible(head.real, head.causal) == 0] = np.nan
    common = {"queries": queries, "weights": weights, "grid": grid, "n_askers": len(head.askers())}
    return [Mass(found=shares.cumsum(0), **common) for shares in found]


def _draw(askers: Int[np.ndarray, " askers"], most: int, seed: int) -> Int[np.ndarray, " queries"]:
    """Keep all queries, or draw one from each of `most` equal stretches."""
    if len(askers) <= most:
        return askers
    edges = np.linspace(0, len(askers), most + 1)
    generator = np.random.default_rng(seed)
    return askers[(edges[:-1] + generator.random(most) * np.diff(edges)).astype(np.int64)]


def _full_weights(
    qk: Float[Tensor, "length d_head"],
    keys: Float[Tensor, "length d_head"],
    queries: Int[np.ndarray, " queries"],
    plan: HeadPlan,
) -> Float[np.ndarray, "queries some_keys"]:
    """Compute the rows of full attention's weights that belong to some queries, in ascending order.

    When causal, as far as the last of them looks.
    """
    reach = int(queries[-1]) + 1 if plan.causal else plan.length
    scores = qk[torch.from_numpy(queries)].to(keys.dtype) @ keys[:reach].mT
    position, query = torch.arange(reach), torch.from_numpy(queries)[:, None]
    hidden = position >= query if plan.causal else position == query
    if not plan.real.all():
        hidden |= torch.from_numpy(~plan.real[:reach])
    return torch.softmax(scores.masked_fill_(hidden, -torch.inf), -1).numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Together:
    """Plans that sort alike, by the same buckets, and differ in their runs of slots."""

    first: Int[np.ndarray, "plans rounds length"]
    last: Int[np.ndarray, "plans rounds length"]
    wide: HeadPlan
    """Its runs cover those of all plans."""

    @classmethod
    def of(cls, plans: list[HeadPlan]) -> "_Together":
        """Lay the runs of some plans beside each other."""
        first, last = (
            np.stack([getattr(plan, end) for plan in plans]) for end in ("first", "last")
        )
        some = first <= last  # an empty run widens no other
        wide = replace(
            plans[0],
            first=np.where(some, first, plans[0].length).min(0),
            last=np.where(some, last, -1).max(0),
        )
        return cls(first=first, last=last, wide=wide)

    def pairs(
        self, round: int, queries: Int[np.ndarray, " queries"]
    ) -> tuple[
        Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Bool[np.ndarray, "plans pairs"]
    ]:
        """List the pairs that some plan shows in a round: rows in `queries`, keys, and who does."""
        row, key = self.wide.pairs(round, queries)
        slot, own = self.wide.slot[round, key], self.wide.slot[round, queries]
        begin, end = (bound[:, round, own][:, row] for bound in (self.first, self.last))
        return row, key, (begin <= slot) & (slot <= end)


def _weight_by_round(
    plans: _Together,
    queries: Int[np.ndarray, " queries"],
    weights: Float[np.ndarray, "queries some_keys"],
) -> Float[np.ndarray, "plans rounds queries"]:
    """Sum the weight of the pairs that each round is the first to see, plan by plan.

    A pair is listed once for all plans, with a bit for each that shows it; `known` are the bits
    that earlier rounds have set.
    """
    n_plans, n_rounds, _ = plans.first.shape
    sums = np.zeros((n_plans, n_rounds, len(queries)))
    known = np.zeros((-(-n_plans // 8), *weights.shape), dtype=np.uint8)
    for round in range(n_rounds):
        row, key, shown = plans.pairs(round, queries)
        bits, before = np.packbits(shown, axis=0), known[:, row, key]
        known[:, row, key] = before | bits
        fresh, weight = np.unpackbits(bits & ~before, axis=0, count=n_plans), weights[row, key]
        for of_plan, new in zip(sums, fresh, strict=True):
            of_plan[round] = np.bincount(row, weight * new, minlength=len(queries))
    return sums


def _whole_tiles(plan: BucketPlan) -> int:
    """Count the scores of a round whose chunks meet all that some query of theirs may look at."""
    whole = plan_chunks(plan.buckets[:, :, :1], **{**plan.rule(), "within_bucket": False})
    first, last = (bound[0, 0, 0].cpu().numpy() for bound in (whole.first, whole.last))
    starts = np.arange(0, len(first), plan.chunk_length)
    some = first <= last
    low = np.minimum.reduceat(np.where(some, first, len(first)), starts)
    high = np.maximum.reduceat(np.where(some, last, -1), starts)
    rows = np.minimum(plan.chunk_length, len(first) - starts)
    return int((rows * np.maximum(high - low + 1, 0)).sum())
