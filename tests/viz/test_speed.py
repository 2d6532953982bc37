"""Times are taken in turn and read back as they were written, and the picture shows them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from reformer_core import (
    dense_lsh_attention,
    draw_rotations,
    hash_generator,
    hash_vectors,
    plan_chunks,
)
from reformer_viz import explore_speed, measure_speed, plot_speed, plotly_speed, read_speed
from reformer_viz.measure import speed
from reformer_viz.measure.speed import (
    SCHEMA,
    Contestant,
    SpeedMeasurement,
    SpeedReading,
    Timings,
    hash_and_attend,
    in_rounds,
    in_seconds,
    read_training_steps,
)
from tests.benchmarks.readme import results

RESULTS = results()  # those of contestants
KINDS = (
    ("ours_once", "ours", False),
    ("ours_repeats", "ours", True),
    ("a", "peer", True),
    ("b", "peer", True),
    ("c", "peer", False),
    ("full", "full", None),
    ("products", "bound", None),
)
CONTESTANTS = tuple(
    Contestant(key=key, label=f"the {key}", kind=kind, counts_repeats=counts)
    for key, kind, counts in KINDS
)
LENGTHS, ROUNDS = np.array([100, 200, 400, 800]), np.array([1, 2, 4])


def timings(seconds: np.ndarray, extra_bytes: float = np.nan) -> Timings:
    return Timings(
        fastest=seconds, median=2 * seconds, extra_bytes=np.full(seconds.shape, extra_bytes)
    )


@pytest.fixture
def measured() -> SpeedMeasurement:
    """Make a measurement whose times are powers of the length: everybody's exponent is known."""
    powers = np.array([1.0, 1.1, 1.2, 1.3, 1.25, 2.0, 0.9])[:, None, None]
    start = np.array([2, 1, 6, 5, 9, 0.5, 1])[:, None, None]
    step = start * ROUNDS[:, None] * (LENGTHS / 100) ** powers
    return SpeedMeasurement(
        contestants=CONTESTANTS,
        lengths=LENGTHS,
        n_hashes=ROUNDS,
        forward=timings(step / 3),
        step=timings(step, 2.0**20),
        machine="a machine",
        date="2026-01-01",
    )


def without(measurement: SpeedMeasurement, *missing: tuple) -> SpeedMeasurement:
    """Forget some times of a step."""
    for row, place, length in missing:
        for part in vars(measurement.step).values():
            part[row, place, length] = np.nan
    return measurement


# ------------------------------------------------------------------------- what is timed


@pytest.mark.parametrize("count_repeats", [False, True])
def test_what_is_timed_is_the_attention_over_the_plan_of_newly_drawn_rotations(count_repeats):
    qk, values = torch.randn(2, 1, 2, 48, 8, dtype=torch.float64)
    rotations = draw_rotations(3, 2, 8, 12, hash_generator(0, 0, 5))
    plan = plan_chunks(hash_vectors(qk, rotations), chunk_length=8, causal=True)
    attended = hash_and_attend(
        qk, values, n_hashes=3, chunk_length=8, count_repeats=count_repeats, step=5
    )
    wanted = dense_lsh_attention(qk, values, plan, count_repeats=count_repeats)
    torch.testing.assert_close(attended, wanted)


def test_both_passes_of_both_attentions_are_timed_at_every_length_and_round():
    got = measure_speed((16, 40), (1, 2, 3), n_heads=1, d_head=4, chunk_length=8, repeats=2)
    assert [contestant.kind for contestant in got.contestants] == ["ours", "full"]
    assert (got.lengths.tolist(), got.n_hashes.tolist()) == ([16, 40], [1, 2, 3])
    for of_pass in (got.forward, got.step):
        assert of_pass.fastest.shape == of_pass.median.shape == (2, 3, 2)
        assert (of_pass.fastest > 0).all()
        assert (of_pass.fastest <= of_pass.median).all()
        assert np.isnan(of_pass.extra_bytes).all()
        assert (of_pass.fastest[1] == of_pass.fastest[1, :1]).all()  # full attention has no rounds


