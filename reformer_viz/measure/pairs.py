"""The pairs that a plan's rounds show, listed query by query and never as length x length."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.bucketing import BucketPlan, plan_chunks

_PAIRS_AT_ONCE = 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadPlan:
    """What a plan says about one head of one sequence."""

    order: Int[np.ndarray, "rounds length"]
    slot: Int[np.ndarray, "rounds length"]
    first: Int[np.ndarray, "rounds length"]
    last: Int[np.ndarray, "rounds length"]
    real: Bool[np.ndarray, " length"]
    """Which tokens are not padding."""
    causal: bool

    @property
    def n_rounds(self) -> int:
        """How many rounds were hashed."""
        return self.order.shape[0]

    @property
    def length(self) -> int:
        """How many tokens there are, padding counted."""
        return self.order.shape[1]

    def pairs(
        self, round: int, queries: Int[np.ndarray, " queries"]
    ) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
        """List what some queries see in a round: each pair's row in `queries`, and its key."""
        slot = self.slot[round, queries]
        first, last = self.first[round, slot], self.last[round, slot]
        widths = np.maximum(last - first + 1, 0)
        row = np.repeat(np.arange(len(queries)), widths)
        start = first - (np.cumsum(widths) - widths)  # of a query's run, counted from its list's
        key = self.order[round][np.arange(len(row)) + start[row]]
        query = queries[row]
        allowed = key < query if self.causal else key != query
        return row[allowed], key[allowed]

    def unseen_before(
        self,
        round: int,
        queries: Int[np.ndarray, " queries"],
        row: Int[np.ndarray, " pairs"],
        key: Int[np.ndarray, " pairs"],
    ) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]:
        """Keep the pairs that no round before this one sees."""
        for earlier in range(round):
            own = self.slot[earlier, queries]
            first, last = self.first[earlier, own], self.last[earlier, own]
            slot = self.slot[earlier, key]
            new = (slot < first[row]) | (slot > last[row])
            row, key = row[new], key[new]
        return row, key

    def blocks(
        self, queries: Int[np.ndarray, " queries"]
    ) -> Iterator[Int[np.ndarray, " some_queries"]]:
        """Cut queries into blocks whose pairs fit into little memory."""
        widest = max(1, int((self.last - self.first).max()) + 1)
        at_once = max(1, _PAIRS_AT_ONCE // widest)
        for start in range(0, len(queries), at_once):
            yield queries[start : start + at_once]

    def possible(self) -> int:
        """Count all pairs: what full attention sees. Padding is in none."""
        real = int(self.real.sum())
        return real * (real - 1) // (2 if self.causal else 1)

    def check_pairs(self) -> None:
        """Refuse a sequence in which nobody has anybody to look at."""
        if not self.possible():
            raise ValueError(
                f"a pair needs two tokens that are not padding, got {int(self.real.sum())}: "
                f"give a longer sequence"
            )

    def askers(self) -> Int[np.ndarray, " queries"]:
        """List the positions that full attention gives anybody but themselves to look at."""
        position = np.flatnonzero(self.real)
        return position[1:] if self.causal else position[: len(position) * (len(position) > 1)]


def one_head(plan: BucketPlan, batch: int, head: int) -> BucketPlan:
    """Take the plan of one head of one sequence out of a plan, on the CPU.

    Raises ValueError for a batch or head that the plan has not.
    """
    check_index("batch", batch, plan.buckets.shape[0], "the plan")
    check_index("head", head, plan.buckets.shape[1], "the plan")
    tensors = {
        name: getattr(plan, name)[batch, head].cpu()[None, None]
        for name in ("buckets", "order", "slot", "first", "last")
    }
    padding = None if plan.padding is None else plan.padding[[batch]].cpu()
    return replace(plan, **tensors, padding=padding)


def take_head(plan: BucketPlan, batch: int = 0, head: int = 0) -> HeadPlan:
    """Take one head of one sequence out of a plan, as NumPy arrays.

    Raises ValueError for a batch or head that the plan has not.
    """
    alone = one_head(plan, batch, head)
    parts = {
        name: getattr(alone, name)[0, 0].numpy().astype(np.int32)
        for name in ("order", "slot", "first", "last")
    }
    length = alone.buckets.shape[-1]
    padding = np.zeros(length, bool) if alone.padding is None else alone.padding[0].numpy()
    return HeadPlan(**parts, real=~padding, causal=alone.causal)


def rule_of(plan: Any) -> dict[str, Any]:
    """Return the keywords of `plan_chunks` of a plan, or of what has them, but for the padding."""
    names = "n_buckets", "chunk_length", "chunks_before", "chunks_after", "window"
    return {name: getattr(plan, name) for name in (*names, "within_bucket", "causal")}


def plan_by(buckets: Int[Tensor, "batch heads rounds length"], **rule) -> BucketPlan:
    """Plan by a rule that a reader wrote down: `plan_chunks`, whose names they may mistake.

    Raises ValueError for a name that it does not know.
    """
    known = [name for name in signature(plan_chunks).parameters if name != "buckets"]
    unknown = [name for name in rule if name not in known]
    if unknown:
        raise ValueError(f"a rule has {', '.join(known)}, got {', '.join(unknown)}")
    return plan_chunks(buckets, **rule)


def plan_under(data: Any, *, rounds: int | None, **rule: Any) -> BucketPlan | None:
    """Plan one head's buckets by another rule, or only its first rounds; None: nothing differs.

    `data` has the buckets, the padding, and what `rule_of` reads; a None leaves what it has.
    """
    rounds = data.n_rounds if rounds is None else rounds
    if not 1 <= rounds <= data.n_rounds:
        raise ValueError(f"rounds must be in 1..{data.n_rounds}, got {rounds}: so many were hashed")
    own = rule_of(data)
    wanted = own | {name: x for name, x in rule.items() if x is not None}
    if rounds == data.n_rounds and wanted == own:
        return None
    padding = None if data.padding is None else torch.from_numpy(data.padding)[None]
    buckets = torch.from_numpy(data.buckets[None, None, :rounds])
    return plan_chunks(buckets, **wanted, padding=padding)


def check_index(name: str, index: int, size: int, owner: str) -> None:
    """Refuse an index that is not there."""
    if not 0 <= index < size:
        raise ValueError(f"{name} must be in 0..{size - 1}, got {index}: {owner} has {size}")


@dataclass(frozen=True)
class Grid:
    """A length x length matrix drawn with `n_cells` cells a side, `per_cell` positions each."""

    length: int
    per_cell: int

    @property
    def n_cells(self) -> int:
        """How many cells a side has; the last one may hold fewer positions."""
        return -(-self.length // self.per_cell)

    def count(
        self, query: Int[np.ndarray, " pairs"], key: Int[np.ndarray, " pairs"]
    ) -> Int[np.ndarray, "cells cells"]:
        """Count the pairs in every cell, queries in rows and keys in columns."""
        n = self.n_cells
        cell = (query // self.per_cell) * n + key // self.per_cell
        return np.bincount(cell, minlength=n * n).reshape(n, n).astype(np.int32)

    def add_rows(
        self,
        sums: Float[np.ndarray, "cells cells"],
        queries: Int[np.ndarray, " queries"],
        rows: Float[np.ndarray, "queries some_keys"],
    ) -> None:
        """Add what some queries give to all keys, or to the first of them, to their cells' sums."""
        if self.per_cell > 1:
            rows = np.add.reduceat(rows, np.arange(0, rows.shape[1], self.per_cell), axis=1)
        np.add.at(sums[:, : rows.shape[1]], queries // self.per_cell, rows)

    def possible(
        self, real: Bool[np.ndarray, " length"], causal: bool
    ) -> Int[np.ndarray, "cells cells"]:
        """Count the pairs that full attention sees in every cell."""
        starts = np.arange(0, self.length, self.per_cell)
        inside = np.add.reduceat(real.astype(np.int64), starts)
        pairs = np.outer(inside, inside)
        np.fill_diagonal(pairs, inside * (inside - 1) // (2 if causal else 1))
        return np.tril(pairs) if causal else pairs


def grid_for(length: int, most_exact: int = 1024, most_cells: int = 512) -> Grid:
    """Give every position its own cell while that is small, else share at most `most_cells`."""
    return Grid(length, 1 if length <= most_exact else -(-length // most_cells))
