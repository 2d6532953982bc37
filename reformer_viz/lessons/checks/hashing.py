"""Lesson 02: bucket numbers, opposite buckets, factors, and how likely rounds find a pair."""

import math

import torch
from torch import Tensor

from reformer_core import draw_rotations, hash_vectors
from reformer_viz import collision_probability
from reformer_viz.lessons.example import sixteen_tokens
from reformer_viz.lessons.exercise import Exercise, Mistake


def _rotations(*sizes: int | tuple[int, ...]) -> Tensor:
    """Draw directions: rounds, heads, d_head, n_buckets."""
    return draw_rotations(*sizes, torch.Generator().manual_seed(4))


def _two_texts() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(2, 2, 10, 4, generator=generator) * 2 - 1


def _projected(vectors: Tensor, rotations: Tensor) -> Tensor:
    """Return xR, "batch heads rounds length half_buckets"."""
    return vectors[:, :, None] @ rotations


def _both(projected: Tensor) -> Tensor:
    return torch.cat([projected, -projected], dim=-1)


# Arguments: vectors "batch heads length d_head", rotations "heads rounds d_head half_buckets".
bucket_numbers = Exercise(
    right=hash_vectors,
    cases=lambda: [
        (sixteen_tokens(), _rotations(1, 1, 8, 4)),
        (_two_texts(), _rotations(3, 2, 4, 6)),
    ],
    mistakes=[
        Mistake(
            lambda vectors, rotations: _projected(vectors, rotations).argmax(-1),
            "half of the buckets never occur: every direction counts backwards as well",
        ),
        Mistake(
            lambda vectors, rotations: _both(-_projected(vectors, rotations)).argmax(-1),
            "every token got the number of the opposite bucket: xR comes first, then -xR",
        ),
        Mistake(
            lambda vectors, rotations: _projected(vectors, rotations).abs().argmax(-1),
            "opposite vectors share a bucket: the absolute value forgets the sign",
        ),
        Mistake(
            lambda vectors, rotations: _both(
                vectors[:, :, None] @ torch.nn.functional.normalize(rotations, dim=-2)
            ).argmax(-1),
            "the directions were made equally long: they keep the lengths they were drawn with",
        ),
        Mistake(
            lambda vectors, rotations: hash_vectors(vectors, torch.randn(rotations.shape)),
            "these are other directions than the given ones: drawn from the global generator, they "
            "change with whoever drew before",
        ),
        Mistake(
            lambda vectors, rotations: _both(_projected(vectors, rotations)).argmax(-2),
            "that is which token follows each direction most: the argmax goes over the directions",
        ),
        Mistake(
            lambda vectors, rotations: (
                _both(_projected(vectors, rotations[:, :1]))
                .argmax(-1)
                .expand(-1, -1, rotations.shape[1], -1)
            ),
            "all rounds are alike: each has directions of its own",
        ),
    ],
    insight="this is all that LSH attention ever asks of a vector",
)