def test_times_are_taken_in_turn_and_the_first_of_each_is_not_counted(monkeypatch):
    taken = []

    def pass_times(attend, qk, values, d_out):
        taken.append(attend(qk, values).shape[2])
        return float(len(taken)), 100.0 + len(taken)

    monkeypatch.setattr(speed, "_time_passes", pass_times)
    got = measure_speed((16, 24), (1, 2), n_heads=1, d_head=4, chunk_length=8, repeats=2)
    assert taken == [16] * 9 + [24] * 9  # (1 + 2 repeats) * (2 rounds + full attention)
    assert got.forward.fastest[0].tolist() == [[4, 13], [5, 14]]
    assert got.forward.fastest[1].tolist() == [[6, 15], [6, 15]]
    assert got.step.median[0].tolist() == [[105.5, 114.5], [106.5, 115.5]]


def test_measuring_leaves_the_random_state_and_the_gradient_mode_alone():
    torch.manual_seed(3)
    with torch.no_grad():
        measure_speed((16,), (1,), n_heads=1, d_head=4, chunk_length=8, repeats=1)
        assert not torch.is_grad_enabled()
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ({"lengths": ()}, "lengths"),
        ({"lengths": (16, 0)}, "lengths"),
        ({"n_hashes": (0,)}, "n_hashes"),
        ({"repeats": 0}, "repeats"),
    ],
)
def test_nothing_to_measure_is_refused(how, name):
    with pytest.raises(ValueError, match=rf"{name} must be at least 1 each, and at least one, got"):
        measure_speed(**{"lengths": (16,), "n_hashes": (1,), **how})


# ------------------------------------------------------------------------ what follows from it


def test_the_exponent_is_the_slope_of_log_time_over_the_longer_half(measured):
    powers = [1.0, 1.1, 1.2, 1.3, 1.25, 2.0, 0.9]
    np.testing.assert_allclose(measured.exponents(), np.repeat([powers], 3, 0).T)
    measured.step.fastest[..., 0] *= 50  # fixed costs of short inputs
    np.testing.assert_allclose(measured.exponents()[:, 0], powers)
    alone = without(measured, (0, 1, 3), (0, 1, 2)).exponents()
    assert np.isnan(alone[0, 1])
    assert alone[0, 0] == pytest.approx(1)


def test_the_best_peer_is_the_fastest_of_the_same_semantics_wherever_there_is_one(measured):
    fastest = measured.step.fastest
    assert (measured.best_peer(False) == fastest[4]).all()
    np.testing.assert_array_equal(measured.best_peer(True), np.minimum(fastest[2], fastest[3]))
    measured = without(measured, (2, 0, 0), (4, 0, 0))
    assert measured.best_peer(True)[0, 0] == fastest[3, 0, 0]
    assert np.isnan(measured.best_peer(False)[0, 0])


def test_the_main_number_of_rounds_was_measured_most_and_is_near_the_models_own(measured):
    assert measured.main_round() == 2
    assert without(measured, (0, 2, 3)).main_round() == 1


def test_the_sentences_are_made_from_the_numbers(measured):
    said = measured.describe()
    ours, peers = measured.step.fastest[:2, 2, 3], measured.best_peer(True)[2, 3]
    assert "each pair once, a forward and backward pass over 800 tokens in 4 rounds" in said
    assert f"takes {in_seconds(ours[0])}, " in said
    assert f"takes {in_seconds(ours[1])}, {peers / ours[1]:.1f} times less" in said
    assert "1 MiB of extra memory against at least 1 MiB" in said
    products = measured.step.fastest[6, 2, 3]
    assert f"takes {ours[0] / products:.2f} times as long as the products" in said
    assert "faster than full attention from 800 tokens on" in said  # as fast at 400
    assert "From 200 to 800 tokens" in said
    assert "1.00 (the ours_once), 1.10 (the ours_repeats), 2.00 (the full)" in said


def test_what_was_not_measured_is_not_spoken_of(measured):
    missing = [(row, 2, length) for row in (2, 3, 4, 6) for length in range(4)]
    said = without(measured, *missing).describe()
    # those rounds are still the main ones: they count where ours was measured
    assert "peer" not in said
    assert "as long as" not in said
    measured.step.fastest[5] = 1e-9
    assert "not faster than full attention at any" in measured.describe()


