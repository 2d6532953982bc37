"""The page's replay of a recording says and counts what Python does, at every place in it."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from reformer_core import plan_chunks
from reformer_viz import explore_training, measure_training, watch_training
from reformer_viz.figures.training_svg import draw_svg
from reformer_viz.measure.recording import NOBODY
from reformer_viz.measure.training import (
    collect_training,
    describe_snapshot,
    measure_organisation,
)
from reformer_viz.widgets import training as widgets
from reformer_viz.widgets.panel import compact_script
from reformer_viz.widgets.training import TrainingView, _film
from tests.benchmarks.explorers import EXPLORERS
from tests.viz.test_plan_view import run
from tests.viz.test_training import (
    HOW,
    PROBE,
    TASK,
    Recorder,
    after,
    made_up,
    new_model,
    record_of,
    run_of,
    states_of,
    train,
)

# Runs in Node and in a page alike.
REPLAY = """
function replay(films) {
  return films.map(film => {
    const data = { film }, places = [];
    film.buckets.forEach((heads, layer) => heads.forEach((frames, head) => {
      const whole = filmOf(data, layer, head), { plans } = whole;
      frames.forEach((rounds, at) => rounds.forEach((_, round) => {
        whole.counts = { [round]: frames.map((_, k) => countsOf(whole, data, k, round)) };
        const kinds = kindsOf(plans[at], { ...film, buckets: whole.frames[at] }, round);
        for (const token of [null, ...film.labels.keys()])
          places.push(tell({ data, film: whole, at, kinds, place: { layer, head, round, token } }));
      }));
    }));
    return places;
  });
}
"""


def random_recording(seed):
    dice = np.random.default_rng(seed)
    causal, length = bool(dice.integers(2)), int(dice.integers(2, 26))
    layers, heads, rounds, snapshots = dice.integers(1, 4, size=4)
    n_buckets = int(dice.choice([1, 4, 63, 64, 65, 5000]))
    window = str(dice.choice(["chunks", "sliding"]))
    shape = snapshots, layers, heads, rounds, length
    sought = dice.integers(length, size=(snapshots, layers, heads, length))
    sought[dice.random(sought.shape) < 0.5] = NOBODY
    sought[sought == np.arange(length)] = NOBODY
    if causal:
        sought[sought > np.arange(length)] = NOBODY
    buckets = dice.integers(n_buckets, size=shape)
    buckets[dice.random(shape) < 0.4] = n_buckets - 1  # enough in one bucket to see somebody
    recording = made_up(
        sought,
        buckets,
        n_buckets=n_buckets,
        chunk_length=int(dice.integers(1, 9)),
        causal=causal,
        window=window,
        within_bucket=bool(dice.integers(2)),
        chunks_before=1,
        chunks_after=0 if causal else 1,
        padding=None,
    )
    recording.mass_found[:] = dice.random(recording.mass_found.shape)
    return recording


@pytest.fixture(scope="module")
def recordings():
    return [random_recording(seed) for seed in range(20)]


@pytest.fixture(scope="module")
def told(recordings, tmp_path_factory, request):
    script = compact_script("training_view.js") + REPLAY
    films = [json.loads(json.dumps(_film(recording))) for recording in recordings]
    return run(script, films, tmp_path_factory.mktemp("node"), request)


def places_in(recording):
    snapshots, layers, heads, rounds, length = recording.buckets.shape
    for layer, head, snapshot, round in np.ndindex(layers, heads, snapshots, rounds):
        for token in [None, *range(length)]:
            yield snapshot, layer, head, round, token


def test_the_page_says_what_python_says_at_every_place(recordings, told):
    for recording, words in zip(recordings, told, strict=True):
        wanted = [describe_snapshot(recording, *place) for place in places_in(recording)]
        assert words == wanted


def test_the_sentence_counts_what_the_organisation_counts(recordings):
    for recording in recordings:
        organisation = measure_organisation(recording)
        snapshots, layers, heads, _, length = recording.buckets.shape
        for snapshot, layer in np.ndindex(snapshots, layers):
            seen = n_sought = 0
            for head in range(heads):
                said = describe_snapshot(recording, snapshot, layer, head, 0)
                seen += int(said.split("round, and ")[1].split(" ")[0])
                n_sought += int(said.split("Of ")[1].split(" ")[0])
            assert n_sought == organisation.n_sought[layer]
            if n_sought:
                share = organisation.sought_seen[snapshot, layer]
                assert seen / n_sought == pytest.approx(share)
        last = describe_snapshot(recording, snapshots - 1, 0, 0, 0)
        assert f"{length} of {length} tokens are in the bucket that they end in" in last


def test_a_page_refuses_no_place_but_stays_as_near_as_the_data_allow():
    recording = random_recording(3)
    view = TrainingView()
    history = [record_of(step) for step in range(1, len(recording.steps) + 1)]
    data = collect_training(history, (), recording, "finished")
    far = {"snapshot": 99, "layer": 99, "head": 99, "round": 99, "token": None}
    last = [size - 1 for size in recording.buckets.shape[:4]]
    assert view.describe(data, far) == describe_snapshot(recording, *last)
    assert view.describe(data, far | {"snapshot": None}) == describe_snapshot(recording, *last)


@pytest.mark.parametrize("place", ["snapshot", "layer", "head", "round", "token"])
def test_a_place_that_was_not_recorded_is_refused(place):
    recording = random_recording(3)
    where = {"snapshot": 0, "layer": 0, "head": 0, "round": 0, "token": 0, place: -1}
    with pytest.raises(ValueError, match=rf"{place} must be in 0\.\.\d+, got -1"):
        describe_snapshot(recording, **where)


# ---------------------------------------------------------------- the explorer


@pytest.fixture(scope="module")
def finished():
    recorder = Recorder(model := new_model(), PROBE, at=[0, 3, 6])
    return explore_training(measure_training(train(model, TASK, HOW, on_step=recorder), recorder))


def test_an_explorer_says_what_its_place_says_and_draws_that_head(finished):
    recording = finished.data.recording
    assert repr(finished) == describe_snapshot(recording, 2, 0, 0, 0)
    finished.place = {"snapshot": 1, "layer": 1, "head": 1, "round": 1, "token": 9}
    assert repr(finished) == describe_snapshot(recording, 1, 1, 1, 1, 9)
    drawn = next(axes.images[0] for axes in finished.figure.axes if axes.images)
    assert (drawn.get_array() == recording.buckets[:, 1, 1, 1]).all()
    assert finished.state == finished.place
    finished.place = {"snapshot": None, "layer": 0, "head": 0, "round": 0, "token": None}


def test_the_line_of_code_leads_back_to_the_place(finished):
    finished.place = {"snapshot": 1, "head": 1}
    training = finished.data
    again = eval(finished.code, {"explore_training": explore_training, "training": training})
    assert (again.state, repr(again)) == (finished.state, repr(finished))
    finished.place = {"snapshot": None, "head": 0}


def test_a_run_without_a_probe_is_explored_by_its_curves():
    panel = explore_training(measure_training(run_of(1, 2)))
    assert repr(panel) == panel.data.describe()
    assert panel._view.ship(panel.data)["film"] is None
    assert len(panel.figure.axes) == 3


def test_a_recording_too_large_for_a_page_is_a_sentence(monkeypatch, finished):
    monkeypatch.setattr(widgets, "MOST_LETTERS", 10)
    panel = explore_training(finished.data)
    assert panel.problem == (
        f"a page carries at most 10 letters of bucket numbers, got "
        f"{finished.data.recording.buckets.size:,}: record fewer snapshots, or a shorter probe"
    )
    with pytest.raises(ValueError, match="record fewer snapshots"):
        _ = panel.figure


def test_the_table_of_tokens_holds_the_film_and_the_pairs(finished, tmp_path, request):
    recording = finished.data.recording
    script = (
        compact_script("training_view.js")
        + """
