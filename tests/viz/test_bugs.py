"""The bug switchboard: the right path is core's, each mistake shows as said, and no two alike."""

import numpy as np
import pytest
import torch

from reformer_core import (
    dense_lsh_attention,
    draw_rotations,
    hash_generator,
    hash_vectors,
    lsh_attention,
    plan_chunks,
)
from reformer_viz import BUGS, explore_bugs, measure_bug, plot_bug, plotly_bug
from reformer_viz.figures.bugs import cells
from reformer_viz.lessons import sixteen_tokens
from reformer_viz.lessons.checks import buckets as checks_of_buckets
from reformer_viz.lessons.checks import causality, hashing, reversible, rounds
from reformer_viz.measure.bugs import (
    DEFAULT_SEED,
    MYSTERIES,
    _counts,
    _in_reach,
    _near,
    _run,
    _sorted_any_how,
    _with_itself,
    _without_minus_r,
)

RULE = {"causal": True, "within_bucket": False}


@pytest.fixture(scope="module")
def symptoms():
    return {name: measure_bug(sixteen_tokens()[0, 0], name) for name in ("none", *BUGS)}


# --------------------------------------------------------------------------- the right path


def random_plan(seed: int, length: int, n_hashes: int = 2, chunk_length: int = 4):
    generator = torch.Generator().manual_seed(seed)
    qk = torch.randn(1, 1, length, 8, generator=generator, dtype=torch.float64)
    buckets = torch.randint(4, (1, 1, n_hashes, length), generator=generator)
    return qk, plan_chunks(buckets, n_buckets=4, chunk_length=chunk_length, **RULE)


@pytest.mark.parametrize(("seed", "length"), [(0, 16), (1, 30), (2, 3), (3, 61)])
def test_the_pairs_and_the_output_are_cores_without_a_mistake(seed, length):
    qk, plan = random_plan(seed, length)
    seen = plan.visible()[0, 0]
    assert torch.equal(_near(plan.slot[0, 0].long(), 4), seen)
    values = torch.randn(1, 1, length, 8, dtype=torch.float64)
    towards = torch.randn(length, 8, dtype=torch.float64)
    for bug, repeats in (("none", False), ("repeats", True)):
        inputs = [it.clone().requires_grad_() for it in (qk, values)]
        right = dense_lsh_attention(*inputs, plan, count_repeats=repeats)
        gradients = torch.autograd.grad((right[0, 0] * towards).sum(), inputs)
        output, got = _run(qk[0, 0], values[0, 0], towards, seen, bug)
        assert torch.allclose(output, right[0, 0], atol=1e-12)
        assert torch.allclose(got, torch.cat(gradients)[:, 0], atol=1e-12)


def test_what_should_be_seen_is_the_plan_of_the_same_rotations(symptoms):
    qk = sixteen_tokens()
    rotations = draw_rotations(2, 1, 8, 4, hash_generator(DEFAULT_SEED, 0, 0))
    plan = plan_chunks(hash_vectors(qk, rotations), n_buckets=4, chunk_length=4, **RULE)
    for it in symptoms.values():
        assert np.array_equal(it.should, plan.visible()[0, 0].numpy())
    assert np.array_equal(symptoms["none"].slot, plan.slot[0, 0, 0].numpy())
    assert lsh_attention(qk, qk, plan).isfinite().all()


def test_without_a_mistake_nothing_is_wrong(symptoms):
    none = symptoms["none"]
    assert np.array_equal(none.seen, none.should)
    assert (none.output_error, none.gradient_error, none.repeats) == (0, 0, True)
    assert not cells(none)[none.lost | none.extra].any()


# ------------------------------------------------------------------------------- mistakes


def test_without_minus_r_half_of_the_buckets_stay_empty(symptoms):
    assert set(symptoms["none"].buckets) == {0, 1, 2, 3}
    assert set(symptoms["no_minus_r"].buckets) == {0, 1}