def test_a_comparison_is_made_at_the_greatest_length_that_both_were_measured_at(measured):
    said = without(measured, (4, 2, 3)).describe()
    ratio = measured.step.fastest[4, 2, 2] / measured.step.fastest[0, 2, 2]
    assert "With each pair once, a forward and backward pass over 400 tokens" in said
    assert f"{ratio:.1f} times less" in said


def test_a_contestant_who_did_not_take_part_is_refused(measured):
    assert measured.row("full") == 5
    with pytest.raises(ValueError, match=r"key must be one of \['ours_once', .*got 'nobody'"):
        measured.row("nobody")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0123, "12 ms"), (1.5, "1,500 ms"), (9.9996, "10.0 s"), (1234.56, "1,234.6 s")],
)
def test_times_are_written_in_units(seconds, said):
    assert in_seconds(seconds) == said


def test_rounds_are_counted_in_words():
    assert (in_rounds(1), in_rounds(4)) == ("1 round", "4 rounds")


# ---------------------------------------------------------------------------- from a file

RUN = {"part": "attention", "length": 64, "n_hashes": 2, "pass": "step"}


def record(*runs: dict) -> dict:
    said = [vars(contestant) for contestant in CONTESTANTS]
    common = {"seconds": [3.0, 1.0, 5.0], "extra_bytes": 7, "skipped": None}
    return {
        "schema": SCHEMA,
        "date": "2026-01-01",
        "machine": {"cpu": "a processor", "cores": 8, "gpu": None},
        "settings": {"threads": 2, "dtype": "float32"},
        "contestants": {"attention": said, "training": said},
        "runs": [{**RUN, **common, **run} for run in runs],
    }


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_is_read_into_the_same_kind_of_measurement(tmp_path):
    path = write(
        tmp_path / "a.json",
        record(
            {"contestant": "full"},
            {"contestant": "ours_once", "length": 32, "extra_bytes": None},
            {"contestant": "ours_once", "pass": "forward", "n_hashes": 8, "seconds": [4.0]},
            {"contestant": "a", "seconds": [], "extra_bytes": None, "skipped": "too slow"},
            {"contestant": "b", "part": "training"},
        ),
    )
    got = read_speed(path)
    assert [contestant.key for contestant in got.contestants] == ["ours_once", "full"]
    assert (got.lengths.tolist(), got.n_hashes.tolist()) == ([32, 64], [2, 8])
    assert (got.machine, got.date) == ("a processor, 2 of 8 cores", "2026-01-01")
    nan = np.nan
    np.testing.assert_array_equal(
        got.step.fastest, [[[1, nan], [nan, nan]], [[nan, 1], [nan, nan]]]
    )
    np.testing.assert_array_equal(got.step.median[:, 0], [[3, nan], [nan, 3]])
    np.testing.assert_array_equal(got.step.extra_bytes[:, 0], [[nan, nan], [nan, 7]])
    assert got.forward.fastest[0, 1, 1] == 4
    assert np.isfinite(got.forward.fastest).sum() == 1


def test_training_steps_are_read_from_the_same_file(tmp_path):
    path = write(
        tmp_path / "a.json",
        record(
            {"contestant": "full", "part": "training", "extra_bytes": None},
            {"contestant": "a", "part": "training", "seconds": [2.0]},
            {"contestant": "b", "part": "training", "seconds": [], "skipped": "too slow"},
        ),
    )
    got = read_training_steps(path)
    assert [contestant.key for contestant in got.contestants] == ["a", "full"]
    assert (got.fastest.tolist(), got.median.tolist()) == ([2, 1], [2, 3])
    np.testing.assert_array_equal(got.extra_bytes, [7, np.nan])
    assert read_training_steps(write(tmp_path / "b.json", record())) is None