def _opposite(buckets: Tensor, n_buckets: int) -> Tensor:
    """Hash the opposite of the direction that each bucket stands for."""
    half = torch.eye(n_buckets // 2)
    directions = torch.cat([half, -half])
    return hash_vectors(-directions[buckets][None, None], half[None, None])[0, 0, 0]


# Arguments: bucket numbers of one round, and how many buckets there are.
opposite = Exercise(
    right=_opposite,
    cases=lambda: [(torch.arange(8), 8), (torch.tensor([5, 0, 3, 9]), 10)],
    mistakes=[
        Mistake(
            lambda buckets, n_buckets: n_buckets - 1 - buckets,
            "that counts from the other end: where in [xR; -xR] does each direction's opposite "
            "stand?",
        ),
        Mistake(
            lambda buckets, n_buckets: buckets + n_buckets // 2,
            "some numbers are beyond the last bucket: the opposite of the opposite is the bucket "
            "itself",
        ),
        Mistake(
            lambda buckets, n_buckets: buckets - n_buckets // 2,
            "some numbers are below 0: the opposite of the opposite is the bucket itself",
        ),
        Mistake(
            lambda buckets, n_buckets: buckets ^ 1,
            "neighbours are not opposites: all of xR come before all of -xR",
        ),
        Mistake(
            lambda buckets, n_buckets: -buckets,
            "a bucket number has no sign: it says where in [xR; -xR] the largest entry stands",
        ),
    ],
    insight="so two opposite vectors never share a bucket, whatever the directions",
)


# Arguments: the angle in degrees, n_buckets, n_hashes.
found_by_rounds = Exercise(
    right=lambda angle, n_buckets, n_hashes: (
        1 - (1 - collision_probability(angle, n_buckets)) ** n_hashes
    ),
    cases=lambda: [(60, 8, 1), (20, 8, 4), (60, 16, 8)],
    mistakes=[
        Mistake(
            lambda angle, n_buckets, n_hashes: collision_probability(angle, n_buckets) * n_hashes,
            "that can exceed 1: a pair that two rounds find was added twice",
        ),
        Mistake(
            lambda angle, n_buckets, n_hashes: collision_probability(angle, n_buckets) ** n_hashes,
            "that is the probability that every round finds the pair: one is enough",
        ),
        Mistake(
            lambda angle, n_buckets, n_hashes: (
                (1 - collision_probability(angle, n_buckets)) ** n_hashes
            ),
            "that is the probability that every round misses the pair",
        ),
        Mistake(
            lambda angle, n_buckets, n_hashes: collision_probability(angle, n_buckets),
            "that is one round: what do the others add?",
        ),
        Mistake(
            lambda angle, n_buckets, n_hashes: collision_probability(angle, n_buckets * n_hashes),
            "more rounds are not more buckets: every round has all of them",
        ),
    ],
    insight="rounds miss independently, so their misses multiply",
)


def _choices(vectors: Tensor, rotations: Tensor, factors: tuple[int, ...]) -> list[Tensor]:
    """Choose in every factor."""
    parts = _projected(vectors, rotations).split([factor // 2 for factor in factors], dim=-1)
    return [_both(part).argmax(-1) for part in parts]


def _numbered(choices: list[Tensor], places: list[int]) -> Tensor:
    return sum(place * choice for place, choice in zip(places, choices, strict=True))


def _cut_late(vectors: Tensor, rotations: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Put -xR behind all of xR, and cut then."""
    parts = _both(_projected(vectors, rotations)).split(list(factors), dim=-1)
    return _numbered([part.argmax(-1) for part in parts], _places(factors))


def _places(factors: tuple[int, ...]) -> list[int]:
    """Return what a choice in each factor counts: the product of the earlier factors."""
    return [math.prod(factors[:k]) for k in range(len(factors))]


# Arguments: vectors and rotations as above, and the factors.
factored = Exercise(
    right=hash_vectors,
    cases=lambda: [
        (sixteen_tokens(), _rotations(2, 1, 8, (4, 6)), (4, 6)),
        (_two_texts(), _rotations(1, 2, 4, (2, 4, 6)), (2, 4, 6)),
    ],
    mistakes=[
        Mistake(
            lambda vectors, rotations, factors: hash_vectors(vectors, rotations),
            "that is one choice among all directions: there is one in every factor",
        ),
        Mistake(
            lambda vectors, rotations, factors: _numbered(
                _choices(vectors, rotations, factors),
                [math.prod(factors[k + 1 :]) for k in range(len(factors))],
            ),
            "the later factors count the most: here a choice is multiplied by the product of the "
            "earlier ones",
        ),
        Mistake(
            lambda vectors, rotations, factors: sum(_choices(vectors, rotations, factors)),
            "different choices have the same sum: every combination needs a number of its own",
        ),
        Mistake(
            _cut_late,
            "the parts were cut after -xR was put behind: every factor has directions and their "
            "opposites of its own",
        ),
        Mistake(
            lambda vectors, rotations, factors: _numbered(
                [
                    part.argmax(-1)
                    for part in _projected(vectors, rotations).split(
                        [factor // 2 for factor in factors], dim=-1
                    )
                ],
                _places(factors),
            ),
            "in every factor half of the choices never occur: directions count backwards as well",
        ),
    ],
    insight="a sum of directions tells a product of buckets apart",
)

_ONE_ROUND = collision_probability(45, 16)

# How many rounds find a pair 45 degrees apart with probability 0.9, of 16 buckets?
rounds_needed = Exercise(
    right=math.ceil(math.log(0.1) / math.log(1 - _ONE_ROUND)),
    mistakes=[
        Mistake(
            math.ceil(0.9 / _ONE_ROUND),
            "so many rounds find 0.9 pairs on average, but some pairs are found twice: reckon "
            "with what is missed",
        ),
        Mistake(
            math.floor(math.log(0.1) / math.log(1 - _ONE_ROUND)),
            "that is just short of 0.9: rounds are whole",
        ),
        Mistake(
            math.ceil(math.log(0.5) / math.log(1 - _ONE_ROUND)),
            "that is where every second pair is found",
        ),
        Mistake(1, "one round finds fewer than half of such pairs"),
    ],
    insight="rounds are dear: each hashes, sorts and attends once more",
)
