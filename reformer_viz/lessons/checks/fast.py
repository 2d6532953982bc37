"""Exercises on speed: count pairs and products, find a crossover, read a slope."""

import math

import numpy as np
import torch

from reformer_core.bucketing import BucketPlan, plan_chunks
from reformer_viz.lessons.exercise import Exercise, Mistake

# --------------------------------------------------------------------------- pairs of a plan


def _plan(n_heads: int, n_hashes: int, length: int, n_buckets: int) -> BucketPlan:
    generator = torch.Generator().manual_seed(length)
    buckets = torch.randint(n_buckets, (1, n_heads, n_hashes, length), generator=generator)
    return plan_chunks(buckets, chunk_length=8, causal=True, n_buckets=n_buckets)


def _pairs(plan: BucketPlan) -> int:
    return int((plan.last - plan.first + 1).sum())


pairs_shown = Exercise(
    right=lambda plan: int(plan.visible().sum()),
    cases=lambda: [(_plan(1, 2, 16, 4),), (_plan(2, 3, 40, 10),)],
    mistakes=[
        Mistake(
            lambda plan: int((plan.last - plan.first).sum()),
            "a run from slot 3 to slot 5 holds three slots, not two",
        ),
        Mistake(
            lambda plan: int((plan.last - plan.first + 1)[:, :, 0].sum()),
            "that is the first round alone",
        ),
        Mistake(
            lambda plan: int((plan.times_seen() > 0).sum()),
            "that counts a pair once; here every round that shows it counts, because every round "
            "computes it",
        ),
        Mistake(
            lambda plan: 2 * plan.chunk_length * plan.slot.numel(),
            "that is two whole chunks for every query: how many of those keys may it see?",
        ),
        Mistake(
            lambda plan: plan.slot[:, :, 0].numel() * (plan.slot.shape[-1] - 1) // 2,
            "that is what full attention computes",
        ),
    ],
    insight="three integers a slot say it all; length x length was never there",
)
"""Lesson 11, exercise 1: `pairs_shown(plan)`, repeats counted, without length x length."""


# --------------------------------------------------------------------------------- products


def _products(n_products: int, length: int, n_heads: int, d_head: int) -> int:
    return n_products * d_head * n_heads * length * (length - 1) // 2


full_step_flops = Exercise(
    right=lambda length, n_heads, d_head: _products(2 * 7, length, n_heads, d_head),
    cases=lambda: [(5, 1, 4), (64, 2, 8), (1024, 8, 64)],
    mistakes=[
        Mistake(
            lambda length, n_heads, d_head: _products(7, length, n_heads, d_head),
            "these are multiply-adds: a multiplication and an addition are two operations",
        ),
        Mistake(
            lambda length, n_heads, d_head: _products(2 * 2, length, n_heads, d_head),
            "that is the forward alone: the backward has five products",
        ),
        Mistake(
            lambda length, n_heads, d_head: _products(2 * 6, length, n_heads, d_head),
            "the backward is more than twice the forward: the scores are computed again as well",
        ),
        Mistake(
            lambda length, n_heads, d_head: 14 * d_head * n_heads * length * length,
            "that is every pair both ways: a causal query sees earlier keys only",
        ),
        Mistake(
            lambda length, n_heads, d_head: _products(2 * 7, length, 1, d_head),
            "that is one head",
        ),
    ],
    insight="and LSH attention's are the same seven products, over fewer pairs",
)
"""Lesson 11, exercise 2: the operations of all products of a step of full causal attention."""


# --------------------------------------------------------------------------------- crossover

crossover_length = Exercise(
    right=lambda pairs_per_query, price: math.ceil(2 * price * pairs_per_query + 1),
    cases=lambda: [(50, 1), (100, 4), (200, 2.5), (33.3, 1.7)],
    mistakes=[
        Mistake(
            lambda pairs_per_query, price: math.ceil(price * pairs_per_query + 1),
            "on average a causal query of full attention sees half of the sequence, not all of it",
        ),
        Mistake(
            lambda pairs_per_query, price: math.ceil(2 * pairs_per_query / price + 1),
            "the dearer a pair of LSH attention is, the longer full attention stays cheaper",
        ),
        Mistake(
            lambda pairs_per_query, price: math.ceil(2 * pairs_per_query + 1),
            "that is where the pairs are equally many: here they are not equally dear",
        ),
        Mistake(
            lambda pairs_per_query, price: math.ceil(2 * price * pairs_per_query),
            "nearly: among `length` tokens a query has (length - 1) / 2 earlier ones on average",
        ),
        Mistake(
            lambda pairs_per_query, price: math.floor(2 * price * pairs_per_query + 1),
            "rounded down: at that length LSH attention is still a little dearer",
        ),
        Mistake(
            lambda pairs_per_query, price: 2 * price * pairs_per_query + 1,
            "that is where both cost the same, which may lie between two lengths: a length is a "
            "whole number of tokens",
        ),
    ],
    insight="LSH attention's pairs per query do not grow with the length; full attention's do",
)
"""Lesson 11, exercise 3: the first length at which LSH attention's pairs cost no more in all."""


# --------------------------------------------------------------------------------- exponents


def _timings(
    exponent: float, overhead: float, slow_end: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([512, 1024, 2048, 4096, 8192])
    seconds = 1e-6 * lengths**exponent + overhead
    seconds[-1] *= slow_end
    return lengths, seconds


exponent = Exercise(
    right=lambda lengths, seconds: float(np.polyfit(np.log(lengths), np.log(seconds), 1)[0]),
    cases=lambda: [
        _timings(1.0, 0.0),
        _timings(2.0, 0.0),
        _timings(1.0, 0.002),
        _timings(1.0, 0.0, 1.5),
    ],
    tolerance=1e-3,
    mistakes=[
        Mistake(
            lambda lengths, seconds: float(np.polyfit(lengths, seconds, 1)[0]),
            "that is seconds per token; a power is a slope between logarithms",
        ),
        Mistake(
            lambda lengths, seconds: float(np.polyfit(lengths, np.log(seconds), 1)[0]),
            "only the times are logarithms here: on such axes an exponential is straight, a power "
            "is not",
        ),
        Mistake(
            lambda lengths, seconds: float(np.polyfit(np.log(seconds), np.log(lengths), 1)[0]),
            "the axes are exchanged: how fast does time grow with length?",
        ),
        Mistake(
            lambda lengths, seconds: float(np.log2(seconds[-1] / seconds[0])),
            "that is how often the time doubled in all: divide by how often the length did, or fit "
            "a line",
        ),
        Mistake(
            lambda lengths, seconds: float(
                np.log(seconds[-1] / seconds[0]) / np.log(lengths[-1] / lengths[0])
            ),
            "this looks at the two ends only, and one slow run at either would decide: fit a line "
            "through all points",
        ),
    ],
    insight="a fixed cost makes short runs look better than a power of one: fit the long ones",
)
"""Lesson 11, exercise 4: p of time ~ length^p, a line fitted to the logarithms."""