def test_a_gpu_is_named_with_the_numbers_it_computed_in(tmp_path):
    made = record({"contestant": "full"})
    made["machine"]["gpu"], made["settings"]["dtype"] = "a GPU", "bfloat16"
    assert read_speed(write(tmp_path / "a.json", made)).machine == "a GPU, bfloat16"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("tea", "must be a JSON file of make bench"),
        ([1], "must have schema 1, got None"),
        ({"schema": 0}, "must have schema 1, got 0"),
        (record(), "must have a time of an attention, got none"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_speed(write(tmp_path / "a.json", content))


# ------------------------------------------------------------------------------- the picture


def drawn(axes) -> dict[str, list]:
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_the_curves_show_the_measured_numbers(measured):
    everybody, by_rounds, memory = plot_speed(measured).axes
    for row, contestant in enumerate(CONTESTANTS):
        times = np.c_[LENGTHS, measured.step.fastest[row, 2]].tolist()
        assert drawn(everybody)[contestant.label] == times
    for place, n_hashes in enumerate(ROUNDS):
        times = np.c_[LENGTHS, measured.step.fastest[0, place]].tolist()
        assert drawn(by_rounds)[in_rounds(n_hashes)] == times
    assert drawn(by_rounds)["the full"] == drawn(everybody)["the full"]
    assert drawn(memory)["the a"] == np.c_[LENGTHS, [2.0**20] * 4].tolist()
    assert "the products" not in drawn(memory)


def test_every_line_is_named(measured):
    figure = plot_speed(measured)
    (legend,) = figure.legends
    named = {text.get_text() for text in legend.get_texts()}
    assert named == {contestant.label for contestant in CONTESTANTS}
    by_rounds = figure.axes[1]
    names = [text.get_text() for text in by_rounds.texts]
    assert names == [in_rounds(n_hashes) for n_hashes in ROUNDS]
    handles = by_rounds.get_legend().legend_handles
    texts = [text.get_text() for text in by_rounds.get_legend().get_texts()]
    looks = {text: handle.get_color() for text, handle in zip(texts, handles, strict=True)}
    colours = {line.get_label(): line.get_color() for line in by_rounds.lines}
    assert looks == {"the ours_once": colours["4 rounds"], "the full": colours["the full"]}


def test_both_pictures_of_time_have_one_scale(measured):
    measured.step.fastest[2, 2, 3] *= 1000  # drawn on the left only
    measured.step.fastest[0, 0, 0] /= 1000  # on the right only
    left, right, _ = plot_speed(measured).axes
    low, high = left.get_ylim()
    assert (low, high) == right.get_ylim()
    times = [y for axes in (left, right) for line in axes.lines for y in line.get_ydata()]
    assert low < min(times) < max(times) < high


@pytest.mark.parametrize("spread", [1.5, 10, 1e4])
def test_times_have_at_least_two_ticks_with_their_units(measured, spread):
    times = measured.step.fastest
    times[:] = 0.03 * spread ** ((times - times.min()) / np.ptp(times))
    axes = plot_speed(measured).axes[0]
    axes.figure.draw_without_rendering()
    low, high = axes.get_ylim()
    ticks = [
        label.get_text()
        for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= tick <= high
    ]
    assert len(set(ticks)) == len(ticks) >= 2
    assert all(re.fullmatch(r"[\d.]+ m?s", tick) for tick in ticks)


def test_no_memory_no_picture_of_it(measured):
    measured.step.extra_bytes[:] = np.nan
    assert len(plot_speed(measured).axes) == 2


def test_a_line_leaves_out_what_was_not_measured(measured):
    figure = plot_speed(without(measured, (2, 2, 3)))
    assert np.array(drawn(figure.axes[0])["the a"])[:, 0].tolist() == [100, 200, 400]


def test_ours_alone_can_be_drawn():
    got = measure_speed((16, 24), (1, 2), n_heads=1, d_head=4, chunk_length=8, repeats=1)
    figure = plot_speed(got)
    assert set(drawn(figure.axes[1])) == {"1 round", "2 rounds", "full attention"}
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_picture_of_committed_results_shows_what_is_in_the_file(path):
    content = json.loads(path.read_text())
    measurement = read_speed(path)
    everybody = drawn(plot_speed(measurement).axes[0])
    main = int(measurement.n_hashes[measurement.main_round()])
    for said in content["contestants"]["attention"]:
        wanted = {
            run["length"]: min(run["seconds"])
            for run in content["runs"]
            if (run["part"], run["pass"], run["n_hashes"]) == ("attention", "step", main)
            if run["contestant"] == said["key"] and run["seconds"]
        }
        assert dict(everybody.get(said["label"], [])) == wanted


# ------------------------------------------------------------------------------ live, and in words


def curves(figure, axis: str) -> dict[str, list]:
    """Return the heights of the curves on one of the two pairs of axes, by name."""
    return {trace.name: list(trace.y) for trace in figure.data if (trace.xaxis or "x") == axis}


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("what", ["seconds", "seconds a token", "bytes"])
def test_the_chart_draws_everybody_at_a_number_of_rounds_then_ours_by_rounds(
    measured, what, backward
):
    figure = plotly_speed(measured, 2, what, backward)
    timings = measured.step if backward else measured.forward
    wanted = timings.extra_bytes if what == "bytes" else timings.fastest
    if what == "seconds a token":
        wanted = wanted / LENGTHS
    if what == "bytes" and not backward:
        assert not any(len(trace.y) for trace in figure.data)
        return
    everybody = curves(figure, "x")
    shown = [c.kind != "bound" or what != "bytes" for c in CONTESTANTS]
    assert list(everybody) == [c.label for c, show in zip(CONTESTANTS, shown, strict=True) if show]
    assert list(everybody.values()) == wanted[shown, 1].tolist()
    ours = curves(figure, "x2")
    assert list(ours) == ["the full", "1 round", "2 rounds", "4 rounds"]
    assert [ours[name] for name in list(ours)[1:]] == wanted[0].tolist()


def test_the_chart_leaves_out_what_was_not_measured(measured):
    without(measured, (0, 1, -1), (3, 1, 0))
    everybody = curves(plotly_speed(measured, 2), "x")
    assert len(everybody["the ours_once"]) == len(everybody["the b"]) == 3


def test_a_reading_says_what_the_chart_draws_at_its_right_end(measured):
    reading = SpeedReading(measurement=measured, n_hashes=2, what="seconds", backward=True)
    ends = [in_seconds(of_one[-1]) for of_one in curves(plotly_speed(measured, 2), "x").values()]
    assert reading.describe() == (
        "800 tokens in 2 rounds, time of a forward and backward pass: "
        + "; ".join(f"{c.label} {end}" for c, end in zip(CONTESTANTS, ends, strict=True))
        + "."
    )
    without(measured, *[(row, 1, -1) for row in range(len(CONTESTANTS))])
    assert reading.describe().startswith("400 tokens in 2 rounds")


def test_a_reading_without_numbers_says_so(measured):
    reading = SpeedReading(measurement=measured, n_hashes=2, what="bytes", backward=False)
    assert reading.describe() == "No extra memory of a forward pass was measured with 2 rounds."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_hashes": 3}, r"n_hashes must be one of \[1, 2, 4\], got 3: no other number"),
        ({"what": "joules"}, "what must be one of .* got 'joules': nothing else was measured"),
    ],
)
def test_what_was_not_measured_is_a_sentence_in_the_picture_s_place(measured, wrong, message):
    panel = explore_speed(measured, **wrong)
    assert re.match(message, panel.problem)
    with pytest.raises(ValueError, match=message):
        _ = panel.figure


