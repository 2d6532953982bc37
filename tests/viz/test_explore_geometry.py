"""The geometry explorer: a moved control moves the sphere, the curves and the sentence."""

import numpy as np
import pytest
import torch

from reformer_viz import collision_probability, explore_geometry
from reformer_viz.widgets.geometry import DEFAULT_SEED


def octant(vectors):
    return ((vectors > 0) * torch.tensor([1, 2, 4])[: vectors.shape[-1]]).sum(-1)


@pytest.fixture(scope="module")
def panel():
    return explore_geometry()


@pytest.fixture(autouse=True)
def as_at_first(panel):
    """Leave the shared panel as it was."""
    values = {name: control.value for name, control in panel.controls.items() if name[:4] != "new_"}
    yield
    for name, value in values.items():
        panel.controls[name].value = value


def traces(panel):
    figure = panel._view.plotly(panel.data, panel.place)
    return {trace.name: trace for trace in figure.data}, figure


def test_the_angle_turns_the_second_vector_and_moves_the_line_on_the_curves(panel):
    before = panel.data.geometry
    panel.controls["angle"].value = 75
    geometry = panel.data.geometry
    assert np.array_equal(geometry.pair[0], before.pair[0])
    assert geometry.pair[0] @ geometry.pair[1] == pytest.approx(np.cos(np.deg2rad(75)), abs=1e-5)
    assert np.array_equal(geometry.buckets, before.buckets)
    named, _ = traces(panel)
    assert list(named["the pair's angle"].x) == [75, 75]
    assert "The two marked vectors, 75° apart," in repr(panel)
    assert f"(theory {collision_probability(75, 8):.3f})" in repr(panel)


def test_the_camera_stays_where_it_is_whatever_moves(panel):
    def camera():
        return traces(panel)[1].layout.scene.camera

    before = camera()
    moves = {"angle": 120, "noise": 1.0, "n_points": 48, "n_buckets": 12, "rotations": 5}
    for name, value in moves.items():
        panel.controls[name].value = value
        assert camera() == before, name


def test_the_curves_are_those_of_the_buckets_shown(panel):
    panel.controls["n_buckets"].value = 4
    named, _ = traces(panel)
    collisions = panel.data.collisions
    assert collisions.n_buckets == (4,)
    assert np.array_equal(named["4 rounds"].y, collisions.share[0, 1])
    assert np.array_equal(named["1 round, theory"].y, collisions.curve[0, 0])
    assert {named[name].xaxis for name in ("1 round", "4 rounds", "the pair's angle")} == {"x2"}


def test_the_plane_and_the_sphere_change_places(panel):
    panel.controls["dimension"].value = 2
    named, figure = traces(panel)
    assert panel.data.geometry.dimension == 2
    assert {trace.type for trace in figure.data} == {"scatter"}
    assert len(panel.figure.axes) == 2
    assert panel.data.collisions.d_head == 2
    panel.controls["dimension"].value = 3
    named, figure = traces(panel)
    assert named["regions"].type == "mesh3d"
    assert len(panel.figure.axes) == 3


def test_more_noise_parts_vectors_of_one_letter_and_new_rotations_move_the_regions(panel):
    before = panel.data.geometry
    panel.controls["noise"].value = 0.0
    assert len(np.unique(panel.data.geometry.vectors, axis=0)) <= 8
    assert panel.data.geometry.near_together == panel.data.geometry.near_pairs
    panel.controls["noise"].value = 0.3
    panel.controls["new_rotations"].click()
    after = panel.data.geometry
    assert np.array_equal(after.vectors, before.vectors)
    assert not np.array_equal(after.directions, before.directions)
    assert panel.state["rotations"] == 1


def test_the_number_of_vectors_is_the_one_asked_for(panel):
    panel.controls["n_points"].value = 40
    assert len(panel.data.geometry.vectors) == 40
    assert repr(panel).startswith("40 vectors, 8 buckets")


