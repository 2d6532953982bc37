"""Watch a run while it goes on, and look back at it: curves, and a film of a probe's buckets."""

import time
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from reformer_core.training import Evaluation, Progress, StepRecord
from reformer_viz import style
from reformer_viz.figures.training import plot_training
from reformer_viz.figures.training_svg import draw_svg
from reformer_viz.measure.recording import Recorder, Recording
from reformer_viz.measure.training import (
    Training,
    collect_training,
    describe_snapshot,
    per_mille,
)
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.letters import MOST_LETTERS, check_letters, digits_for, letters
from reformer_viz.widgets.panel import Panel
from reformer_viz.widgets.place import COLUMNS

_NOT_BEGUN = (
    "A training run is shown here, live, while its cell runs. Nothing of that is stored: show the "
    "finished run with explore_training."
)
_LEAST_WAIT, _IDLE = 0.25, 10  # seconds between two pictures, and times what one took
_MOST_POINTS = 400


def explore_training(training: Training | None, *, place: Mapping | None = None) -> Panel:
    """Show a finished run: its curves, and a film of how a probe's buckets organised themselves.

    Scrub through the snapshots, choose layer, head and round, point at a token: all of it is
    answered in the page, from the buckets that were recorded, without the kernel and without the
    model. `place` is where the reader stands: snapshot None is the last one, and layers count as
    they were recorded.
    """

    def measure() -> Training:
        if not isinstance(training, Training):
            raise ValueError(
                f"training must be what measure_training returns, got {type(training).__name__}"
            )
        _check_size(training.recording)
        return training

    call = Call(explore_training, {"training": training})
    return Panel(TrainingView(), measure, {}, place, call)


class LiveTraining:
    """Show a run while it goes on: `train(..., on_step=watch_training(recorder))`.

    The view appears when the run begins. The training thread pushes what it has recorded into it,
    as often as takes no more than a tenth of its time; nobody else reads the model. What the
    notebook stores is one sentence, always the same: the finished run is an output of its own.
    """

    def __init__(self, recorder: Recorder | None, place: Mapping | None) -> None:
        self.recorder = recorder
        self._history: list[StepRecord] = []
        self._evaluations: list[Evaluation] = []
        self._due = 0.0
        call = Call(watch_training, {"recorder": recorder})
        self.panel = Panel(TrainingView(), self._measure, {}, place, call)

    def __call__(self, progress: Progress) -> None:
        """Note a step, let the recorder look, and show both if it is time to."""
        if not self._history and get_ipython() is not None:
            display(self.panel)  # before there is anything to show, so that the same is stored
        if self.recorder is not None:
            self.recorder(progress)
        self._history.append(progress.latest)
        evaluation = progress.evaluation
        if evaluation is not None and evaluation not in self._evaluations[-1:]:
            self._evaluations.append(evaluation)
        if progress.latest.step == progress.steps or time.monotonic() >= self._due:
            self._show()

    def _show(self) -> None:
        """Push everything to the page, and wait long enough before the next time."""
        started = time.monotonic()
        self.panel.refresh()
        ended = time.monotonic()
        self._due = ended + max(_LEAST_WAIT, _IDLE * (ended - started))

    def _measure(self) -> Training:
        """Measure the run so far."""
        if not self._history:
            raise ValueError(_NOT_BEGUN)
        recording = None if self.recorder is None else self.recorder.so_far
        _check_size(recording)
        return collect_training(self._history, self._evaluations, recording, "running")


def watch_training(
    recorder: Recorder | None = None, *, place: Mapping | None = None
) -> LiveTraining:
    """Return what shows a run while its cell runs, live: give it to `train(..., on_step=...)`.

    With a `recorder`, which it calls, the probe's film grows along. `place` is where the reader
    stands at first.
    """
    return LiveTraining(recorder, place)


class TrainingView:
    """A run's curves and, where a probe was recorded, one head's buckets at one snapshot."""

    title = "A training run, and how its buckets organised themselves"
    script = "training_view.js"
    place = MappingProxyType(
        {
            "snapshot": None,
            "layer": 0,
            "head": 0,
            "round": 0,
            "token": None,
            "columns": COLUMNS[0],
        }
    )

    def ship(self, data: Training) -> dict:
        """Return the curves, thinned to what a page can show, and the buckets as letters."""
        return {
            "steps": int(data.steps[-1]),
            "words": data.describe(),
            "curves": _curves(data),
            "line": style.PALETTE[0],
            "film": None if data.recording is None else _film(data.recording),
            "caption": _caption(data),
        }

    def describe(self, data: Training, place: Mapping) -> str:
        """Say what the chosen round did at the chosen snapshot; of a run alone, how it went."""
        if data.recording is None:
            return data.describe()
        snapshot, layer, head, round, token = _nearest(data.recording, place)
        return describe_snapshot(data.recording, snapshot, layer, head, round, token)

    def draw_svg(self, data: Training, place: Mapping) -> str:
        """Draw the curves and the film as SVG."""
        in_reading_order = place["columns"] != COLUMNS[0]
        return draw_svg(data, *_marked(data, place), in_reading_order=in_reading_order)

    def plot(self, data: Training, place: Mapping) -> Figure:
        """Draw the curves and the film with Matplotlib."""
        return plot_training(data, *_marked(data, place))


