"""Collision probability: closed forms, a simulation that shares nothing, and core's own hashing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reformer_viz import measure_collisions, plot_collisions, plotly_collisions, style
from reformer_viz.measure.collisions import collision_probabilities, collision_probability

N_SIMULATED = 200_000
angles = st.floats(0, 180, allow_nan=False)


def shared_by_simulation(angle, n_buckets, seed):
    """Draw the projections of two vectors on Gaussian directions, and compare their choices."""
    turn, drawn = np.deg2rad(angle), np.random.default_rng(seed)
    one, across = drawn.standard_normal((2, N_SIMULATED, n_buckets // 2))
    other = np.cos(turn) * one + np.sin(turn) * across
    buckets = [np.concatenate([side, -side], axis=1).argmax(1) for side in (one, other)]
    return (buckets[0] == buckets[1]).mean()


# -------------------------------------------------------------------------------------- theory


@given(angles)
def test_two_buckets_are_one_plane_that_parts_a_pair_in_proportion_to_its_angle(angle):
    assert collision_probability(angle, 2) == pytest.approx(1 - angle / 180, abs=1e-9)


@given(angles)
def test_four_buckets_are_two_planes_at_right_angles(angle):
    # |x| > |y| asks for the signs of x + y and x - y, which are independent.
    assert collision_probability(angle, 4) == pytest.approx((1 - angle / 180) ** 2, abs=1e-6)


@pytest.mark.parametrize("n_buckets", [2, 4, 6, 32, 256, 1024])
def test_equal_vectors_always_collide_opposite_ones_never_and_right_angles_by_chance(n_buckets):
    assert collision_probability(0, n_buckets) == pytest.approx(1, abs=1e-6)
    assert collision_probability(180, n_buckets) == pytest.approx(0, abs=1e-9)
    assert collision_probability(90, n_buckets) == pytest.approx(1 / n_buckets, rel=1e-6)


@pytest.mark.parametrize(
    ("angle", "n_buckets"), [(3, 8), (25, 6), (50, 16), (70, 4), (110, 8), (150, 6)]
)
def test_theory_equals_a_simulation_of_two_correlated_projections(angle, n_buckets):
    share = shared_by_simulation(angle, n_buckets, seed=angle)
    error = np.sqrt(share * (1 - share) / N_SIMULATED)
    assert collision_probability(angle, n_buckets) == pytest.approx(share, abs=4 * error)


@given(angles, angles, st.sampled_from([2, 6, 8, 64]))
def test_a_wider_angle_never_collides_more_and_more_buckets_never_do(one, other, n_buckets):
    near, far = sorted((one, other))
    within = 1e-7
    assert collision_probability(far, n_buckets) <= collision_probability(near, n_buckets) + within
    more = collision_probability(near, n_buckets + 2)
    assert more <= collision_probability(near, n_buckets) + within


@given(angles)
def test_factors_collide_when_each_does(angle):
    product = collision_probability(angle, 4) * collision_probability(angle, 8)
    assert collision_probability(angle, (4, 8)) == pytest.approx(product)


@pytest.mark.parametrize("n_buckets", [2, 8, 128, (8, 16)])
def test_many_angles_are_read_off_the_curve(n_buckets):
    angles = np.random.default_rng(0).uniform(0, 180, (20, 2))
    angles[0] = 0.3, 179.9
    one_by_one = [collision_probability(float(angle), n_buckets) for angle in angles.ravel()]
    many = collision_probabilities(angles, n_buckets)
    assert np.allclose(many.ravel(), one_by_one, atol=1e-3)


# ------------------------------------------------------------------------------------- measured


def test_core_s_hashing_collides_as_often_as_theory_says():
    measured = measure_collisions([2, 8, 32, (4, 8)], d_head=24, n_pairs=400, seed=3)
    assert measured.found.shape == (4, 4, 13)
    apart = abs(measured.share - measured.expected) / measured.error
    assert apart.max() < 4.5
    assert apart.mean() < 1.1


def test_the_dimension_does_not_matter():
    for d_head in (2, 64):
        measured = measure_collisions([16], [1], [20, 60], d_head=d_head, n_pairs=800, seed=1)
        assert (abs(measured.share - measured.expected) < 4 * measured.error).all()


def test_theory_s_line_and_points_agree_and_rounds_are_chances_to_meet():
    measured = measure_collisions([8], [1, 3], [30], n_pairs=10)
    at = np.flatnonzero(measured.curve_angles == 30)
    assert np.allclose(measured.curve[0, :, at], measured.expected[0, :, 0])
    missed = 1 - measured.expected[0, :, 0]
    assert missed[1] == pytest.approx(missed[0] ** 3)
    assert measured.expected[0, 0, 0] == pytest.approx(collision_probability(30, 8))


def test_what_few_rounds_find_more_rounds_find():
    found = measure_collisions([8], [1, 2, 5], n_pairs=60).found
    assert (np.diff(found, axis=1) >= 0).all()
    assert found[0, :, 0].tolist() == [60, 60, 60]
    assert found[0, :, -1].tolist() == [0, 0, 0]


def test_a_share_of_nothing_has_an_error_all_the_same():
    measured = measure_collisions([64], [1], [180], n_pairs=98)
    assert measured.found.item() == 0
    assert measured.error.item() == pytest.approx(np.sqrt(0.01 * 0.99 / 100))


def test_pairs_are_unit_vectors_at_exactly_their_angle():
    seen = []

    def remember(vectors):
        seen.append(vectors)
        return torch.zeros(vectors.shape[:3], dtype=torch.int64)

    measure_collisions(angles=[0, 35, 180], d_head=5, n_pairs=7, hash=remember)
    [vectors] = seen
    assert vectors.shape == (1, 1, 3 * 7 * 2, 5)
    one, other = vectors.double().reshape(3, 7, 2, 5).unbind(2)
    assert torch.allclose(one.norm(dim=-1), torch.ones(3, 7).double(), atol=1e-6)
    cosines = torch.tensor([0, 35, 180]).double().deg2rad().cos()[:, None]
    assert torch.allclose((one * other).sum(-1), cosines.expand(3, 7), atol=1e-6)


def test_the_same_seed_measures_the_same_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    one, same, another = (
        measure_collisions([8], n_pairs=50, seed=seed).found for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, another)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------- bring your own


def test_a_plane_of_one_s_own_parts_pairs_in_proportion_to_their_angle():
    measured = measure_collisions(n_pairs=1000, d_head=4, hash=lambda x: (x[..., 0] > 0).long())
    assert measured.n_buckets == (2,)
    assert measured.n_hashes == (1,)
    assert measured.expected is None
    apart = measured.share[0, 0] - (1 - measured.angles / 180)
    assert (abs(apart) < 4 * measured.error[0, 0]).all()


def test_a_hash_of_several_rounds_is_measured_in_as_many():
    def by_sign(vectors):
        return (vectors[..., :3] > 0).long().transpose(-1, -2)

    measured = measure_collisions(n_pairs=300, d_head=4, hash=by_sign)
    assert measured.n_hashes == (1, 2)
    assert (measured.found[0, 1] >= measured.found[0, 0]).all()
    assert measure_collisions(n_hashes=[8], n_pairs=3, hash=by_sign).n_hashes == (3,)


def test_a_hash_that_puts_everything_into_one_bucket_finds_everything():
    measured = measure_collisions(
        angles=[90], n_pairs=20, hash=lambda x: np.zeros(x.shape[:3], dtype=np.uint8)
    )
    assert measured.describe() == (
        "Two vectors 90° apart share a bucket with this probability: of 1 bucket 1.000 ± 0.044 in "
        "one round. Measured on 20 random pairs in 16 dimensions."
    )


def test_a_sentence_names_the_nearest_angle_and_the_worst_point():
    measured = measure_collisions([8], [1, 4], [0, 40, 90], n_pairs=200)
    (p, q), (d, e) = measured.share[0, :, 1], measured.error[0, :, 1]
    one = collision_probability(40, 8)
    worst = (abs(measured.share - measured.expected) / measured.error).max()
    assert measured.describe(45) == (
        f"Two vectors 40° apart share a bucket with this probability: of 8 buckets {p:.3f} ± "
        f"{d:.3f} in one round (theory {one:.3f}), {q:.3f} ± {e:.3f} in any of 4 rounds (theory "
        f"{1 - (1 - one) ** 4:.3f}). Measured on 200 random pairs in 16 dimensions; of 6 points "
        f"the one furthest from theory is {worst:.1f} standard errors away."
    )


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"angles": [30, 181]}, r"angle must be in 0\.\.180 degrees, got 181"),
        ({"angles": [-1]}, r"angle must be in 0\.\.180 degrees, got -1"),
        ({"angles": [np.nan]}, r"angle must be in 0\.\.180 degrees, got nan"),
        ({"angles": []}, "angles must list at least one, got none"),
        ({"n_hashes": []}, "n_hashes must list at least one"),
        ({"n_hashes": [1, 0]}, "n_hashes must be at least 1, got 0"),
        ({"n_buckets": [7]}, "n_buckets must be even and positive, got 7"),
        ({"n_pairs": 0}, "n_pairs must be at least 1, got 0"),
        ({"d_head": 1}, "d_head must be at least 2, got 1"),
        ({"hash": lambda x: x[..., 0]}, "hash must return whole numbers, got float32"),
        ({"hash": lambda x: x[..., 0] > 0}, "hash must return whole numbers, got bool"),
        ({"hash": lambda x: x[..., 0].long() - 9}, "hash must number buckets from 0, got -"),
        (
            {"hash": lambda x: torch.zeros(3).long()},
            r"for these vectors .* got \(3,\)",
        ),
        ({"hash": lambda x: x.long()}, "hash must return .batch heads rounds length."),
        ({"hash": lambda x: [1, 2]}, "hash must return a tensor or an array .* got list"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_measured_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        measure_collisions(**{"n_pairs": 4, **wrong})


def test_an_angle_that_does_not_exist_has_no_probability():
    with pytest.raises(ValueError, match="two vectors are never further apart"):
        collision_probability(200, 8)


# --------------------------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def measured():
    return measure_collisions([2, 8, 32], [1, 4], [0, 30, 90], n_pairs=50)


def test_the_figure_draws_lines_of_theory_and_points_with_their_errors(measured):
    left, right = plot_collisions(measured).axes
    drawn = [(left, [(row, 0) for row in range(3)]), (right, [(1, 0), (1, 1)])]
    for axes, places in drawn:
        assert len(axes.containers) == len(places)
        for line, bars, place in zip(axes.lines[::4], axes.containers, places, strict=True):
            assert np.array_equal(line.get_ydata(), measured.curve[place])
            assert np.array_equal(bars[0].get_ydata(), measured.share[place])
            [segments] = [bar.get_segments() for bar in bars[2]]
            heights = [segment[1, 1] - segment[0, 1] for segment in segments]
            assert np.allclose(heights, 2 * measured.error[place])
    assert [text.get_text() for text in left.get_legend().texts] == [
        "2 buckets",
        "8 buckets",
        "32 buckets",
    ]
    assert [text.get_text() for text in right.get_legend().texts] == ["1 round", "4 rounds"]
    assert left.get_ylabel() == "probability of sharing a bucket"
    assert right.get_ylabel() == ""
    assert right.get_title(loc="left") == "In any of several rounds, 8 buckets"


def test_plotly_draws_the_same_for_the_row_asked_for(measured):
    figure = plotly_collisions(measured, row=2)
    lines, points = figure.data[::2], figure.data[1::2]
    for column in range(2):
        assert np.array_equal(lines[column].y, measured.curve[2, column])
        assert np.array_equal(points[column].y, measured.share[2, column])
        assert np.array_equal(points[column].error_y.array, measured.error[2, column])
        assert points[column].marker.color == lines[column].line.color == style.PALETTE[column]


def test_a_hash_without_theory_is_drawn_as_points_alone():
    measured = measure_collisions(n_pairs=5, hash=lambda x: (x[..., 0] > 0).long())
    left, right = plot_collisions(measured).axes
    assert len(left.lines) == 3  # the points, and both ends of their errors
    assert right.get_title(loc="left") == "In 1 round, 2 buckets"
    assert len(plotly_collisions(measured).data) == 1


@pytest.mark.parametrize("draw", [plot_collisions, plotly_collisions])
def test_a_row_that_was_not_measured_and_too_many_lines_are_refused(measured, draw):
    with pytest.raises(ValueError, match=r"row must be in 0\.\.2, got 3: 3 numbers of buckets"):
        draw(measured, row=3)
    many = measure_collisions([2], range(1, 10), [0], n_pairs=1)
    with pytest.raises(ValueError, match="at most 8 lines can be told apart, got 9"):
        draw(many)