def test_an_unstable_sort_mixes_a_buckets_positions_and_moves_nobody_to_another(symptoms):
    mixed, right = symptoms["unstable_sort"], symptoms["none"]
    assert np.array_equal(mixed.buckets, right.buckets)
    in_order = [np.diff(it.slot[it.buckets == b]) > 0 for it in (mixed, right) for b in range(4)]
    assert not all(steps.all() for steps in in_order[:4])
    assert all(steps.all() for steps in in_order[4:])
    assert [*np.sort(mixed.slot)] == [*range(16)]
    assert [*mixed.buckets[np.argsort(mixed.slot)]] == sorted(mixed.buckets)


def test_a_wrapping_look_back_adds_pairs_from_the_first_chunk_to_the_last(symptoms):
    wraps = symptoms["wraps"]
    assert wraps.extra.any()
    assert not wraps.lost.any()
    added = wraps.seen & ~wraps.should
    for query, key in np.argwhere(added[0]):
        assert wraps.slot[query] < 4
        assert wraps.slot[key] >= 12
    assert not np.triu(added.any(0)).any()


def test_repeats_change_the_output_and_not_the_pairs_but_only_with_several_rounds(symptoms):
    repeats = symptoms["repeats"]
    assert np.array_equal(repeats.seen, repeats.should)
    assert repeats.output_error > 0.01
    assert measure_bug(sixteen_tokens()[0, 0], "repeats", n_hashes=1).output_error < 1e-12


def test_self_not_last_adds_the_diagonal_and_nothing_else(symptoms):
    assert np.array_equal(symptoms["self_not_last"].extra, np.eye(16, dtype=bool))


def test_fresh_hashes_spoil_the_gradient_and_nothing_else(symptoms):
    wrong = [name for name, it in symptoms.items() if it.gradient_error > 1e-9]
    assert wrong == ["fresh_hashes"]
    assert symptoms["fresh_hashes"].gradient_error > 0.1
    assert symptoms["fresh_hashes"].output_error == 0


def test_only_the_global_generator_gives_something_else_the_second_time(symptoms):
    assert [name for name, it in symptoms.items() if not it.repeats] == ["global_generator"]


def test_no_two_mistakes_have_the_same_symptoms(symptoms):
    def signs(it):
        off_diagonal = it.extra & ~np.eye(16, dtype=bool)
        in_order = all((np.diff(it.slot[it.buckets == b]) > 0).all() for b in range(4))
        return (
            len(np.unique(it.buckets)) <= 2,
            in_order,
            it.lost.any(),
            off_diagonal.any(),
            it.extra.any(),
            it.output_error > 1e-9,
            it.gradient_error > 1e-9,
            it.repeats,
        )

    assert len({signs(it) for it in symptoms.values()}) == len(symptoms)


# ------------------------------------------------------------------------------ the panel


@pytest.fixture
def panel():
    return explore_bugs(sixteen_tokens()[0, 0])


def test_a_switch_moves_the_data_the_picture_and_the_sentence(panel):
    assert "Switched on: none." in repr(panel)
    panel.controls["bug"].value = "self_not_last"
    assert "Switched on: self not last." in repr(panel)
    assert "16 are that should not, 16 of them a token and itself" in repr(panel)
    figure = plotly_bug(panel.data.symptoms)
    drawn = next(trace for trace in figure.data if trace.type == "heatmap").z
    assert np.array_equal(np.array(drawn) == 3, np.eye(16, dtype=bool))
    shown = plot_bug(panel.data.symptoms).axes[1].images[0].get_array()
    assert np.array_equal(shown, drawn)


def test_a_mystery_does_not_say_what_it_is_and_answers_a_guess(panel):
    for name, bug in MYSTERIES.items():
        panel.controls["guess"].value = None
        panel.controls["bug"].value = name
        assert BUGS[bug].title not in repr(panel)
        assert repr(panel).endswith("Which one is it?")
        for guess in BUGS:
            panel.controls["guess"].value = guess
            right = f"Your guess is right: {BUGS[bug].title}" in repr(panel)
            assert right == (guess == bug)
            assert (f"It is not '{BUGS[guess].title}'" in repr(panel)) != right


