"""What later tokens change in earlier rows: the chunk rule leaks, the sliding rule does not."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from reformer_core.bucketing import BucketPlan, Window, plan_chunks
from reformer_viz.measure.pairs import Grid, HeadPlan, grid_for, one_head, take_head
from reformer_viz.measure.words import count, percent


@dataclass(frozen=True, kw_only=True, eq=False)
class LeakOfRule:
    """The pairs of earlier tokens under one window rule, before and after later tokens changed."""

    kept: Int[np.ndarray, "cells cells"]
    """How many pairs of a cell some round sees both before and after."""
    lost: Int[np.ndarray, "cells cells"]
    """How many pairs are seen only before."""
    gained: Int[np.ndarray, "cells cells"]
    """How many pairs are seen only after."""
    changed: Bool[np.ndarray, " rows"]
    """Which of the earlier rows lost or gained a pair."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Leak:
    """What other tokens from position `cut` on do to whom the tokens before it see.

    Nobody before `cut` is hashed anew, and nobody ever sees a later token: a strictly causal rule
    changes nothing. The matrices have a row and a column for every position before `cut`, or a cell
    for `grid.per_cell` neighbours.
    """

    rules: dict[Window, LeakOfRule]
    """By window: "chunks" and "sliding", the same buckets under each."""
    cut: int
    length: int
    n_rounds: int
    chunk_length: int
    within_bucket: bool
    grid: Grid

    def describe(self) -> str:
        """Say how many earlier rows later tokens change under each rule."""
        rows = len(self.rules["chunks"].changed)
        changed = {window: int(rule.changed.sum()) for window, rule in self.rules.items()}
        return (
            f"{count(self.length, 'token')}, {count(self.n_rounds, 'round')}, chunk length "
            f"{self.chunk_length:,}. Other tokens from position {self.cut:,} on change whom "
            f"{changed['chunks']:,} of the {count(rows, 'row')} before it see under the chunk "
            f"rule, {percent(changed['chunks'], rows)}, and {changed['sliding']:,} under the "
            f"sliding rule."
        )


@torch.no_grad()
def measure_leak(
    plan: BucketPlan, batch: int = 0, head: int = 0, *, cut: int | None = None, seed: int = 0
) -> Leak:
    """Give the tokens from `cut` on other buckets, plan again, compare whom the rows before see.

    Done under both window rules with the plan's own buckets. The new buckets are drawn by `seed`,
    all alike likely. `cut` is half the length when not given. A sliding window covers at least one
    chunk length, also where the plan's chunks look at no chunk before their own.

    Raises ValueError for a plan that is not causal, and a `cut` with nothing before or after it.
    """
    length = plan.buckets.shape[-1]
    cut = length // 2 if cut is None else cut
    if not plan.causal:
        raise ValueError(
            "a leak needs a causal plan, got causal=False: there every row may see later tokens"
        )
    if not 0 < cut < length:
        raise ValueError(
            f"cut must be in 1..{length - 1}, got {cut}: some of the {length} tokens must stand "
            f"before it, and some after"
        )
    plan = one_head(plan, batch, head)
    before, after = plan.buckets, _other_buckets(plan.buckets, cut, plan.n_buckets, seed)
    grid = grid_for(cut)
    windows: tuple[Window, ...] = ("chunks", "sliding")
    rules = {}
    for window in windows:
        rule = {**plan.rule(), "window": window}
        if window == "sliding":
            rule["chunks_before"] = max(1, plan.chunks_before)
        heads = [take_head(plan_chunks(buckets, **rule)) for buckets in (before, after)]
        rules[window] = _compare(*heads, cut, grid)
    return Leak(
        rules=rules,
        cut=cut,
        length=length,
        n_rounds=before.shape[2],
        chunk_length=plan.chunk_length,
        within_bucket=plan.within_bucket,
        grid=grid,
    )


def _other_buckets(
    buckets: Int[Tensor, "1 1 rounds length"], cut: int, n_buckets: int, seed: int
) -> Int[Tensor, "1 1 rounds length"]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n_buckets, buckets[..., cut:].shape, generator=generator)
    return torch.cat([buckets[..., :cut], drawn.to(buckets.dtype)], dim=-1)


def _compare(before: HeadPlan, after: HeadPlan, cut: int, grid: Grid) -> LeakOfRule:
    """Sort the pairs of the rows before `cut` into kept, lost and gained."""
    kept, lost, gained = (np.zeros((grid.n_cells, grid.n_cells), np.int32) for _ in range(3))
    changed = np.zeros(cut, dtype=bool)
    for queries in before.blocks(np.arange(cut)):
        for one, other, counts in ((before, after, lost), (after, before, gained)):
            row, key = _union(one, queries)
            alone, its_key = other.unseen_before(other.n_rounds, queries, row, key)
            counts += grid.count(queries[alone], its_key)
            changed[queries[alone]] = True
            if one is before:
                kept += grid.count(queries[row], key)
    return LeakOfRule(kept=kept - lost, lost=lost, gained=gained, changed=changed)


def _union(
    head: HeadPlan, queries: Int[np.ndarray, " queries"]
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """List the pairs that some round sees, each once: its row in `queries`, and its key."""
    pairs = [
        head.unseen_before(round, queries, *head.pairs(round, queries))
        for round in range(head.n_rounds)
    ]
    rows, keys = zip(*pairs, strict=True)
    return np.concatenate(rows), np.concatenate(keys)
