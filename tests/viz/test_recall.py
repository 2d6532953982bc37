"""Recall, measured and drawn: every number against loops over pairs, and curves against theory."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_core import draw_rotations, full_attention, hash_generator, keys_from
from reformer_viz import measure_recall, plot_recall, plotly_recall
from reformer_viz.measure import recall as recall_module
from reformer_viz.measure.collisions import collision_probabilities
from reformer_viz.measure.live_bytes import LiveBytes
from reformer_viz.measure.recall import Setting, compare, look_at_all
from tests import oracles

EVERYTHING = ("found", "same_bucket", "mass_found", "error", "error_of_repeats")


def vectors(seed=0, *, heads=2, length=24, d_head=6, size=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    qk, values = torch.randn(2, heads, length, d_head, generator=generator, dtype=dtype)
    return size * qk, values


@st.composite
def cases(draw):
    causal = draw(st.booleans())
    return {
        "seed": draw(st.integers(0, 1000)),
        "length": draw(st.integers(2, 14)),
        "n_buckets": draw(st.sampled_from([2, 4, 6, (2, 4)])),
        "max_hashes": draw(st.integers(1, 3)),
        "top_k": draw(st.integers(1, 5)),
        "rule": {
            "chunk_length": draw(st.integers(1, 6)),
            "causal": causal,
            "chunks_before": draw(st.integers(1, 2)),
            "chunks_after": 0 if causal else draw(st.integers(0, 1)),
            "window": draw(st.sampled_from(["chunks", "sliding"])),
            "within_bucket": draw(st.booleans()),
        },
    }


# ------------------------------------------------------------------------------------- by hand


def recall_by_hand(qk, values, case, seed):
    """Measure one head by looking at one pair after the other."""
    n_buckets, rounds = case["n_buckets"], case["max_hashes"]
    factors = n_buckets if isinstance(n_buckets, tuple) else (n_buckets,)
    rotations = [
        draw_rotations(1, 1, qk.shape[1], n_buckets, hash_generator(seed, r, 0))[0, 0].numpy()
        for r in range(rounds)
    ]
    buckets = np.array([[oracles.bucket_of(x, R, factors) for x in qk] for R in rotations])
    seen = [oracles.seen_in_round(row, **case["rule"]) for row in buckets]
    everyone = oracles.everyone(len(qk), causal=case["rule"]["causal"])
    full = oracles.full_attention(qk, values, causal=case["rule"]["causal"])
    measured = {name: [] for name in EVERYTHING}
    for n in range(1, rounds + 1):
        found, mates, mass = [], [], []
        for i, keys in enumerate(everyone):
            if not keys:
                continue
            weights = oracles.weights_of_query(i, qk, [everyone], count_repeats=False)
            top = sorted(keys, key=lambda j: -weights[j])[: case["top_k"]]
            union = set().union(*(seen[r][i] for r in range(n)))
            found.append(np.mean([j in union for j in top]))
            mates.append(np.mean([(buckets[:n, i] == buckets[:n, j]).any() for j in top]))
            mass.append(sum(weights[j] for j in union))
        for name, shares in (("found", found), ("same_bucket", mates), ("mass_found", mass)):
            measured[name].append(np.mean(shares))
        for name, repeats in (("error", False), ("error_of_repeats", True)):
            out = oracles.lsh_attention(qk, values, seen[:n], count_repeats=repeats)
            measured[name].append(np.linalg.norm(out - full) / np.linalg.norm(full))
    return measured


@settings(max_examples=25)
@given(cases())
def test_every_number_is_what_looking_at_every_pair_gives(case):
    qk, values = vectors(case["seed"], heads=1, length=case["length"], d_head=5)
    options = {name: case[name] for name in ("n_buckets", "max_hashes", "top_k")}
    recall = measure_recall(qk, values, seeds=(4,), **options, **case["rule"])
    wanted = recall_by_hand(qk[0].numpy(), values[0].numpy(), case, seed=4)
    for name, numbers in wanted.items():
        assert np.allclose(getattr(recall, name)[0, 0, 0], numbers, atol=1e-9), name


@settings(max_examples=25)
@given(cases(), st.data())
def test_padding_is_neither_a_query_nor_a_key(case, data):
    length = case["length"] + 3
    padding = torch.zeros(length, dtype=torch.bool)
    padding[data.draw(st.permutations(range(length)))[:3]] = True
    qk, values = vectors(case["seed"], heads=1, length=length, d_head=5)
    options = {name: case[name] for name in ("n_buckets", "max_hashes", "top_k")}
    recall = measure_recall(qk, values, seeds=(4,), padding=padding, **options, **case["rule"])
    real = [part[0, ~padding].numpy() for part in (qk, values)]
    for name, numbers in recall_by_hand(*real, case, seed=4).items():
        assert np.allclose(getattr(recall, name)[0, 0, 0], numbers, atol=1e-9), name
    assert f"{length} tokens (3 of the batch are padding)" in recall.describe()


@pytest.mark.parametrize("causal", [True, False])
def test_every_sequence_of_a_batch_has_its_own_padding(causal):
    qk, values = (torch.stack([part, part.flip(1)]) for part in vectors())
    padding = torch.zeros(2, 24, dtype=torch.bool)
    padding[0, :5] = padding[1, 20:] = True
    options = {"n_buckets": 4, "chunk_length": 4, "top_k": 3, "causal": causal}
    both = measure_recall(qk, values, padding=padding, **options)
    for row in range(2):
        real = ~padding[row]
        alone = measure_recall(qk[row][:, real], values[row][:, real], **options)
        for name in (*EVERYTHING, "expected"):
            of_row = getattr(both, name)[..., 2 * row : 2 * row + 2, :]
            assert np.allclose(of_row, getattr(alone, name), atol=1e-9), name
        assert np.allclose(both.top_mass[2 * row : 2 * row + 2], alone.top_mass)


def test_what_stands_in_padding_changes_nothing():
    qk, values = vectors()
    padding = np.arange(24) % 5 == 0
    measured = []
    for _ in range(2):
        measured.append(measure_recall(qk, values, n_buckets=4, padding=padding))
        qk[:, padding] = 100 * torch.randn(qk[:, padding].shape, dtype=qk.dtype)
        values[:, padding] = 100
    for name in (*EVERYTHING, "expected", "top_mass"):
        assert np.allclose(
            getattr(measured[0], name), getattr(measured[1], name), rtol=0, atol=1e-6
        ), name


@pytest.mark.parametrize("causal", [True, False])
def test_looking_at_all_in_blocks_is_full_attention(monkeypatch, causal):
    qk, values = vectors(length=37)
    monkeypatch.setattr(recall_module, "_SCORES_AT_ONCE", 2 * 37 * 5)  # five queries a block
    full = look_at_all(qk, values, top_k=3, causal=causal)
    wanted = full_attention(qk[None], values[None], causal=causal)
    assert torch.allclose(full.out, wanted, atol=1e-12)
    everyone = torch.eye(37, dtype=torch.float64).expand(1, 2, 37, 37)
    weights = full_attention(qk[None], everyone, causal=causal)
    by_weight = weights.sort(-1, descending=True).indices
    enough = slice(3, None)  # earlier queries of a causal sequence have fewer keys
    assert torch.equal(full.keys[:, :, enough], by_weight[:, :, enough, :3])
    assert full.real[:, :, enough].all()
    assert np.allclose(full.top_mass, weights[0, :, int(causal) :].topk(3).values.sum(-1).mean(-1))


def test_angles_are_those_between_a_query_and_its_top_keys():
    qk, _ = vectors()
    full = look_at_all(qk, top_k=2)
    keys = keys_from(qk[None])[0]
    for head, query, place in ((0, 7, 0), (1, 20, 1)):
        cosine = keys[head, query] @ keys[head, full.keys[0, head, query, place]]
        assert math.isclose(full.angle[0, head, query, place], math.acos(cosine), rel_tol=1e-9)


# ------------------------------------------------------------------------------------- theory


def test_vectors_at_an_angle_share_one_of_two_buckets_in_proportion_to_it():
    angles = np.linspace(0, np.pi, 50)
    assert np.allclose(
        collision_probabilities(np.rad2deg(angles), 2), 1 - angles / np.pi, atol=1e-3
    )


@pytest.mark.parametrize("n_buckets", [4, 16, 64, (4, 6)])
def test_the_collision_probability_is_what_drawing_many_directions_gives(n_buckets):
    numbers, n = np.random.default_rng(0), 10_000
    factors = n_buckets if isinstance(n_buckets, tuple) else (n_buckets,)
    angles, shares = np.array([0.03, 0.2, 0.7, 1.4, 2.4]), []
    for angle in angles:
        agree = np.ones(n, dtype=bool)
        for factor in factors:
            u = numbers.normal(size=(n, factor // 2))
            v = math.cos(angle) * u + math.sin(angle) * numbers.normal(size=u.shape)
            choices = [np.concatenate([x, -x], axis=1).argmax(1) for x in (u, v)]
            agree &= choices[0] == choices[1]
        shares.append(agree.mean())
    assert np.abs(collision_probabilities(np.rad2deg(angles), n_buckets) - shares).max() < 0.015


@pytest.mark.parametrize("n_buckets", [4, 10, 64])
def test_unrelated_directions_meet_as_often_as_there_are_buckets(n_buckets):
    at = collision_probabilities(np.array([0.0, 90.0, 180.0]), n_buckets)
    assert np.allclose(at, [1, 1 / n_buckets, 0], atol=1e-3)


def test_theory_is_one_minus_the_chance_that_every_round_misses():
    qk, _ = vectors(heads=1, length=9)
    recall = measure_recall(qk, top_k=4, n_buckets=6, max_hashes=3)
    full = look_at_all(qk, top_k=4)
    shares = []
    for query in range(1, 9):
        p = collision_probabilities(np.rad2deg(full.angle[0, 0, query, : min(4, query)]), 6)
        shares.append([np.mean(1 - (1 - p) ** n) for n in (1, 2, 3)])
    assert np.allclose(recall.expected[0, 0], np.mean(shares, axis=0))


def test_hashing_follows_theory():
    qk, _ = vectors(heads=4, length=200, d_head=16)
    recall = measure_recall(qk, n_buckets=[8, 32], max_hashes=3, seeds=range(6))
    hashed = recall.same_bucket.mean(axis=(1, 2))
    assert np.abs(hashed - recall.expected.mean(axis=1)).max() < 0.02
    assert (np.diff(recall.expected, axis=-1) > 0).all()


# ---------------------------------------------------------------------------------- invariants


@settings(max_examples=10)
@given(cases())
def test_more_rounds_never_find_less(case):
    qk, _ = vectors(case["seed"], length=case["length"])
    options = {name: case[name] for name in ("n_buckets", "top_k")}
    recall = measure_recall(qk, max_hashes=5, seeds=(0,), **options, **case["rule"])
    for name in ("found", "same_bucket", "mass_found"):
        curves = getattr(recall, name)
        assert (np.diff(curves, axis=-1) >= -1e-12).all(), name
        assert curves.min() >= 0, name
        assert curves.max() <= 1 + 1e-12, name


def test_rounds_to_come_change_nothing():
    qk, values = vectors()
    few, many = (measure_recall(qk, values, max_hashes=n, n_buckets=6, seeds=(0,)) for n in (2, 4))
    for name in EVERYTHING:
        assert np.array_equal(getattr(few, name), getattr(many, name)[..., :2])


def test_the_window_only_loses_what_hashing_found():
    qk, _ = vectors(length=64)
    recall = measure_recall(qk, n_buckets=4, chunk_length=[2, 64], max_hashes=3)
    assert (recall.found <= recall.same_bucket + 1e-12).all()
    assert (recall.found[0] < recall.same_bucket[0]).any()
    assert np.allclose(recall.found[1], recall.same_bucket[1])


def test_across_buckets_a_window_of_everything_is_full_attention():
    qk, values = vectors()
    recall = measure_recall(
        qk, values, chunk_length=24, within_bucket=False, max_hashes=1, n_buckets=2
    )
    for name, wanted in (("found", 1), ("mass_found", 1), ("error", 0), ("error_of_repeats", 0)):
        assert np.allclose(getattr(recall, name), wanted, atol=1e-9)


def test_the_error_goes_to_zero_only_where_a_pair_counts_once():
    qk, values = vectors(length=16, heads=1, d_head=4)
    # At most at a right angle, so that every round sees a pair with a chance of at least a half.
    recall = measure_recall(
        qk.abs(), values, n_buckets=2, chunk_length=16, max_hashes=64, seeds=(0,)
    )
    once, repeated = recall.error[0, 0, 0], recall.error_of_repeats[0, 0, 0]
    assert once[0] == pytest.approx(repeated[0], abs=1e-9)
    assert once[-1] < 1e-9
    assert repeated[-1] > 0.02


def test_far_more_rounds_than_eight_are_measured_as_they_grow_by_halves():
    qk, _ = vectors(heads=1, length=6)
    recall = measure_recall(qk, max_hashes=20, seeds=(0,))
    assert recall.n_hashes.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20]
    assert measure_recall(qk, max_hashes=3, seeds=(0,)).n_hashes.tolist() == [1, 2, 3]


def test_settings_seeds_and_heads_of_a_batch_have_axes_of_their_own():
    qk = torch.stack([vectors(seed)[0] for seed in range(3)])
    recall = measure_recall(
        qk, n_buckets=[4, (2, 2)], chunk_length=[4, 8, 16], seeds=(0, 5), max_hashes=2
    )
    assert recall.found.shape == (6, 2, 6, 2)
    assert recall.settings[1] == Setting(4, 8)
    assert recall.settings[3] == Setting((2, 2), 4)
    assert recall.name(3) == "2 x 2 buckets, chunks of 4"
    # The second sequence's first head, alone: another head has other rotations.
    alone = measure_recall(qk[1], n_buckets=4, chunk_length=4, seeds=(0, 5), max_hashes=2)
    assert np.allclose(recall.found[0, :, 2:4], alone.found[0])
    same = vectors()[0][:1].expand(2, -1, -1)
    heads = measure_recall(same, n_buckets=4, seeds=(0,), max_hashes=1).found[0, 0, :, 0]
    assert heads[0] != heads[1]


def test_memory_grows_with_the_length_and_not_with_its_square(monkeypatch):
    monkeypatch.setattr(recall_module, "_SCORES_AT_ONCE", 2**13)
    peaks = []
    for length in (256, 512):
        qk, values = vectors(heads=1, length=length)
        with LiveBytes() as live:
            measure_recall(qk, values, top_k=2, max_hashes=1, seeds=(0,), chunk_length=8)
        peaks.append(live.peak)
    assert peaks[1] < 2.5 * peaks[0]


def test_measuring_leaves_vectors_and_random_state_alone():
    qk, values = vectors()
    kept = qk.clone()
    torch.manual_seed(3)
    measure_recall(qk, values, n_buckets=4, max_hashes=1)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(qk, kept)
    assert not look_at_all(qk.requires_grad_()).log_total.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_floats_are_measured_in_float32(dtype):
    qk, values = vectors(dtype=torch.float32)
    short = [part.to(dtype) for part in (qk, values)]
    recall, wanted = (
        measure_recall(*parts, n_buckets=4, max_hashes=2, seeds=(0,))
        for parts in (short, [part.float() for part in short])
    )
    assert np.allclose(recall.error, wanted.error)


def test_numpy_arrays_are_welcome():
    qk, _ = vectors()
    recalls = [measure_recall(part, n_buckets=4, max_hashes=1) for part in (qk.numpy(), qk)]
    assert np.array_equal(recalls[0].found, recalls[1].found)


def test_zero_vectors_and_equal_vectors_are_measured():
    for qk in (torch.zeros(1, 5, 3), torch.ones(1, 5, 3)):
        recall = measure_recall(qk, qk + 1, n_buckets=2, chunk_length=8, max_hashes=2)
        assert np.allclose(recall.found, 1)
        assert np.allclose(recall.mass_found, 1)
        assert np.isfinite(recall.expected).all()


# ---------------------------------------------------------------------------------- sentences


@pytest.fixture(scope="module")
def recall():
    return measure_recall(
        *vectors(length=48),
        n_buckets=[4, 16],
        chunk_length=8,
        top_k=5,
        max_hashes=4,
        label="random vectors",
    )


def test_a_curve_is_the_mean_and_the_extremes_over_heads_and_seeds(recall):
    curve = recall.curve("mass_found", 1)
    runs = recall.mass_found[1].reshape(6, 4)
    assert np.allclose(curve.mean, runs.sum(0) / 6)
    assert curve.low.tolist() == [min(run) for run in runs.T]
    assert curve.high.tolist() == [max(run) for run in runs.T]


def test_the_sentence_is_made_from_the_numbers(recall):
    said = recall.describe()
    assert said.startswith(
        "random vectors: 48 tokens; heads: 2, draws of rotations: 3. A query's 5 top keys hold "
        f"{recall.top_mass.mean():.0%} of full attention's weight. With 4 buckets, chunks of 8, "
        f"1 round puts {recall.same_bucket[0, ..., 0].mean():.0%} of the top keys"
    )
    assert "A query's 1 top key holds " in replace(recall, top_k=1).describe()
    assert f"4 rounds put {recall.same_bucket[0, ..., -1].mean():.0%} of the top keys" in said
    assert f"{recall.found[0, ..., -1].mean():.0%} into its window too" in said
    assert f"show {recall.mass_found[0, ..., -1].mean():.0%} of the weight" in said
    assert f"{recall.error[1, ..., -1].mean():.0%} off" in said
    assert "With 16 buckets" not in recall.describe(0)


def test_without_values_the_sentence_says_nothing_of_the_output():
    recall = measure_recall(vectors()[0], n_buckets=4, window="sliding", max_hashes=1)
    assert recall.error is None
    assert "the output" not in recall.describe()
    assert "With 4 buckets, windows of 32, 1 round" in recall.describe()
    assert recall.describe().count("round") == 1


# ------------------------------------------------------------------------------------- figures


def test_the_curves_show_the_measured_numbers(recall):
    keys, mass, error = plot_recall(recall).axes
    for axes, names in (
        (keys, ("found", "same_bucket", "expected")),
        (mass, ("mass_found",)),
        (error, ("error", "error_of_repeats")),
    ):
        for name in names:
            lines = [line for line in axes.lines if line.get_label() == name]
            for setting, line in enumerate(lines):
                assert line.get_xdata().tolist() == [1, 2, 3, 4]
                assert line.get_ydata().tolist() == recall.curve(name, setting).mean.tolist()
            assert len(lines) == 2
    assert len(mass.collections) == 2
    band = mass.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == recall.curve("mass_found", 0).high.max()


def test_a_figure_names_settings_styles_and_rows(recall):
    figure = plot_recall(recall)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [recall.name(0), recall.name(1)]
    assert figure.axes[0].get_ylabel() == "random vectors"
    styles = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "theory: 1 − (1 − p)ⁿ" in styles


def test_several_recalls_are_rows_and_what_was_not_measured_stays_empty(recall):
    bare = measure_recall(vectors()[0], n_buckets=4, max_hashes=12, seeds=(0,))
    figure = plot_recall(recall, bare)
    assert len(figure.axes) == 6
    assert not figure.axes[5].axison
    assert figure.axes[3].get_xscale() == "log"
    assert len(plot_recall(bare).axes) == 2


def test_plotly_shows_the_same_numbers_and_words_on_hover(recall):
    figure = plotly_recall(recall)
    trace = next(t for t in figure.data if t.name == "a pair counts once, 16 buckets, chunks of 8")
    assert list(trace.x) == [1, 2, 3, 4]
    assert list(trace.y) == recall.curve("error", 1).mean.tolist()
    assert trace.xaxis == "x3"
    assert trace.customdata[0][1] == recall.curve("error", 1).high[0]
    assert "16 buckets, chunks of 8" in trace.hovertemplate
    assert figure.layout.xaxis3.title.text == "rounds of hashing"
    assert list(figure.layout.yaxis.range) == [0, 1.03]
    band = [t for t in figure.data if t.fill == "toself" and t.xaxis == "x2"][1]
    curve = recall.curve("mass_found", 1)
    assert list(band.y) == [*curve.high, *curve.low[::-1]]
    assert list(band.x) == [1, 2, 3, 4, 4, 3, 2, 1]


def test_plotly_names_rows_and_repeats_no_entry_of_its_legend(recall):
    figure = plotly_recall(recall, recall)
    assert figure.layout.annotations[3].text == (
        "<b>random vectors</b>: top<br>5 keys of full attention"
    )
    shown = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert shown[:2] == [recall.name(0), recall.name(1)]
    assert len(shown) == len(set(shown)) == 7
    assert len(figure.data) == 2 * 2 * (6 + 3) + 7


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_hashes": 0}, "max_hashes must be at least 1, got 0"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"n_buckets": 7}, "n_buckets must be even and positive, got 7"),
        ({"chunk_length": 0}, "chunk_length must be at least 1, got 0"),
        ({"seeds": ()}, "at least one setting and one seed, got .* and \\(\\)"),
        ({"n_buckets": []}, "at least one setting and one seed, got \\(\\)"),
        ({"window": "sliding", "chunks_before": 0}, "sliding window of no slots"),
        ({"values": torch.zeros(2, 5, 3)}, "values must have one row for each of qk's"),
        ({"values": torch.zeros(2, 24)}, "values must be"),
        ({"qk": torch.zeros(24, 6)}, '"heads length d" and not empty, got \\(24, 6\\)'),
        ({"qk": torch.zeros(1, 0, 6)}, "not empty, got \\(1, 0, 6\\)"),
        ({"qk": torch.zeros(1, 1, 6)}, "at least 2 tokens, got 1: one has no key to find"),
        ({"padding": torch.ones(24) > 0}, "not padding, got 0 in sequence 0"),
        ({"padding": np.arange(24) > 0}, "not padding, got 1 in sequence 0"),
        (
            {"padding": torch.ones(23) > 0},
            r"each of \(1, 24\) tokens, got torch.bool of shape \(1, ",
        ),
        ({"padding": torch.ones(24)}, "got torch.float32 of shape"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_reason(change, message):
    arguments = {"qk": vectors()[0], "n_buckets": 4, **change}
    with pytest.raises(ValueError, match=message):
        measure_recall(**arguments)


def test_numbers_that_are_none_are_found():
    qk, _ = vectors()
    qk[1, 20, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity at token 20 of head 1"):
        measure_recall(qk)


def test_what_was_not_measured_is_refused(recall):
    with pytest.raises(ValueError, match="setting must be in 0..1, got 2: 2 were measured"):
        recall.curve("found", 2)
    bare = measure_recall(vectors()[0], n_buckets=4, max_hashes=1)
    with pytest.raises(ValueError, match="error was not measured: give measure_recall the values"):
        bare.curve("error")
    with pytest.raises(ValueError, match="at least one recall"):
        plot_recall()


def test_what_full_attention_saw_can_be_kept_for_other_settings():
    qk, values = vectors()
    full = look_at_all(qk, values, top_k=5).keep(3)
    for chunk_length in (4, 8):
        kept = compare(full, [Setting(4, chunk_length)], n_hashes=[1, 3], seeds=(1, 2))
        anew = measure_recall(
            qk,
            values,
            top_k=3,
            n_buckets=4,
            chunk_length=chunk_length,
            seeds=(1, 2),
            max_hashes=3,
        )
        for name in (*EVERYTHING, "expected"):
            assert np.array_equal(getattr(kept, name), getattr(anew, name)[..., [0, 2]])
        assert np.array_equal(kept.top_mass, anew.top_mass)
    with pytest.raises(ValueError, match="top_k must be at most 3, got 4: so many were looked up"):
        full.keep(4)