def _nearest(recording: Recording, place: Mapping) -> tuple[int, int, int, int, int | None]:
    """Keep the reader's place when the data became smaller, as the page does."""
    names = ("snapshot", "layer", "head", "round", "token")
    whole = {**place, "snapshot": -1 if place["snapshot"] is None else place["snapshot"]}
    if whole["snapshot"] < 0:
        whole["snapshot"] = len(recording.steps) - 1
    return tuple(
        None if whole[name] is None else max(0, min(size - 1, whole[name]))
        for name, size in zip(names, recording.buckets.shape, strict=True)
    )


def _marked(data: Training, place: Mapping) -> tuple[int, int, int, int | None, int | None]:
    """Return layer, head and round of a place, and the snapshot and token that were chosen."""
    if data.recording is None:
        return 0, 0, 0, None, None
    snapshot, *head, token = _nearest(data.recording, place)
    return *head, None if place["snapshot"] is None else snapshot, token


def _check_size(recording: Recording | None) -> None:
    if recording is not None:
        way_out = "record fewer snapshots, or a shorter probe"
        n_buckets = recording.rule["n_buckets"]
        check_letters(recording.buckets.size, n_buckets, MOST_LETTERS, way_out)


def _curves(data: Training) -> list[dict]:
    """List the run's panels: a title, a unit, and lines of points."""
    accuracy = data.measure_name == "accuracy"
    measured = {"title": f"held-out {data.words()}", "unit": "%" if accuracy else "bits"}
    held_out = data.evaluation_steps
    return [
        {
            "title": "loss",
            "unit": "nats",
            "lines": [
                _line("training", data.steps, data.loss, style.PALETTE[0]),
                _line("held out", held_out, data.evaluation_loss, style.PALETTE[5]),
            ],
        },
        {
            **measured,
            **({"top": 1} if accuracy else {}),
            "lines": [_line("", held_out, data.measure, style.PALETTE[5])],
        },
        {
            "title": "gradient norm, before clipping",
            "unit": "",
            "log": True,
            "lines": [_line("", data.steps, data.gradient_norm, style.PALETTE[0])],
        },
    ]


def _line(name: str, x: np.ndarray, y: np.ndarray, colour: str) -> dict:
    """Return every so-manieth point of a line, counted from its last one, with four digits."""
    shown = slice((len(x) - 1) % _stride(len(x)) if len(x) else 0, None, _stride(len(x)))
    return {
        "name": name,
        "x": x[shown].tolist(),
        "y": [float(f"{value:.4g}") for value in y[shown]],
        "colour": colour,
    }


def _stride(n_points: int) -> int:
    return max(1, -(-n_points // _MOST_POINTS))


def _caption(data: Training) -> str:
    thinned = _stride(len(data.loss))
    every = f" Curves show one of every {thinned:,} steps." if thinned > 1 else ""
    if data.recording is None:
        return every.strip()
    return (
        "Every snapshot hashes the probe with the same rotations, those of evaluation: what moves "
        "has been learned. Point at a token, or select the film and use the arrow keys: left and "
        f"right for tokens, up and down for snapshots. {data.describe()}{every}"
    )


def _film(recording: Recording) -> dict:
    """Return what the page needs to replay the recording, under `plan_chunks`' names."""
    n_buckets = recording.rule["n_buckets"]
    colours = style.bucket_colours(n_buckets)
    by_head = np.moveaxis(recording.buckets, 0, 2)
    return {
        **recording.rule,
        "steps": recording.steps.tolist(),
        "layers": recording.layers,
        "labels": recording.labels,
        "sought": recording.sought[-1].tolist(),
        "mass": [
            [[per_mille(share) for share in head] for head in layer]
            for layer in np.moveaxis(recording.mass_found, 0, 2)
        ],
        "digits": digits_for(n_buckets),
        "buckets": [
            [[[letters(row, n_buckets) for row in rounds] for rounds in head] for head in layer]
            for layer in by_head
        ],
        "colours": colours,
        "text_colours": [style.text_on(colour) for colour in colours],
        "hatched": style.needs_hatching(n_buckets),
    }