def test_every_mistake_is_one_mystery():
    assert sorted(MYSTERIES.values()) == sorted(BUGS)


def test_a_saved_line_leads_back(panel):
    panel.controls["bug"].value = "mystery 3"
    again = eval(panel.code, {"explore_bugs": explore_bugs, "qk": sixteen_tokens()[0, 0]})
    assert repr(again) == repr(panel)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bug": "typo"}, "bug must be 'none' or one of no_minus_r, .* got 'typo'"),
        ({"qk": torch.zeros(1, 4)}, "from 2 to 128 tokens, got 1"),
        ({"qk": torch.zeros(129, 4)}, "from 2 to 128 tokens, got 129: take a part"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(given, said):
    given = {"qk": sixteen_tokens()[0, 0]} | given
    with pytest.raises(ValueError, match=said):
        measure_bug(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bug": "typo"}, "got 'typo'"),
        ({"guess": "typo"}, "guess must be None or one of"),
        ({"n_buckets": 3}, "n_buckets must be even and positive, got 3"),
    ],
)
def test_the_panel_says_what_is_wrong_in_place_of_the_picture(given, said):
    panel = explore_bugs(**{"qk": sixteen_tokens()[0, 0]} | given)
    assert panel.data is None
    assert said in repr(panel)


def test_vectors_that_are_no_numbers_are_refused():
    nowhere = torch.full((16, 4), torch.nan)
    with pytest.raises(ValueError, match="finite"):
        measure_bug(nowhere)
    assert "finite" in repr(explore_bugs(nowhere))


# ------------------------------------------------- the same mistakes, as answers to exercises


def sees_itself(buckets, chunk_length):
    plan = plan_chunks(buckets[None, None, None], chunk_length=chunk_length, causal=True)
    return _with_itself(plan.visible()[0, 0])[0]


def share_of_repeats(plan):
    seen = plan.visible().flatten(0, 1)
    length = seen.shape[-1]
    counted = sum(int(_counts(of_head, repeats=True).sum()) for of_head in seen)
    return counted / (len(seen) * length * (length - 1) / 2)


ANSWERS = {
    "no_minus_r": (hashing.bucket_numbers, _without_minus_r, "half of the buckets never occur"),
    "unstable_sort": (
        checks_of_buckets.sorted_positions,
        lambda buckets: _sorted_any_how(buckets[None], DEFAULT_SEED)[0].argsort(),
        "within one the positions are mixed",
    ),
    "wraps": (
        causality.own_and_previous,
        lambda length, chunk: _in_reach(torch.arange(length)[None] // chunk, wraps=True)[0],
        "here it looks at the last one",
    ),
    "repeats": (rounds.share_seen, share_of_repeats, "a pair that two rounds see is counted twice"),
    "self_not_last": (checks_of_buckets.visible, sees_itself, "everybody sees itself"),
    # No exercise hashes in a backward pass; what is drawn afresh in this one are dropout's masks.
    "fresh_hashes": (
        reversible.run_again,
        lambda sublayer, x, state: sublayer(x)[0],
        "the dropout masks are new ones",
    ),
    "global_generator": (
        hashing.bucket_numbers,
        lambda vectors, rotations: hash_vectors(vectors, torch.randn(rotations.shape)),
        "drawn from the global generator",
    ),
}


def test_every_switch_has_an_exercise():
    assert list(ANSWERS) == list(BUGS)


@pytest.mark.parametrize("bug", ANSWERS)
def test_a_mistake_of_the_switchboard_is_named_when_it_is_handed_in_as_an_answer(bug):
    exercise, answer, words = ANSWERS[bug]
    verdict = exercise(answer)
    assert not verdict.passed
    assert words in verdict.words