def test_the_still_picture_shows_the_front_of_the_sphere_in_the_regions_tints(panel):
    panel.controls["n_buckets"].value = 16
    picture = panel._chart.picture()
    geometry = panel.data.geometry
    towards = geometry.corners[geometry.cells].mean(1) @ geometry.pair[0]
    seen, hidden = (
        set(geometry.cell_buckets[towards > 0.05]),
        set(geometry.cell_buckets) - set(geometry.cell_buckets[towards > -0.05]),
    )
    facecolor = traces(panel)[0]["regions"].facecolor
    tint = dict(zip(geometry.cell_buckets.tolist(), facecolor, strict=True))
    assert len(seen) > 2
    assert hidden
    assert all(f'fill="{tint[bucket]}"' in picture for bucket in seen)
    assert not any(f'fill="{tint[bucket]}"' in picture for bucket in hidden)
    assert len(picture) < 200_000
    assert panel._chart.picture() == picture


def test_the_table_lists_the_vectors_and_the_curves(panel):
    rows = panel._link.data["rows"]
    assert {"vectors", "1 round", "4 rounds"} <= {row[1] for row in rows}
    assert "regions" not in {row[1] for row in rows}


def test_the_line_of_code_leads_back(panel):
    panel.controls["angle"].value = 45
    assert panel.code == (
        "explore_geometry(dimension=3, n_points=120, n_buckets=8, angle=45, noise=0.3, rotations=0)"
    )
    again = explore_geometry(
        dimension=3, n_points=120, n_buckets=8, angle=45, noise=0.3, rotations=0
    )
    assert repr(again) == repr(panel)


def test_looking_never_touches_the_global_random_numbers():
    before = torch.get_rng_state()
    panel = explore_geometry(n_points=16)
    panel.controls["new_rotations"].click()
    panel.controls["angle"].value = 31
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------- bring your own


def test_given_vectors_are_drawn_as_they_were_when_given():
    vectors = torch.randn(20, 2)
    panel = explore_geometry(vectors, n_buckets=6)
    expected = vectors.clone().numpy()
    vectors.zero_()
    panel.controls["angle"].value = 80
    assert np.array_equal(panel.data.geometry.vectors, expected)
    assert set(panel.controls) == {"n_buckets", "angle", "noise", "rotations", "new_rotations"}
    assert panel.code.startswith("explore_geometry(vectors, n_buckets=6, angle=80")


def test_a_hash_of_one_s_own_takes_the_place_of_rotations():
    panel = explore_geometry(hash=octant, angle=20)
    geometry = panel.data.geometry
    assert geometry.buckets.tolist() == octant(torch.from_numpy(geometry.vectors)).tolist()
    assert geometry.directions is None
    assert set(panel.controls) == {"dimension", "n_points", "angle", "noise"}
    assert panel.data.collisions.n_hashes == (1,)
    assert "theory" not in repr(panel)
    panel.controls["dimension"].value = 2
    assert panel.data.geometry.n_buckets == 4
    assert panel._chart.picture().startswith("<svg")
    assert len(panel.figure.axes) == 2


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        ({"vectors": torch.ones(4, 16)}, "vectors must have 2 or 3 numbers to be drawn, got 16"),
        ({"vectors": torch.zeros(4, 3)}, r"must have a direction, got \[0.0, 0.0, 0.0\] at 0"),
        ({"vectors": torch.full((4, 3), torch.nan)}, "got NaN or infinity at token 0"),
        ({"vectors": torch.ones(0, 3)}, "vectors must not be empty"),
        ({"dimension": 4}, "vectors must have 2 or 3 numbers to be drawn, got 4"),
        ({"n_buckets": 7}, "n_buckets must be even and positive, got 7"),
        ({"n_points": 0}, "n_tokens must be at least 1, got 0"),
        ({"angle": 190}, r"angle must be in 0\.\.180 degrees, got 190"),
        ({"hash": lambda x: x[..., 0]}, "hash must return whole numbers, got float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_shown_is_a_sentence_in_the_picture_s_place(ask, sentence):
    panel = explore_geometry(**ask)
    with pytest.raises(ValueError, match=sentence):
        _ = panel.figure
    assert panel.problem == repr(panel)
    assert panel.data is None


def test_a_problem_goes_away_with_its_cause():
    panel = explore_geometry(angle=190, n_points=8, seed=DEFAULT_SEED)
    panel.controls["angle"].value = 90
    assert panel.problem is None
    assert panel.data.geometry.angle == 90
