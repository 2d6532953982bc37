"""How likely two vectors at an angle share a bucket in one round: computed, not simulated."""

import math
from functools import cache

import numpy as np
from jaxtyping import Float

from reformer_core.hashing import Buckets, factors_of

# The integral's grid. A Gaussian number beyond the reach has a chance of 4e-9.
_REACH, _CELLS = 6.0, 240
# Below the smallest angle the two numbers of one direction differ by less than the grid can tell;
# there the probability goes straight to 1. The result is right within 0.002.
_SMALLEST_ANGLE, _N_ANGLES = 0.06, 48


def collision_probability(
    angle: Float[np.ndarray, "*pairs"], n_buckets: Buckets
) -> Float[np.ndarray, "*pairs"]:
    """Return the probability that vectors at an angle, in radians, get the same bucket in a round.

    A bucket is the largest of n_buckets / 2 projections, in size, and its sign (Sec. 2). What two
    vectors project to on a random direction are two Gaussian numbers u, v whose correlation is the
    angle's cosine, so that neither the vectors' lengths nor their dimension matter. With m
    directions and F(u, v) the chance that another direction has both numbers smaller,

        p = 2 m * integral over u, v > 0 of density(u, v) * F(u, v)^(m - 1)

    Factors of `n_buckets` hash independently: their probabilities multiply. Two vectors then share
    a bucket in at least one of n rounds with probability 1 - (1 - p)^n.
    """
    together = [np.interp(angle, *_curve(factor)) for factor in factors_of(n_buckets)]
    return np.prod(together, axis=0)


@cache
def _curve(n_buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Return angles from 0 to pi, and the probability at each."""
    angles = np.linspace(_SMALLEST_ANGLE, math.pi - _SMALLEST_ANGLE, _N_ANGLES)
    between = [_integral(angle, n_buckets // 2) for angle in angles]
    return np.array([0, *angles, math.pi]), np.array([1, *between, 0])


def _integral(angle: float | int, n_directions: int) -> float:
    """Integrate over the grid of two projections' sizes."""
    cell = _REACH / _CELLS
    u = (np.arange(_CELLS) + 0.5) * cell
    same_sign, opposite = (
        np.exp((2 * sign * math.cos(angle) * u * u[:, None] - u**2 - u[:, None] ** 2) / scale)
        for sign in (1, -1)
        for scale in (2 * math.sin(angle) ** 2,)
    )
    share = cell**2 / (2 * math.pi * math.sin(angle))
    smaller = 2 * share * (same_sign + opposite).cumsum(0).cumsum(1)
    corners = np.pad(smaller, ((1, 0), (1, 0)))
    at_the_middle = (corners[1:, 1:] + corners[:-1, 1:] + corners[1:, :-1] + corners[:-1, :-1]) / 4
    won = same_sign * at_the_middle ** (n_directions - 1)
    return 2 * n_directions * share * float(won.sum())
