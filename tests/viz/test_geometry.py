"""The geometry of hashing: regions and vectors against an argmax that shares nothing with core."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Wedge

from reformer_viz import (
    measure_collisions,
    measure_geometry,
    plot_geometry,
    plotly_geometry,
    style,
)

SEEDS = st.integers(0, 1000)


def draw(seed, dimension, points=12, half=4):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(points, dimension, generator=generator)
    return vectors, torch.randn(dimension, half, generator=generator)


def geometry_of(seed=0, dimension=2, points=12, half=4, **options):
    return measure_geometry(*draw(seed, dimension, points, half), **options)


def furthest(points, rotations):
    """Say which of the directions R and -R reaches furthest along every point."""
    along = np.asarray(points, dtype=float) @ rotations.double().numpy()
    return np.concatenate([along, -along], axis=1).argmax(1)


def octant(vectors):
    return ((vectors > 0) * torch.tensor([1, 2, 4])[: vectors.shape[-1]]).sum(-1)


# -------------------------------------------------------------------------------------- measure


@settings(max_examples=15)
@given(SEEDS, st.sampled_from([2, 3]), st.integers(1, 9))
def test_every_vector_falls_to_the_direction_that_reaches_furthest_along_it(seed, dimension, half):
    vectors, rotations = draw(seed, dimension, half=half)
    geometry = measure_geometry(vectors, rotations, angle=50)
    assert np.array_equal(geometry.buckets, furthest(vectors, rotations))
    assert np.array_equal(geometry.pair_buckets, furthest(geometry.pair, rotations))
    assert np.array_equal(geometry.directions, torch.cat([rotations.T, -rotations.T]).numpy())


@pytest.mark.parametrize("dimension", [2, 3])
def test_every_cell_belongs_to_the_bucket_of_its_middle(dimension):
    vectors, rotations = draw(5, dimension)
    geometry = measure_geometry(vectors, rotations)
    middles = geometry.corners[geometry.cells].mean(1)
    differ = geometry.cell_buckets != furthest(middles, rotations)
    assert differ.mean() < 0.002  # where a middle lies on a border, rounding decides


@pytest.mark.parametrize("dimension", [2, 3])
def test_shares_are_the_chances_of_a_random_direction(dimension):
    vectors, rotations = draw(7, dimension, half=5)
    geometry = measure_geometry(vectors, rotations)
    random = np.random.default_rng(0).standard_normal((200_000, dimension))
    chances = np.bincount(furthest(random, rotations), minlength=10) / len(random)
    assert np.allclose(geometry.shares, chances, atol=0.006)
    assert geometry.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("dimension", [2, 3])
def test_cells_cover_all_directions_once_and_show_their_outside(dimension):
    geometry = geometry_of(dimension=dimension)
    cells = geometry.corners[geometry.cells].astype(float)
    assert np.allclose(np.linalg.norm(geometry.corners, axis=1), 1, atol=1e-5)
    if dimension == 2:
        arcs = np.arctan2(np.linalg.det(cells), (cells[:, 0] * cells[:, 1]).sum(1))
        assert (arcs > 0).all()
        assert arcs.sum() == pytest.approx(2 * np.pi, abs=1e-4)
    else:
        a, b, c = cells.transpose(1, 0, 2)
        below = 1 + (a * b).sum(1) + (b * c).sum(1) + (c * a).sum(1)
        angles = 2 * np.arctan2(np.linalg.det(cells), below)  # Van Oosterom and Strackee
        assert (angles > 0).all()
        assert angles.sum() == pytest.approx(4 * np.pi, abs=1e-3)


@pytest.mark.parametrize("half", [2, 4, 8])
def test_few_cells_follow_the_borders_of_regions(half):
    vectors, rotations = draw(0, 3, half=half)
    geometry = measure_geometry(vectors, rotations)
    assert len(geometry.cells) < 3500  # each is sent to the page again when anything changes
    random = np.random.default_rng(0)
    points = (
        random.dirichlet(np.ones(3), size=(40, len(geometry.cells), 1))
        @ (geometry.corners[geometry.cells])
    )
    wrong = [furthest(point[:, 0], rotations) != geometry.cell_buckets for point in points]
    a, b, c = geometry.corners[geometry.cells].transpose(1, 0, 2)
    sizes = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    assert (np.mean(wrong, axis=0) * sizes).sum() < 0.002 * sizes.sum()


@settings(max_examples=15)
@given(SEEDS, st.sampled_from([2, 3]), st.floats(0, 180))
def test_the_pair_starts_at_the_first_vector_and_is_as_far_apart_as_asked(seed, dimension, angle):
    vectors, rotations = draw(seed, dimension)
    one, other = measure_geometry(vectors, rotations, angle=angle).pair
    first = vectors[0].numpy() / np.linalg.norm(vectors[0])
    assert np.allclose(one, first, atol=1e-5)
    assert np.linalg.norm(other) == pytest.approx(1, abs=1e-5)
    assert one @ other == pytest.approx(np.cos(np.deg2rad(angle)), abs=1e-5)


@pytest.mark.parametrize("dimension", [2, 3])
def test_only_direction_matters_and_the_opposite_vector_is_in_the_opposite_bucket(dimension):
    vectors, rotations = draw(3, dimension)
    buckets = measure_geometry(vectors, rotations).buckets
    assert np.array_equal(measure_geometry(7 * vectors, rotations).buckets, buckets)
    assert np.array_equal(measure_geometry(-vectors, rotations).buckets, (buckets + 4) % 8)


@settings(max_examples=15)
@given(SEEDS, st.sampled_from([10, 60]))
def test_neighbours_are_counted_pair_by_pair(seed, near):
    vectors, rotations = draw(seed, 3)
    geometry = measure_geometry(vectors, rotations, near=near)
    counts = np.zeros((2, 2), dtype=int)
    units = vectors.double().numpy() / np.linalg.norm(vectors.double(), axis=1, keepdims=True)
    for i in range(len(units)):
        for j in range(i):
            far = int(np.rad2deg(np.arccos(np.clip(units[i] @ units[j], -1, 1))) > near)
            counts[far, int(geometry.buckets[i] == geometry.buckets[j])] += 1
    assert (geometry.near_pairs, geometry.far_pairs) == tuple(counts.sum(1))
    assert (geometry.near_together, geometry.far_together) == tuple(counts[:, 1])


def test_a_sentence_says_who_owns_what_and_what_became_of_the_pair():
    vectors = torch.tensor([[1.0, 0.1], [2.0, 0.0], [0.1, 1.0]])
    rotations = torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1]])
    assert measure_geometry(vectors, rotations, angle=60).describe() == (
        "3 vectors, 6 buckets: each owns 0.0% to 25.0% of the circle. 2 of them own nothing. "
        "Vectors up to 15° apart share a bucket in 100% of 1 pair, others in 0% of 2 pairs. The "
        "two marked vectors, 60° apart, fall into buckets 0 and 1."
    )
    alone = measure_geometry(vectors[:1], rotations, angle=0)
    assert "share a bucket in 0 of 0 pairs" in alone.describe()
    assert alone.describe().startswith("1 vector, ")
    assert alone.describe().endswith("The two marked vectors, 0° apart, share bucket 0.")


# ------------------------------------------------------------------------------- bring your own


def test_a_hash_of_one_s_own_colours_vectors_and_regions():
    vectors, _ = draw(2, 3)
    geometry = measure_geometry(vectors, hash=octant)
    assert geometry.buckets.tolist() == octant(vectors).tolist()
    assert geometry.directions is None
    assert geometry.n_buckets == 8
    assert np.allclose(geometry.shares, 1 / 8, atol=0.002)


def test_a_constant_hash_owns_everything():
    vectors, _ = draw(2, 2)
    geometry = measure_geometry(vectors, hash=lambda x: np.zeros(x.shape[:3], int), n_buckets=3)
    assert geometry.shares.tolist() == [pytest.approx(1), 0, 0]
    assert geometry.together


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"vectors": torch.ones(2, 16), "rotations": torch.ones(16, 4)},
            "vectors must have 2 or 3 numbers to be drawn, got 16",
        ),
        ({"vectors": torch.ones(0, 2)}, "vectors must not be empty"),
        (
            {"vectors": torch.tensor([[1.0, 0], [0, 0]])},
            r"must have a direction, got \[0.0, 0.0\] at 1",
        ),
        (
            {"vectors": torch.tensor([[torch.nan, 0]])},
            r"must have a direction, got \[nan, 0.0\] at 0",
        ),
        ({"angle": 200}, r"angle must be in 0\.\.180 degrees, got 200"),
        ({"rotations": None}, "give either rotations or hash=, got neither"),
        ({"hash": octant}, "give either rotations or hash=, got both"),
        (
            {"rotations": None, "hash": lambda x: x[..., 0]},
            "hash must return whole numbers, got float32",
        ),
        (
            {"rotations": None, "hash": octant, "n_buckets": 2},
            r"hash must return buckets in 0\.\.1, got 3: return smaller ones, or say n_buckets=4",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_drawn_is_refused(wrong, message):
    vectors, rotations = draw(1, 2)
    with pytest.raises(ValueError, match=message):
        measure_geometry(**{"vectors": vectors, "rotations": rotations, **wrong})


# --------------------------------------------------------------------------------------- figures


def tints_of(geometry):
    full = np.array([to_rgb(colour) for colour in style.bucket_colours(geometry.n_buckets)])
    return 0.62 + 0.38 * full


def test_the_plane_s_sectors_change_where_the_winner_does():
    _, rotations = draw(0, 2)
    geometry = geometry_of()
    [axes] = plot_geometry(geometry).axes
    sectors = [patch for patch in axes.patches if isinstance(patch, Wedge)]
    assert sum(sector.theta2 - sector.theta1 for sector in sectors) == pytest.approx(360)
    for sector in sectors:
        turns = np.deg2rad([sector.theta1 + 0.3, sector.theta2 - 0.3])
        owners = furthest(np.stack([np.cos(turns), np.sin(turns)], axis=1), rotations)
        for owner in owners:
            assert np.allclose(sector.get_facecolor()[:3], tints_of(geometry)[owner], atol=0.003)


def test_the_plane_shows_vectors_by_bucket_and_directions_by_number():
    geometry = geometry_of()
    [axes] = plot_geometry(geometry).axes
    dots = axes.collections[0]
    colours = [to_rgb(style.bucket_colours(8)[bucket]) for bucket in geometry.buckets]
    assert np.allclose(dots.get_facecolors()[:, :3], colours)
    assert np.median(np.linalg.norm(dots.get_offsets(), axis=1)) == pytest.approx(1, rel=1e-5)
    names = {text.get_text(): text.get_position() for text in axes.texts if text.get_text()}
    assert list(names) == [str(bucket) for bucket in range(8)]
    for bucket, direction in enumerate(geometry.directions):
        place = np.array(names[str(bucket)])
        along = place @ direction / np.linalg.norm(direction)
        assert along == pytest.approx(np.linalg.norm(place), rel=1e-5)  # straight beyond its arrow
        assert along > np.linalg.norm(direction)
    hull = axes.lines[0].get_xydata()
    assert len(hull) == 1 + (geometry.shares > 0).sum()
    assert "share a bucket" in axes.get_title(loc="left") or not geometry.together


def test_the_sphere_s_two_sides_show_every_vector_once():
    geometry = geometry_of(dimension=3, points=50)
    sides = plot_geometry(geometry).axes
    shown, cells = 0, 0
    for axes in sides:
        polygons = next(c for c in axes.collections if isinstance(c, PolyCollection))
        cells += len(polygons.get_paths())
        dots = axes.collections[-1].get_offsets()
        assert (np.linalg.norm(dots, axis=1) <= 1 + 1e-6).all()
        shown += len(dots)
    assert shown == 50
    assert cells == len(geometry.cells)


def test_a_print_of_the_sphere_faces_the_marked_vectors():
    front, back = plot_geometry(geometry_of(dimension=3, angle=40)).axes
    ends = [axes.lines[-1].get_xydata() for axes in (front, back)]
    assert len(ends[0]) == 2
    assert len(ends[1]) == 0
    assert np.allclose(ends[0].sum(0), 0, atol=1e-6)  # on both sides of the middle
    assert np.linalg.norm(ends[0][0] - ends[0][1]) == pytest.approx(2 * np.sin(np.deg2rad(20)))


def test_collisions_beside_a_print_have_a_named_axis_and_say_what_their_lines_are():
    collisions = measure_collisions([8], [1, 2], n_pairs=20)
    figure = plot_geometry(geometry_of(), collisions)
    assert figure.axes[-1].get_ylabel() == "probability of sharing a bucket"
    assert figure.get_supxlabel().endswith(
        "On the right, lines: theory; points: 20 random pairs, ± one standard error."
    )


@pytest.mark.parametrize("dimension", [2, 3])
def test_plotly_colours_vectors_by_bucket_and_names_every_direction(dimension):
    geometry = geometry_of(dimension=dimension)
    figure = plotly_geometry(geometry)
    *_, vectors, line, pair, sticks, names = figure.data
    full = style.bucket_colours(8)
    assert list(vectors.marker.color) == [full[bucket] for bucket in geometry.buckets]
    assert list(vectors.customdata) == geometry.buckets.tolist()
    assert [text[-1] for text in pair.text] == [str(bucket) for bucket in geometry.pair_buckets]
    assert list(names.text) == [str(bucket) for bucket in range(8)]
    assert np.allclose(list(names.customdata), geometry.shares)
    assert len(sticks.x) == 3 * 8
    assert len(line.x) == (3 if dimension == 2 else 40)


def test_plotly_s_sphere_has_every_cell_in_its_bucket_s_tint_and_faces_the_pair():
    geometry = geometry_of(dimension=3)
    figure = plotly_geometry(geometry)
    sphere = figure.data[0]
    assert np.array_equal(np.stack([sphere.i, sphere.j, sphere.k], axis=1), geometry.cells)
    colours = np.array([to_rgb(colour) for colour in sphere.facecolor])
    assert np.allclose(colours, tints_of(geometry)[geometry.cell_buckets], atol=0.003)
    eye = figure.layout.scene.camera.eye
    assert np.allclose(np.cross([eye.x, eye.y, eye.z], geometry.pair[0]), 0, atol=1e-5)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("angle", [0, 90, 180])
@pytest.mark.parametrize("half", [1, 12])
def test_any_angle_and_any_number_of_buckets_is_drawn(dimension, angle, half):
    geometry = geometry_of(dimension=dimension, angle=angle, half=half, points=1)
    plot_geometry(geometry).canvas.draw()
    plotly_geometry(geometry).to_json()


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_hash_without_directions_is_drawn_without_them(dimension):
    vectors, _ = draw(2, dimension)
    geometry = measure_geometry(vectors, hash=octant)
    plot_geometry(geometry).canvas.draw()
    kinds = [trace.mode for trace in plotly_geometry(geometry).data if trace.type != "mesh3d"]
    assert kinds[-3:] == ["markers", "lines", "markers"]
