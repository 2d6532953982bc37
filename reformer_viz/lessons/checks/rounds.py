"""Lesson 04's exercises: what rounds find together, what a pair counts in them, what they cost."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from reformer_core.bucketing import BucketPlan, plan_chunks
from reformer_viz import collision_probability
from reformer_viz.lessons.exercise import Exercise, Mistake


def _plan(shape: tuple[int, int, int, int], n_buckets: int, seed: int) -> BucketPlan:
    """Plan random buckets "batch heads rounds length"."""
    generator = torch.Generator().manual_seed(seed)
    buckets = torch.randint(n_buckets, shape, generator=generator)
    return plan_chunks(buckets, chunk_length=4, causal=True, n_buckets=n_buckets)


# ----------------------------------------------------------------------- 1. the union


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


# ------------------------------------------------------------------ 2. every copy counts


def _seen_by_rounds(n_rounds: int, length: int, largest: float) -> tuple[Tensor, Tensor]:
    """Make up scores, and who sees whom in every round: everybody sees the one before in all."""
    generator = torch.Generator().manual_seed(n_rounds)
    scores = largest * (2 * torch.rand(length, length, generator=generator) - 1)
    visible = torch.rand(n_rounds, length, length, generator=generator) < 0.3
    before = torch.arange(length) - 1
    visible[:, torch.arange(length), before % length] = True
    return scores, visible


def _every_copy(scores: Tensor, visible: Tensor) -> Tensor:
    return (scores + visible.sum(0).log()).softmax(-1)


def _softmax_of_rounds(scores: Tensor, visible: Tensor) -> Tensor:
    return scores.masked_fill(~visible, -torch.inf).softmax(-1).mean(0)


every_copy = Exercise(
    right=_every_copy,
    cases=lambda: [_seen_by_rounds(2, 5, 1.0), _seen_by_rounds(4, 8, 120.0)],
    mistakes=[
        Mistake(
            lambda scores, visible: scores.masked_fill(~visible.any(0), -torch.inf).softmax(-1),
            "every pair counts once here, however many rounds show it: that is the paper's rule",
        ),
        Mistake(
            lambda scores, visible: (
                scores.masked_fill(~visible.any(0), -torch.inf) - visible.sum(0).clamp(min=1).log()
            ).softmax(-1),
            "a logarithm that is taken away makes a pair lighter the more rounds show it",
        ),
        Mistake(
            lambda scores, visible: (
                (scores * visible.sum(0)).masked_fill(~visible.any(0), -torch.inf).softmax(-1)
            ),
            "the score itself is multiplied here; what counts twice is its exponential",
        ),
        Mistake(
            _softmax_of_rounds,
            "a mean of the rounds' own softmaxes gives every round the same say, whatever total it "
            "found",
        ),
        Mistake(
            lambda scores, visible: (
                (scores.exp() * visible.sum(0)) / (scores.exp() * visible.sum(0)).sum(-1, True)
            ),
            "right for small scores, but exp of a large one is infinite: a factor in front of exp "
            "is a logarithm inside",
        ),
    ],
    insight="what the paper's - log N (Eq. 16) takes away is exactly this + log N",
)
"""Give the weights where a pair counts as often as it is seen: "length length"."""


# ---------------------------------------------------------------------- 3. lost for good


def _together(plan: BucketPlan) -> Tensor:
    """Say in which rounds two tokens share a bucket, the query the later one."""
    buckets = plan.buckets
    length = buckets.shape[-1]
    earlier = torch.ones(length, length, dtype=torch.bool).tril(-1)
    return (buckets[..., :, None] == buckets[..., None, :]) & earlier


lost_for_good = Exercise(
    right=lambda plan: int((_together(plan).any(2) & (plan.times_seen() == 0)).sum()),
    cases=lambda: [
        (_plan((1, 1, 1, 24), 2, seed=5),),
        (_plan((1, 1, 3, 32), 2, seed=6),),
        (_plan((1, 2, 2, 40), 3, seed=7),),
    ],
    mistakes=[
        Mistake(
            lambda plan: int((_together(plan) & ~plan.visible()).sum()),
            "this adds up what each round loses; a pair that another round shows is not lost, and "
            "one that two rounds lose is one pair",
        ),
        Mistake(
            lambda plan: int((_together(plan) & ~plan.visible()).any(2).sum()),
            "a pair that one round loses and another shows has been found: ask all rounds whether "
            "they show it",
        ),
        Mistake(
            lambda plan: int(
                (_together(plan).any(2) | (plan.times_seen() == 0)).sum()
                - (plan.times_seen() > 0).sum()
            ),
            "pairs that share a bucket in no round are in here too, and pairs with later tokens: "
            "they were never candidates",
        ),
        Mistake(
            lambda plan: int((_together(plan).all(2) & (plan.times_seen() == 0)).sum()),
            "only pairs that share a bucket in every round are counted; one round is enough to "
            "make a pair a candidate",
        ),
        Mistake(
            lambda plan: 2 * int((_together(plan).any(2) & (plan.times_seen() == 0)).sum()),
            "every pair is counted twice, once from each side: the query is the later token",
        ),
    ],
    insight="the window lost these pairs in every round that had a chance to show them",
)
"""Count the pairs that share a bucket in some round, and that no round shows."""


# ------------------------------------------------------------------ 4. rounds or chunks


CHUNK_LENGTHS = (8, 16, 32, 64, 128, 256)
"""What the last exercise chooses from."""


def _chance(angle: float | int, length: int, chunk_length: int) -> float:
    return collision_probability(angle, 2 * length // chunk_length)


def _rounds_for(chance: float, wanted: float) -> int:
    return math.ceil(math.log(1 - wanted) / math.log(1 - chance))


def _products(length: int, chunk_length: int) -> int:
    """Count the vectors that one round multiplies a token's with: directions and keys."""
    return length // chunk_length + 2 * chunk_length