function replay([film]) {
  const data = { film }, whole = filmOf(data, 0, 1), place = { round: 1, token: null }, at = 1;
  const kinds = kindsOf(whole.plans[at], { ...film, buckets: whole.frames[at] }, 1);
  return tokenRowsOf({ data, film: whole, place, at, kinds });
}"""
    )
    film = json.loads(json.dumps(_film(recording)))
    head, *rows = run(script, [film], tmp_path, request)
    assert head[7:] == [f"bucket after step {step}" for step in recording.steps.tolist()]
    assert [row[7:] for row in rows] == recording.buckets[:, 0, 1, 1].T.tolist()
    visible = plan_chunks(
        torch.from_numpy(recording.buckets[None, None, 1, 0, 1]), **recording.rule
    ).visible()[0, 0]
    listed = [[int(key) for key in row[4].split(", ") if key] for row in rows]
    assert listed == [keys.nonzero()[:, 0].tolist() for keys in visible[1]]
    others = [[int(key) for key in row[5].split(", ") if key] for row in rows]
    more = visible.any(0) & ~visible[1]
    assert others == [keys.nonzero()[:, 0].tolist() for keys in more]


def test_the_largest_page_stays_below_two_megabytes(tmp_path):
    most = EXPLORERS["training"].most
    panel = EXPLORERS["training"].make(most)
    assert panel.data.recording.buckets.size > 0.99 * widgets.MOST_LETTERS
    assert panel.save_html(tmp_path / "page.html").stat().st_size < 2e6
    assert "at most 1,400,000 letters" in EXPLORERS["training"].make(most + 1).problem


def test_long_curves_are_thinned_and_keep_their_last_point():
    data = collect_training([record_of(step) for step in range(1, 1002)], (), None, "finished")
    shipped = TrainingView().ship(data)
    line = shipped["curves"][0]["lines"][0]
    assert line["x"] == list(range(2, 1002, 3))
    assert len(line["y"]) == len(line["x"])
    assert "Curves show one of every 3 steps." in shipped["caption"]
    assert shipped["steps"] == 1001


def test_the_still_picture_is_valid_and_always_the_same(finished):
    svg = draw_svg(finished.data, 1, 1, 1)
    assert svg == draw_svg(finished.data, 1, 1, 1)
    root = ElementTree.fromstring(svg)
    words = " ".join(root.itertext())
    assert "layer 2, head 1, round 1" in words
    assert finished.data.in_units(finished.data.measure[-1]) in words
    cells = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("fill")]
    last = finished.data.recording.buckets[:, 1, 1, 1]
    assert len(cells) == len(np.unique(last))
    for place in ({"snapshot": 0}, {"token": 3}, {"in_reading_order": True}):
        assert draw_svg(finished.data, 1, 1, 1, **place) != svg
    at_first = draw_svg(finished.data, 1, 1, 1, snapshot=1)
    step = finished.data.recording.steps[1]
    assert f">{finished.data.loss[finished.data.steps <= step][-1]:.3g} nats<" in at_first
    assert f">{finished.data.loss[-1]:.3g} nats<" in svg
    assert draw_svg(measure_training(run_of(1))).startswith("<svg")


# ---------------------------------------------------------------- live


def test_a_watched_run_is_the_run_that_nobody_watched():
    alone = states_of(train(new_model(), TASK, HOW))
    model = new_model()
    watch = watch_training(Recorder(model, PROBE, at=range(7)))
    assert states_of(train(model, TASK, HOW, on_step=watch))[1:] == alone[1:]
    assert all(torch.equal(model.state_dict()[name], alone[0][name]) for name in alone[0])


def test_a_live_view_begins_with_a_sentence_that_never_varies_and_ends_with_the_run():
    model = new_model()
    watch = watch_training(Recorder(model, PROBE, at=[0, 2, 6]))
    before = watch.panel.problem
    assert before == watch_training().panel.problem
    assert before.startswith("A training run is shown here, live, while its cell runs.")
    run = train(model, TASK, HOW, on_step=watch)
    data = watch.panel.data
    assert data.loss.tolist() == run.losses
    assert data.evaluation_steps.tolist() == [2, 4, 6]
    assert data.measure.tolist() == [found.measure for found in run.evaluations]
    assert data.recording.steps.tolist() == [0, 2, 6]
    assert "6 steps, running" in data.describe()
    assert repr(watch.panel) == describe_snapshot(data.recording, 2, 0, 0, 0)


def test_a_live_view_needs_no_recorder():
    watch = watch_training()
    watch(after(1))
    assert watch.panel.data.recording is None
    assert repr(watch.panel).startswith("1 step, running: the loss went from 1.000 to 1.000")


def test_a_live_view_takes_a_tenth_of_the_time_at_most(monkeypatch):
    watch, shown = watch_training(), []
    monkeypatch.setattr(widgets.time, "monotonic", lambda: now[0])
    now = [100.0]

    def refresh():
        shown.append(now[0])
        now[0] += 1  # what showing takes

    monkeypatch.setattr(watch.panel, "refresh", refresh)
    for step in range(1, 9):
        now[0] += 5
        watch(after(step))
    assert shown == [105, 116, 127, 138]
    watch(after(9))  # the last of 9 is always shown
    assert len(shown) == 5


def test_a_long_probe_s_still_picture_stays_small_and_says_what_it_leaves_out():
    length, snapshots = 5000, 30
    dice = np.random.default_rng(0)
    buckets = dice.integers(8, size=(snapshots, 1, 1, 1, length))
    recording = made_up(np.full((snapshots, 1, 1, length), NOBODY), buckets, n_buckets=8)
    history = [record_of(step) for step in range(1, snapshots + 1)]
    svg = draw_svg(collect_training(history, (), recording, "finished"))
    assert len(svg) < 450_000
    assert f"one of every 13 of {length:,}" in svg
    shown = [path.get("d") for path in ElementTree.fromstring(svg).iter() if path.get("fill")]
    widths = [float(width) for d in shown if d for width in re.findall(r"h([\d.]+)v", d)]
    assert sum(widths) == pytest.approx(snapshots * (800 - 56 - 12), rel=0.01)
