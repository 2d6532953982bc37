"""Why neighbours share a bucket: vectors, directions, and the region that each direction wins."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.hashing import hash_vectors
from reformer_viz.measure.collisions import Collisions, check_angle
from reformer_viz.measure.hashing import Hash, apply_hash
from reformer_viz.measure.words import count

# How finely regions are drawn: half a degree of the circle; on the sphere the twenty triangles of
# an icosahedron, each cut into four so often, and where three regions meet some more. The border of
# two is looked for on every edge in so many steps.
_ARCS, _CUTS, _CUTS_AT_CORNERS, _STEPS = 720, 3, 3, 8

_FEW_DEGREES = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Vectors in the plane or in space, and which part of all directions each bucket owns.

    The circle (or sphere) of all directions is cut into small `cells`: arcs with two corners, or
    triangles with three. Every cell was hashed like any vector.
    """

    vectors: Float[np.ndarray, "points dimension"]
    """At their own length, which hashing does not see."""
    buckets: Int[np.ndarray, " points"]
    n_buckets: int
    directions: Float[np.ndarray, "n_directions dimension"] | None
    """R and -R: the direction of every bucket, by bucket. None for a hash that has none."""
    corners: Float[np.ndarray, "n_corners dimension"]
    cells: Int[np.ndarray, "n_cells corners_of_a_cell"]
    cell_buckets: Int[np.ndarray, " n_cells"]
    shares: Float[np.ndarray, " n_buckets"]
    """The part of all directions that falls into each bucket."""
    angle: float
    """In degrees, between the two vectors of `pair`."""
    pair: Float[np.ndarray, "2 dimension"]
    pair_buckets: Int[np.ndarray, " 2"]
    near_pairs: int
    """Pairs of `vectors` at most `near` degrees apart."""
    near_together: int
    """Those of them that share a bucket."""
    far_pairs: int
    far_together: int
    near: float

    @property
    def dimension(self) -> int:
        """2 in the plane, 3 in space."""
        return self.vectors.shape[1]

    @property
    def together(self) -> bool:
        """Whether the two vectors at the chosen angle share a bucket here."""
        return bool(self.pair_buckets[0] == self.pair_buckets[1])

    def describe(self) -> str:
        """Say how the directions are shared out, and whether neighbours share a bucket."""
        whole = "circle" if self.dimension == 2 else "sphere"
        empty = int((self.shares == 0).sum())
        wins_nothing = f" {empty} of them own nothing." if empty else ""
        one, other = self.pair_buckets
        fate = f"share bucket {one}" if self.together else f"fall into buckets {one} and {other}"
        return (
            f"{count(len(self.vectors), 'vector')}, {count(self.n_buckets, 'bucket')}: each owns "
            f"{self.shares.min():.1%} to {self.shares.max():.1%} of the {whole}.{wins_nothing} "
            f"Vectors up to {self.near:g}° apart share a bucket in "
            f"{_percent(self.near_together, self.near_pairs)}, others in "
            f"{_percent(self.far_together, self.far_pairs)}. The two marked vectors, "
            f"{self.angle:g}° apart, {fate}."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class GeometryReading:
    """One round's geometry beside what many rounds of other directions would do with its pair."""

    geometry: Geometry
    at_angle: Collisions
    """Measured at the geometry's own angle."""
    collisions: Collisions
    """Measured at many angles."""

    def describe(self) -> str:
        """Say what this round did, then what to expect of any."""
        return f"{self.geometry.describe()} {self.at_angle.describe()}"


@torch.no_grad()
def measure_geometry(
    vectors: Float[Tensor, "points dimension"],
    rotations: Float[Tensor, "dimension half_buckets"] | None = None,
    *,
    hash: Hash | None = None,
    n_buckets: int | None = None,
    angle: float | int = 30.0,
    start: Float[Tensor, " dimension"] | None = None,
    near: float | int = _FEW_DEGREES,
) -> Geometry:
    """Hash vectors of two or three numbers, and every direction around them, in one round.

    `rotations` are one head's and one round's directions, such as `draw_rotations(...)[0, 0]`; or
    else `hash` is a function from vectors to whole numbers (`reformer_viz.measure.hashing.Hash`),
    of which the first round is taken. `angle` is that of a pair of vectors that begins at `start`,
    or else at the first vector; `near` says up to which angle vectors count as neighbours. Both are
    in degrees.

    Raises ValueError for vectors that cannot be drawn: not of 2 or 3 numbers, zero, not finite;
    for an angle outside 0..180; and unless either `rotations` or `hash` is given.
    """
    _check(vectors, rotations, hash, angle)
    if hash is None:
        hash = partial(hash_vectors, rotations=rotations[None, None])
        n_buckets = 2 * rotations.shape[1]

    def hash_once(points: Tensor) -> Tensor:
        return apply_hash(hash, points[None, None], n_buckets)[0][0, 0, 0]

    vectors = vectors.detach().to("cpu", torch.float32)
    buckets = hash_once(vectors)
    pair = _pair_at(vectors[0] if start is None else start.float(), float(angle))
    cells, cell_buckets = (_arcs if vectors.shape[1] == 2 else _triangles)(hash_once)
    pair_buckets = hash_once(pair)
    if n_buckets is None:
        n_buckets = 1 + int(torch.cat([buckets, pair_buckets, cell_buckets]).max())
    sizes, (corners, cells) = _sizes(cells), _shared_corners(cells)
    return Geometry(
        vectors=vectors.numpy(),
        buckets=buckets.numpy(),
        n_buckets=n_buckets,
        directions=None if rotations is None else torch.cat([rotations, -rotations], 1).T.numpy(),
        corners=corners,
        cells=cells,
        cell_buckets=cell_buckets.numpy(),
        shares=np.bincount(cell_buckets, sizes, minlength=n_buckets) / sizes.sum(),
        angle=float(angle),
        pair=pair.numpy(),
        pair_buckets=pair_buckets.numpy(),
        near=float(near),
        **_count_neighbours(vectors, buckets, float(near)),
    )


@torch.no_grad()
def turn_pair(
    geometry: Geometry,
    rotations: Float[Tensor, "dimension half_buckets"],
    angle: float | int,
    start: Float[Tensor, " dimension"] | None = None,
) -> Geometry:
    """Mark a pair at another angle in what was measured with these rotations, and leave the rest.

    `start` is that of `measure_geometry`. Raises ValueError for an angle outside 0..180.
    """
    check_angle(angle)
    start = torch.from_numpy(geometry.vectors[0]) if start is None else start.float()
    pair = _pair_at(start, float(angle))
    buckets = hash_vectors(pair[None, None], rotations[None, None])[0, 0, 0]
    return replace(geometry, angle=float(angle), pair=pair.numpy(), pair_buckets=buckets.numpy())


def _check(
    vectors: Tensor, rotations: Tensor | None, hash: Hash | None, angle: float | int
) -> None:
    points, dimension = vectors.shape
    if dimension not in (2, 3):
        raise ValueError(
            f"vectors must have 2 or 3 numbers to be drawn, got {dimension}: project them, or "
            f"count what becomes of pairs with measure_collisions"
        )
    if not points:
        raise ValueError("vectors must not be empty, got none: give at least one")
    lengths = vectors.norm(dim=-1)
    broken = (~(lengths.isfinite() & (lengths > 0))).nonzero()
    if len(broken):
        raise ValueError(
            f"vectors must have a direction, got {vectors[broken[0, 0]].tolist()} at "
            f"{int(broken[0, 0])}: leave zero and NaN out"
        )
    if (rotations is None) == (hash is None):
        raise ValueError(
            "say how to hash: give either rotations or hash=, got "
            + ("neither" if hash is None else "both")
        )
    if rotations is not None and len(rotations) != dimension:
        raise ValueError(
            f"rotations must have a row for each of {dimension} numbers, got {len(rotations)}: "
            f"draw them with d_head={dimension}"
        )
    check_angle(angle)


def _pair_at(vector: Float[Tensor, " dimension"], angle: float) -> Float[Tensor, "2 dimension"]:
    """Return the vector's direction, and the one that a turn by so many degrees makes of it."""
    one = torch.nn.functional.normalize(vector, dim=0)
    if len(one) == 2:
        across = torch.stack([-one[1], one[0]])
    else:
        least = torch.eye(3)[one.abs().argmin()]
        across = torch.nn.functional.normalize(torch.linalg.cross(one, least), dim=0)
    turn = torch.tensor(np.deg2rad(angle))
    return torch.stack([one, (turn.cos() * one + turn.sin() * across).float()])


Cells = Float[Tensor, "n_cells corners_of_a_cell dimension"]
HashOnce = Callable[[Tensor], Tensor]


def _arcs(hash_once: HashOnce) -> tuple[Cells, Int[Tensor, " n_cells"]]:
    """Cut the circle into arcs, and hash the middle of each."""
    turns = torch.arange(2 * _ARCS + 1, dtype=torch.float64) * torch.pi / _ARCS
    points = torch.stack([turns.cos(), turns.sin()], dim=-1).float()
    return torch.stack([points[:-1:2], points[2::2]], dim=1), hash_once(points[1::2])


def _triangles(hash_once: HashOnce) -> tuple[Cells, Int[Tensor, " n_cells"]]:
    """Cut the sphere into triangles, those where regions meet along the border; hash their middles.

    The border of two directions' regions is straight, so that large triangles follow it.
    """
    cells = _icosahedron()
    for _ in range(_CUTS):
        cells = _quarters(cells, _middles_of_edges(cells))
    for _ in range(_CUTS_AT_CORNERS):
        _, _, meet = _regions(cells, hash_once)
        cells = torch.cat([cells[~meet], _quarters(cells[meet], _middles_of_edges(cells[meet]))])
    buckets, mixed, _ = _regions(cells, hash_once)
    borders = _borders_on_edges(cells[mixed], buckets[mixed], hash_once)
    cells = torch.cat([cells[~mixed], _quarters(cells[mixed], borders)])
    return cells, hash_once(_middles(cells))


def _regions(
    cells: Cells, hash_once: HashOnce
) -> tuple[
    Int[Tensor, "n_cells corners_of_a_cell"], Bool[Tensor, " n_cells"], Bool[Tensor, " n_cells"]
]:
    """Return triangles' buckets by corner, whether they have several, and more than one border."""
    buckets = hash_once(cells.flatten(0, 1)).unflatten(0, (-1, 3))
    inside = hash_once(_middles(cells))[:, None] == buckets
    alike = (buckets == buckets.roll(-1, dims=1)).sum(1)  # edges
    mixed = ~inside.all(1)
    return buckets, mixed, mixed & ~((alike == 1) & inside.any(1))


def _middles_of_edges(cells: Cells) -> Cells:
    """Return for every corner of a triangle the middle of its edge to the next one."""
    return torch.nn.functional.normalize(cells + cells.roll(-1, dims=1), dim=-1)


def _borders_on_edges(
    cells: Cells, buckets: Int[Tensor, "n_cells corners_of_a_cell"], hash_once: HashOnce
) -> Cells:
    """Return on every edge where its first corner's bucket ends, or its middle if it does not."""
    own, other = cells, cells.roll(-1, dims=1)
    for _ in range(_STEPS):
        middle = torch.nn.functional.normalize(own + other, dim=-1)
        at_middle = hash_once(middle.flatten(0, 1)).unflatten(0, (-1, 3))
        still_own = (at_middle == buckets)[..., None]
        own, other = torch.where(still_own, middle, own), torch.where(still_own, other, middle)
    crossed = (buckets != buckets.roll(-1, dims=1))[..., None]
    border = torch.nn.functional.normalize(own + other, dim=-1)
    return torch.where(crossed, border, _middles_of_edges(cells))


def _middles(cells: Cells) -> Float[Tensor, "n_cells dimension"]:
    return torch.nn.functional.normalize(cells.sum(1), dim=-1)


def _icosahedron() -> Cells:
    """Return the twenty triangles of neighbours among the corners (0, ±1, ±golden ratio).

    Each counts its corners in the order that shows its outside.
    """
    golden = (1 + 5**0.5) / 2
    corner = torch.tensor([(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)])
    corners = torch.cat([corner.roll(turn, dims=1) for turn in range(3)])
    triples = torch.combinations(torch.arange(12), 3)
    neighbours = torch.cdist(corners, corners) < 2.1  # an edge is 2 long, the next distance 3.2
    a, b, c = triples.T
    cells = corners[triples[neighbours[a, b] & neighbours[b, c] & neighbours[a, c]]]
    cells = torch.where(torch.linalg.det(cells)[:, None, None] > 0, cells, cells.flip(1))
    return torch.nn.functional.normalize(cells, dim=-1)


def _quarters(
    cells: Cells, on_edges: Cells
) -> Float[Tensor, "n_quarters corners_of_a_cell dimension"]:
    """Cut every triangle into four, with a new corner on each of its edges."""
    (a, b, c), (ab, bc, ca) = cells.unbind(1), on_edges.unbind(1)
    quarters = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return torch.cat([torch.stack(quarter, dim=1) for quarter in quarters])


def _shared_corners(
    cells: Cells,
) -> tuple[
    Float[np.ndarray, "n_corners dimension"],
    Int[np.ndarray, "n_cells corners_of_a_cell"],
]:
    """Number the corners so that neighbours share them."""
    digits = 6  # corners of two neighbours differ by rounding
    corners = cells.flatten(0, 1).numpy().round(digits)
    numbers = np.rint(corners.astype(np.float64) * 10**digits).astype(np.int64)
    places = (2 * 10**digits + 1) ** np.arange(numbers.shape[1])[::-1]
    one = (numbers * places).sum(1)  # for three numbers, which sorts ten times faster
    _, first, at = np.unique(one, return_index=True, return_inverse=True)
    return corners[first], at.reshape(cells.shape[:2])


def _sizes(cells: Cells) -> Float[np.ndarray, " n_cells"]:
    """Measure cells: an arc by its angle, a triangle by its part of the sphere."""
    cosines = cells.double() @ cells.double().mT
    if cells.shape[1] == 2:
        return cosines[:, 0, 1].clamp(-1, 1).arccos().numpy()
    around = 1 + cosines[:, 0, 1] + cosines[:, 1, 2] + cosines[:, 2, 0]
    return 2 * torch.atan2(torch.linalg.det(cells.double()).abs(), around).numpy()


def _count_neighbours(
    vectors: Float[Tensor, "points dimension"], buckets: Int[Tensor, " points"], near: float
) -> dict:
    """Count the pairs up to so many degrees apart and all others, and those in one bucket."""
    one, other = torch.triu_indices(len(vectors), len(vectors), offset=1)
    directions = torch.nn.functional.normalize(vectors.double(), dim=-1)
    cosines = (directions[one] * directions[other]).sum(-1)
    is_near = cosines >= np.cos(np.deg2rad(near))
    mates = buckets[one] == buckets[other]
    return {
        "near_pairs": int(is_near.sum()),
        "near_together": int((is_near & mates).sum()),
        "far_pairs": int((~is_near).sum()),
        "far_together": int((~is_near & mates).sum()),
    }


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.0%} of {count(whole, 'pair')}" if whole else "0 of 0 pairs"
