"""One head's buckets cut in several ways: what other chunk lengths and windows would see."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reformer_core.bucketing import BucketPlan, Window, plan_chunks
from reformer_core.models import LayerTrace, Trace
from reformer_viz.measure.pairs import (
    Grid,
    HeadPlan,
    check_index,
    grid_for,
    one_head,
    take_head,
)
from reformer_viz.measure.sparsity import (
    FullWeights,
    Mass,
    Sparsity,
    count_first_seen,
    look_fully,
    share_out,
    sparsity_of,
    vectors_of,
)
from reformer_viz.measure.words import count

WINDOWS: tuple[Window, ...] = ("chunks", "sliding")
READING = -1
"""Reading order, where the sorted order of a round might be asked for."""

_WEIGHT_CELLS = 128  # a side of the picture of weights
# All scores of 1,024 tokens; of more tokens some queries stand for all: a reader waits for them.
_FEW_SCORES, _FEWEST_QUERIES = 2**20, 512


@dataclass(frozen=True, kw_only=True, eq=False)
class SparsityByRule:
    """Sparsity under several window rules, of one head of one sequence with the same buckets.

    What full attention's weights are needed for is known from the start; pairs are counted when
    they are asked for.
    """

    plan: BucketPlan
    """Of one head of one sequence, by the rule that attention used."""
    chunk_lengths: tuple[int, ...]
    masses: dict[tuple[Window, int], Mass]
    grid: Grid
    labels: tuple[str, ...] | None
    """What to call the tokens."""
    _known: dict = field(default_factory=dict)

    @property
    def n_rounds(self) -> int:
        """How many rounds were hashed."""
        return self.plan.buckets.shape[2]

    def plan_under(self, window: Window, chunk_length: int) -> BucketPlan:
        """Plan the same buckets by another rule."""
        return plan_chunks(self.plan.buckets, **_other_rule(self.plan, window, chunk_length))

    def under(self, window: Window, chunk_length: int) -> Sparsity:
        """Measure what the rounds see under a window rule.

        Raises ValueError for a rule that was not weighed.
        """
        rule = window, chunk_length
        if rule not in self.masses:
            raise ValueError(
                f"the rule must be one of {', '.join(WINDOWS)} with a chunk length of "
                f"{', '.join(map(str, self.chunk_lengths))}, got {window} with {chunk_length}"
            )
        if rule not in self._known:
            self._known[rule] = sparsity_of(self.plan_under(*rule), self.masses[rule], self.grid)
        return self._known[rule]

    def cells(
        self, window: Window, chunk_length: int, order: int
    ) -> Int[np.ndarray, "rounds cells cells"]:
        """Count the pairs each round first sees, in reading order or in a round's sorted order."""
        if order == READING:
            return self.under(window, chunk_length).first_seen
        check_index("order", order, self.n_rounds, "the plan")
        key = window, chunk_length, order
        if key not in self._known:
            head = take_head(self.plan_under(window, chunk_length))
            self._known[key], _ = count_first_seen(head, self.grid, head.slot[order])
        return self._known[key]

    def describe_cell(
        self, window: Window, chunk_length: int, rounds: int, order: int, row: int, column: int
    ) -> str:
        """Say which rounds see the pairs of a cell, in reading order or a round's sorted order."""
        counts = self.cells(window, chunk_length, order)[:rounds, row, column]
        if self.grid.per_cell == 1:
            return self._describe_pair(counts, order, row, column)
        queries, keys = (self._stretch(cell) for cell in (row, column))
        where = ("Queries", "keys") if order == READING else (
            f"Queries in round {order}'s slots", "keys in slots"
        )  # fmt: skip
        adds = ", ".join(f"round {round} adds {int(n):,}" for round, n in enumerate(counts))
        seen = count(int(counts.sum()), "pair")
        return f"{where[0]} {queries}, {where[1]} {keys}: the rounds see {seen}: {adds}."

    def _describe_pair(
        self, counts: Int[np.ndarray, " rounds"], order: int, row: int, column: int
    ) -> str:
        query, key = row, column
        if order != READING:
            query, key = (int(self.plan.order[0, 0, order, slot]) for slot in (row, column))
        return (
            f"Query {self._token(query)}, key {self._token(key)}: {self._seen(counts, query, key)}"
        )

    def _seen(self, counts: Int[np.ndarray, " rounds"], query: int, key: int) -> str:
        padding = self.plan.padding
        if padding is not None and (padding[0, query] or padding[0, key]):
            return "padding is in no pair."
        if query == key:
            return "a token looks at itself only where there is nobody else."
        if self.plan.causal and key > query:
            return "the key stands later, and nobody sees later tokens."
        if not counts.any():
            alone = len(counts) == 1
            return f"{'the round does not see' if alone else 'no round sees'} the pair."
        return f"round {int(counts.argmax())} is the first to see the pair."

    def _token(self, position: int) -> str:
        name = "" if self.labels is None else f" “{self.labels[position]}”"
        return f"{position:,}{name}"

    def _stretch(self, cell: int) -> str:
        first = cell * self.grid.per_cell
        last = min(first + self.grid.per_cell, self.grid.length) - 1
        return f"{first:,} to {last:,}"


