"""Lesson 04's exercises: what several rounds find together, and what a pair counts in them."""

import torch
from torch import Tensor

from reformer_core.bucketing import BucketPlan, plan_chunks
from reformer_viz.lessons.exercise import Exercise, Mistake


def _plan(shape: tuple[int, int, int, int], n_buckets: int, seed: int) -> BucketPlan:
    """Plan random buckets "batch heads rounds length"."""
    generator = torch.Generator().manual_seed(seed)
    buckets = torch.randint(n_buckets, shape, generator=generator)
    return plan_chunks(buckets, chunk_length=4, causal=True, n_buckets=n_buckets)


# ------------------------------------------------------------------------- 1. the chance

chance_found = Exercise(
    right=lambda p, n: 1 - (1 - p) ** n,
    cases=lambda: [(0.5, 1), (0.25, 2), (0.2, 4), (0.3, 3)],
    mistakes=[
        Mistake(
            lambda p, n: n * p,
            "chances of rounds do not add up: this counts a pair that two rounds find as found "
            "twice",
        ),
        Mistake(
            lambda p, n: p**n,
            "that is the chance that every round finds the pair; one of them is enough",
        ),
        Mistake(
            lambda p, n: (1 - p) ** n,
            "that is the chance that no round finds the pair; the other outcome is asked for",
        ),
        Mistake(
            lambda p, n: 1 - p**n,
            "that is the chance that at least one round misses the pair; look at which event is "
            "raised to the power",
        ),
    ],
    insight="each further round finds the share p of what is still missing",
)
"""Give the chance that at least one of n rounds puts a pair into one bucket."""


# ----------------------------------------------------------------------- 2. the union


def _seen(plan: BucketPlan) -> float:
    seen = plan.times_seen() > 0
    return seen.sum().item() / _pairs(plan)


def _pairs(plan: BucketPlan, of_one: int = -1) -> int:
    """Count pairs of a query and an earlier key, or with `of_one` 1 also a query with itself."""
    batch, heads, _, length = plan.buckets.shape
    return batch * heads * length * (length + of_one) // 2


share_seen = Exercise(
    right=_seen,
    cases=lambda: [
        (_plan((1, 1, 3, 8), 4, seed=0),),
        (_plan((1, 1, 1, 9), 2, seed=1),),
        (_plan((2, 3, 4, 16), 4, seed=2),),
    ],
    mistakes=[
        Mistake(
            lambda plan: plan.times_seen().sum().item() / _pairs(plan),
            "a pair that two rounds see is counted twice here: enough rounds would see more than "
            "everything",
        ),
        Mistake(
            lambda plan: (plan.times_seen() > 0).float().mean().item(),
            "this divides by length x length: that holds later keys as well, and the query itself",
        ),
        Mistake(
            lambda plan: plan.visible().sum().item() / _pairs(plan) / plan.buckets.shape[2],
            "that is what one round sees on average; what all of them see together is asked for",
        ),
        Mistake(
            lambda plan: _seen(plan) * plan.buckets.shape[0] * plan.buckets.shape[1],
            "right for one sequence and one head; where there are several, each has all the pairs",
        ),
        Mistake(
            lambda plan: (plan.times_seen() > 0).sum().item() / _pairs(plan, of_one=1),
            "a token is not a pair with itself: the first of them has nobody before it",
        ),
    ],
    insight="the union grows with every round, and never beyond all pairs",
)
"""Say which share of all pairs of a query and an earlier key is seen in some round."""


# --------------------------------------------------------------------- 3. counting once


def _first(visible: Tensor) -> Tensor:
    before = visible.cumsum(0) - visible.int()
    return visible & (before == 0)


def _last(visible: Tensor) -> Tensor:
    return _first(visible.flip(0)).flip(0)


def _not_in_previous(visible: Tensor) -> Tensor:
    previous = torch.cat([torch.zeros_like(visible[:1]), visible[:-1]])
    return visible & ~previous


count_once = Exercise(
    right=_first,
    cases=lambda: [
        (_plan((1, 1, 2, 8), 2, seed=3).visible()[0, 0],),
        (_plan((1, 1, 4, 12), 2, seed=4).visible()[0, 0],),
    ],
    mistakes=[
        Mistake(
            lambda visible: visible,
            "nothing is taken out: a pair that two rounds see still counts twice",
        ),
        Mistake(
            lambda visible: visible & (visible.sum(0) == 1),
            "a pair that two rounds see counts in neither of them now: it has to count once",
        ),
        Mistake(
            lambda visible: visible.cumsum(0) == 1,
            "the running count is 1 also in rounds that do not show the pair, until a second one "
            "does",
        ),
        Mistake(
            _not_in_previous,
            "only the round just before is looked at: a pair seen in rounds 0 and 2, and not in 1, "
            "counts twice",
        ),
        Mistake(
            _last,
            "each pair counts once, but in the last round that sees it; a kernel that goes from "
            "round to round does not know the later ones yet",
        ),
    ],
    insight="the same total as the paper's - log N (Eq. 16), decided without a logarithm",
)
"""Keep each pair in the first round that sees it: "rounds length length" to the same shape."""


# --------------------------------------------------------------------- 4. merging rounds


def _rounds(highest: float) -> tuple[Tensor, Tensor]:
    """Make up outputs "rounds length d" and log totals "rounds length"."""
    generator = torch.Generator().manual_seed(5)
    outputs = torch.rand(3, 6, 4, generator=generator)
    return outputs, highest - 3 * torch.rand(3, 6, generator=generator)


def _merged(outputs: Tensor, log_totals: Tensor) -> Tensor:
    return (log_totals.softmax(0)[..., None] * outputs).sum(0)


merge_rounds = Exercise(
    right=_merged,
    cases=lambda: [_rounds(2.0), _rounds(120.0)],
    mistakes=[
        Mistake(
            lambda outputs, log_totals: outputs.mean(0),
            "every round has the same say here, also one that found nothing but strangers",
        ),
        Mistake(
            lambda outputs, log_totals: (log_totals.exp()[..., None] * outputs).sum(0),
            "the rounds' shares must add up to 1: each total is still to be divided by the total "
            "of all rounds",
        ),
        Mistake(
            lambda outputs, log_totals: ((log_totals / log_totals.sum(0))[..., None] * outputs).sum(
                0
            ),
            "these are logarithms of totals: shares are made of the totals themselves",
        ),
        Mistake(
            lambda outputs, log_totals: outputs.gather(
                0, log_totals.argmax(0)[None, :, None].expand(1, -1, outputs.shape[-1])
            )[0],
            "only the round with the largest total is heard; the others found something too",
        ),
        Mistake(
            lambda outputs, log_totals: (
                (log_totals.exp() / log_totals.exp().sum(0))[..., None] * outputs
            ).sum(0),
            "right for small scores, but exp of a large log total is infinite: take the largest "
            "away first, or use a function that does",
        ),
    ],
    insight="Eq. 14: the rounds' weights are a softmax over their log totals",
)
"""Put together what rounds computed apart: outputs, and the log of what each softmax summed to."""
