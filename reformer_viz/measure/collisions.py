"""How likely two vectors share a bucket, by the angle between them: measured beside theory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.hashing import Buckets, draw_rotations, factors_of, hash_vectors
from reformer_viz.measure.hashing import Hash, apply_hash

Degrees = float | int

_MANY_POINTS = 5  # of fewer, each is in the sentence beside its theory
_CURVE = np.linspace(0.0, 180.0, 73)
_FINE = 180 * np.linspace(0, 1, 145) ** 1.5  # closer where the curve bends most
# Nodes of the quadratures, and how far out they reach: a Gaussian's tail beyond holds 1e-18.
_RADII, _TURNS, _CORRELATIONS, _FAR = 80, 40, 60, 9.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Collisions:
    """How many random pairs at exactly some angle shared a bucket, and how many should.

    A pair is *found* by n rounds when it shares a bucket in at least one of the first n.
    """

    angles: Float[np.ndarray, " angles"]
    """In degrees, between the two vectors of a pair."""
    n_buckets: tuple[Buckets, ...]
    n_hashes: tuple[int, ...]
    n_pairs: int
    d_head: int
    found: Int[np.ndarray, "bucket_counts round_counts angles"]
    """How many of the `n_pairs` pairs were found."""
    expected: Float[np.ndarray, "bucket_counts round_counts angles"] | None
    """The share that theory finds at the same angles; None for a hash that has no theory here."""
    curve_angles: Float[np.ndarray, " many_angles"]
    curve: Float[np.ndarray, "bucket_counts round_counts many_angles"] | None
    """Theory at closer angles, to be drawn as a line."""

    @property
    def share(self) -> Float[np.ndarray, "bucket_counts round_counts angles"]:
        """The share of pairs that was found."""
        return self.found / self.n_pairs

    @property
    def error(self) -> Float[np.ndarray, "bucket_counts round_counts angles"]:
        """One binomial standard error of `share`.

        Counted with one found and one missed pair more than there were: none of 500 found does not
        mean a probability of exactly 0.
        """
        share = (self.found + 1) / (self.n_pairs + 2)
        return np.sqrt(share * (1 - share) / (self.n_pairs + 2))

    def describe(self, angle: Degrees | None = None) -> str:
        """Say what was found at the measured angle nearest to `angle` (None: the middle one)."""
        place = len(self.angles) // 2 if angle is None else int(abs(self.angles - angle).argmin())
        counts = "; ".join(self._in_words(row, place) for row in range(len(self.n_buckets)))
        return (
            f"Two vectors {self.angles[place]:g}° apart share a bucket with this probability: "
            f"{counts}. Measured on {self.n_pairs:,} random pairs in {self.d_head:,} dimensions"
            f"{self._furthest()}."
        )

    def _in_words(self, row: int, place: int) -> str:
        """Say of one bucket count how many pairs the fewest and the most rounds find."""
        parts = []
        for column in sorted({0, len(self.n_hashes) - 1}):
            share, error = self.share[row, column, place], self.error[row, column, place]
            rounds = self.n_hashes[column]
            theory = (
                ""
                if self.expected is None
                else f" (theory {self.expected[row, column, place]:.3f})"
            )
            within = "in one round" if rounds == 1 else f"in any of {rounds} rounds"
            parts.append(f"{share:.3f} ± {error:.3f} {within}{theory}")
        return f"of {in_buckets(self.n_buckets[row])} {', '.join(parts)}"

    def _furthest(self) -> str:
        """Say how far theory and measurement are apart at most, in standard errors."""
        if self.expected is None or self.found.size < _MANY_POINTS:
            return ""
        apart = (abs(self.share - self.expected) / self.error).max()
        return (
            f"; of {self.found.size:,} points the one furthest from theory is {apart:.1f} "
            f"standard errors away"
        )


def in_buckets(n_buckets: Buckets) -> str:
    """Write how many buckets there are, a factored number by its factors."""
    if isinstance(n_buckets, int):
        return f"{n_buckets:,} bucket{'' if n_buckets == 1 else 's'}"
    return f"{' x '.join(map(str, n_buckets))} buckets"


@torch.no_grad()
def measure_collisions(
    n_buckets: int | Sequence[Buckets] = (2, 8, 32, 128),
    n_hashes: Sequence[int] = (1, 2, 4, 8),
    angles: Sequence[Degrees] | np.ndarray = tuple(range(0, 181, 15)),
    *,
    d_head: int = 16,
    n_pairs: int = 500,
    seed: int = 0,
    hash: Hash | None = None,
) -> Collisions:
    """Hash random pairs at exactly these angles (degrees), and count the pairs that share a bucket.

    Every pair has directions of its own, drawn and hashed by core, so that pairs are independent
    and the errors binomial. Theory is `collision_probability`, and 1 - (1 - p)^n for n rounds.
    `n_buckets` lists counts; a factored one is a tuple in that list, as in [64, (8, 8)].

    With `hash`, a function from vectors to whole numbers (`reformer_viz.measure.hashing.Hash`), all
    pairs are hashed by that one function, in as many rounds as it returns. The number of buckets
    is then counted from its result, and there is no theory to put beside it.

    Raises ValueError for an angle outside 0..180, and for less than one pair, round, or angle, or
    than two dimensions.
    """
    angles = np.array(angles, dtype=float)
    counts = (n_buckets,) if isinstance(n_buckets, int) else tuple(n_buckets)
    _check(angles, counts, n_hashes, d_head, n_pairs)
    generator = torch.Generator().manual_seed(seed)
    pairs = [_pairs_at(angle, d_head, n_pairs, generator) for angle in angles]
    if hash is None:
        most = max(n_hashes)
        shared = [
            [_share_by_core(pair, count, most, generator) for pair in pairs] for count in counts
        ]
    else:
        by_hash, count = _share_by_hash(pairs, hash)
        shared, counts, most = [by_hash], (count,), by_hash[0].shape[1]
    rounds = tuple(n for n in n_hashes if n <= most) or (most,)
    return Collisions(
        angles=angles,
        n_buckets=counts,
        n_hashes=rounds,
        n_pairs=n_pairs,
        d_head=d_head,
        found=np.array(
            [[[int(s[:, :n].any(1).sum()) for s in row] for n in rounds] for row in shared]
        ),
        expected=_theory(angles, counts, rounds) if hash is None else None,
        curve_angles=_CURVE,
        curve=_theory(_CURVE, counts, rounds) if hash is None else None,
    )


def _check(
    angles: Float[np.ndarray, " angles"],
    counts: Sequence[Buckets],
    n_hashes: Sequence[int],
    d_head: int,
    n_pairs: int,
) -> None:
    for name, numbers in (("angles", angles), ("n_buckets", counts), ("n_hashes", n_hashes)):
        if not len(numbers):
            raise ValueError(f"{name} must list at least one, got none")
    for angle in angles:
        check_angle(float(angle))
    for name, number, least in (
        ("n_hashes", min(n_hashes), 1),
        ("d_head", d_head, 2),
        ("n_pairs", n_pairs, 1),
    ):
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")


def check_angle(angle: Degrees) -> None:
    """Refuse what is no angle between two vectors."""
    if not 0 <= angle <= 180:
        raise ValueError(
            f"angle must be in 0..180 degrees, got {angle:g}: two vectors are never further apart"
        )


def _pairs_at(
    angle: Degrees, d_head: int, n_pairs: int, generator: torch.Generator
) -> Float[Tensor, "1 pairs 2 d_head"]:
    """Draw pairs of unit vectors that are exactly so many degrees apart."""
    drawn = torch.randn(n_pairs, d_head, 2, generator=generator, dtype=torch.float64)
    one, across = torch.linalg.qr(drawn).Q.unbind(-1)
    turn = torch.tensor(np.deg2rad(float(angle)))
    return torch.stack([one, turn.cos() * one + turn.sin() * across], dim=1)[None].float()


def _share_by_core(
    pairs: Float[Tensor, "1 pairs 2 d_head"],
    n_buckets: Buckets,
    n_hashes: int,
    generator: torch.Generator,
) -> Bool[Tensor, "pairs rounds"]:
    """Say of every pair in which rounds it shares a bucket; each pair is a head of its own."""
    _, n_pairs, _, d_head = pairs.shape
    rotations = draw_rotations(n_hashes, n_pairs, d_head, n_buckets, generator)
    one, other = hash_vectors(pairs, rotations, n_buckets)[0].unbind(-1)
    return one == other


def _share_by_hash(
    pairs: list[Float[Tensor, "1 pairs 2 d_head"]], hash: Hash
) -> tuple[list[Bool[Tensor, "pairs rounds"]], int]:
    """Hash all pairs as one sequence; say of every pair in which rounds it shares a bucket."""
    n_pairs = pairs[0].shape[1]
    vectors = torch.cat(pairs, dim=1).flatten(1, 2)[:, None]
    buckets, n_buckets = apply_hash(hash, vectors)
    one, other = buckets[0, 0].unflatten(-1, (len(pairs), n_pairs, 2)).unbind(-1)
    return list((one == other).permute(1, 2, 0)), n_buckets


def _theory(
    angles: Float[np.ndarray, " angles"], counts: Sequence[Buckets], n_hashes: Sequence[int]
) -> Float[np.ndarray, "bucket_counts round_counts angles"]:
    missed = [[1 - collision_probability(float(angle), n) for angle in angles] for n in counts]
    return 1 - np.array(missed)[:, None] ** np.array(n_hashes)[:, None]


def collision_probability(angle: Degrees, n_buckets: Buckets) -> float:
    """Return how likely one round's random directions put two vectors into one bucket.

    Exact for core's hash, whose directions are Gaussian and not orthonormalised: the projections
    (X, Y) of the two vectors on a direction are then normal with correlation cos(angle), whatever
    the dimension, and independent from direction to direction. Both vectors choose the same of h =
    n_buckets / 2 directions, with the same sign, with probability

        2 h  integral over x, y > 0 of  density(x, y) * P(|X| < x and |Y| < y)^(h - 1)

    which is 1 - angle / 180 for two buckets, and 1 / n_buckets at a right angle. A factored count
    is one such choice per factor.

    Raises ValueError for an angle outside 0..180 degrees and for an odd number of buckets.
    """
    check_angle(angle)
    weights, inside = _quadrature(float(angle))
    halves = [factor // 2 for factor in factors_of(n_buckets)]
    return float(np.prod([2 * half * (weights * inside ** (half - 1)).sum() for half in halves]))


def collision_probabilities(
    angles: Float[np.ndarray, "*pairs"], n_buckets: Buckets
) -> Float[np.ndarray, "*pairs"]:
    """Return `collision_probability` of many angles in degrees, read off a curve within 0.001."""
    factors = factors_of(n_buckets)
    return np.prod([np.interp(angles, _FINE, _fine_curve(factor)) for factor in factors], axis=0)


@cache
def _fine_curve(n_buckets: int) -> Float[np.ndarray, " fine_angles"]:
    return np.array([collision_probability(float(angle), n_buckets) for angle in _FINE])


@lru_cache(maxsize=512)
def _quadrature(
    angle: float,
) -> tuple[Float[np.ndarray, "radii turns"], Float[np.ndarray, "radii turns"]]:
    """Return the nodes' weights, density included, and P(|X| < x and |Y| < y) at each node.

    Nodes are polar around the bisector of the two vectors, where the projections on the bisector
    and across it are independent. x, y > 0 is a wedge there, and symmetric.
    """
    theta = np.deg2rad(angle)
    radius, of_radius = _gauss(_RADII, 0.0, _FAR)
    turn, of_turn = _gauss(_TURNS, 0.0, (np.pi - theta) / 2)
    radius = radius[:, None]
    x, y = radius * np.cos(turn - theta / 2), radius * np.cos(turn + theta / 2)
    density = radius * np.exp(-(radius**2) / 2) / (2 * np.pi)
    return 2 * of_radius[:, None] * of_turn * density, _inside(x, y, theta)


def _inside(
    x: Float[np.ndarray, "radii turns"], y: Float[np.ndarray, "radii turns"], theta: float
) -> Float[np.ndarray, "radii turns"]:
    """Return P(|X| < x and |Y| < y) for normals with correlation cos(theta).

    Plackett's identity: the derivative of a bivariate normal's distribution by its correlation is
    its density. So start where X and Y are independent, and integrate to theta.
    """

    def density(angle: np.ndarray) -> np.ndarray:
        apart, along = (x - y)[..., None] ** 2, (x * y)[..., None]
        with np.errstate(under="ignore"):
            return np.exp(-apart / (2 * np.sin(angle) ** 2) - along / (2 * np.cos(angle / 2) ** 2))

    angle, weight = _gauss(_CORRELATIONS, theta, np.pi / 2)
    independent = _erf(x) * _erf(y)
    return independent + ((density(angle) - density(np.pi - angle)) * weight).sum(-1) / np.pi


def _gauss(nodes: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss and Legendre's nodes and weights between two bounds, in either order."""
    node, weight = np.polynomial.legendre.leggauss(nodes)
    half = (high - low) / 2
    return low + half * (node + 1), half * weight


def _erf(x: Float[np.ndarray, "radii turns"]) -> Float[np.ndarray, "radii turns"]:
    """Return P(|X| < x) of a normal X."""
    return torch.erf(torch.from_numpy(x) / 2**0.5).numpy()