@torch.no_grad()
def measure_sparsity_by_rule(
    plan: BucketPlan,
    qk: Float[Tensor, "batch heads length d_head"],
    batch: int = 0,
    head: int = 0,
    *,
    chunk_lengths: Iterable[int] = (),
    labels: Sequence[str] | None = None,
    seed: int = 0,
    full: FullWeights | None = None,
) -> SparsityByRule:
    """Weigh what one head's buckets find under both windows and several chunk lengths.

    The plan's own chunk length is always among them. Above 1,024 tokens some queries, drawn by
    `seed`, stand for all. `full` are the vectors' `full_weights`, where they are known already:
    other buckets leave them as they are. Raises ValueError for what `measure_sparsity` refuses.
    """
    own = one_head(plan, batch, head)
    take_head(own).check_pairs()
    vectors = vectors_of(qk, plan, batch, head)
    length = len(vectors)
    if labels is not None and len(labels) != length:
        raise ValueError(f"labels must name every token, got {len(labels)} for {length} tokens")
    lengths = tuple(sorted({plan.chunk_length, *chunk_lengths}))
    rules = [(window, chunk_length) for window in WINDOWS for chunk_length in lengths]
    heads = [take_head(plan_chunks(own.buckets, **_other_rule(own, *rule))) for rule in rules]
    grid = Grid(length, -(-length // _WEIGHT_CELLS))
    full = _look(vectors, heads[0], seed) if full is None else full
    masses = share_out(full, heads, grid)
    return SparsityByRule(
        plan=own,
        chunk_lengths=lengths,
        masses=dict(zip(rules, masses, strict=True)),
        grid=grid_for(length),
        labels=None if labels is None else tuple(labels),
    )


@torch.no_grad()
def full_weights(
    vectors: Float[Tensor, "length d_head"], causal: bool, seed: int = 0
) -> FullWeights:
    """Keep what full attention does with one head's vectors, to hold several plans against it.

    These are up to a million weights, or those of some hundred queries, in float64.
    """
    length = len(vectors)
    nothing = np.zeros((0, length), np.int32)
    runs = dict.fromkeys(("order", "slot", "first", "last"), nothing)
    of_all = HeadPlan(**runs, real=np.ones(length, bool), causal=causal)
    full = _look(vectors, of_all, seed)
    return full._replace(rows=list(full.rows))


def _look(vectors: Float[Tensor, "length d_head"], plan: HeadPlan, seed: int) -> FullWeights:
    most_queries = max(_FEWEST_QUERIES, _FEW_SCORES // plan.length)
    return look_fully(vectors.double(), plan, seed, most_queries)


def lsh_layers(trace: Trace) -> list[int]:
    """List a trace's layers with LSH attention."""
    return [i for i, one in enumerate(trace.layers) if one.plan is not None]


def lsh_layer(trace: Trace, layer: int | None = None) -> LayerTrace:
    """Take a layer with LSH attention out of a trace; None: the first.

    Raises ValueError for a layer that is not there or of another kind, and says which are.
    """
    lsh = lsh_layers(trace)
    if not lsh:
        raise ValueError(
            f"the model must have an LSH layer, got {len(trace.layers)} of other kinds: "
            f'give its config attention=("lsh",)'
        )
    layer = lsh[0] if layer is None else layer
    if layer not in lsh:
        raise ValueError(
            f"layer must be one with LSH attention, {', '.join(map(str, lsh))}, got {layer}"
        )
    return trace.layers[layer]


def _other_rule(plan: BucketPlan, window: Window, chunk_length: int) -> dict:
    """Return the plan's rule with another window, which sees some slot at least."""
    rule = {**plan.rule(), "window": window, "chunk_length": chunk_length}
    if window == "sliding":
        rule["chunks_before"] = max(1, plan.chunks_before)
    return rule