def _cheapest(
    angle: float | int,
    length: int,
    wanted: float,
    rounds: Callable[[float, float], int] = _rounds_for,
    cost: Callable[[int, int, int], int] = lambda length, chunk, n: n * _products(length, chunk),
) -> tuple[int, int]:
    choices = [(c, rounds(_chance(angle, length, c), wanted)) for c in CHUNK_LENGTHS]
    return min(choices, key=lambda choice: cost(length, *choice))


cheapest = Exercise(
    right=_cheapest,
    cases=lambda: [(30, 1024, 0.9), (45, 4096, 0.9), (60, 1024, 0.9), (45, 16_384, 0.9)],
    mistakes=[
        Mistake(
            partial(_cheapest, cost=lambda length, chunk, n: n * 2 * chunk),
            "only the keys are counted here: a round also multiplies every token with half as many "
            "directions as there are buckets, and short chunks want many buckets",
        ),
        Mistake(
            partial(_cheapest, cost=lambda length, chunk, n: n),
            "these are the fewest rounds, and not the fewest products: a round of long chunks "
            "multiplies more",
        ),
        Mistake(
            partial(_cheapest, cost=lambda length, chunk, n: _products(length, chunk)),
            "the cheapest round is not the cheapest way to find the pair: multiply by the rounds "
            "that each chunk length needs",
        ),
        Mistake(
            partial(_cheapest, rounds=lambda p, wanted: math.ceil(wanted / p)),
            "chances of rounds do not add up: all rounds miss with a product of chances",
        ),
        Mistake(
            partial(_cheapest, rounds=lambda p, wanted: _rounds_for(p, wanted) - 1),
            "with this many rounds the pair is still found less often than wanted: one more",
        ),
    ],
    insight="the best chunk is somewhat longer than the square root of half the length: shorter "
    "ones pay for directions, longer ones for strangers",
)
"""Choose chunk length and rounds that find a pair at an angle with the fewest products."""