def test_the_explorer_moves_its_chart_its_sentence_and_its_print(measured):
    panel = explore_speed(measured)
    live = panel.chart
    panel.controls["n_hashes"].value = 4
    panel.controls["backward"].value = False
    assert curves(live, "x")["the a"] == measured.forward.fastest[2, 2].tolist()
    assert repr(panel).startswith("800 tokens in 4 rounds, time of a forward pass")
    assert panel.figure.axes[0].get_title(loc="left") == "Forward, 4 rounds"
    panel.controls["what"].value = "seconds a token"
    assert live.layout.yaxis.title.text == "time a token, forward"


def test_without_a_measurement_the_explorer_takes_the_times_itself(monkeypatch):
    monkeypatch.setattr(
        speed, "_time_length", lambda _length, rounds, *_: np.ones((2, 2, 2, len(rounds)))
    )
    panel = explore_speed()
    assert "LSH attention 1,000 ms; full attention 1,000 ms" in repr(panel)
    assert panel.code == 'explore_speed(n_hashes=4, what="seconds", backward=True)'


def test_the_measured_file_is_explored_as_it_was_written():
    for path in RESULTS:
        panel = explore_speed(path)
        assert panel.data.measurement.machine == read_speed(path).machine
        assert len(panel._html()) < 40_000
