"""Explore the paper's Figure 5: how long attention takes, and what depth does for quality."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ipywidgets import Widget
from matplotlib.figure import Figure

from reformer_viz.figures.quality import plot_quality, plotly_quality
from reformer_viz.figures.speed import plot_speed, plotly_speed
from reformer_viz.measure.quality import FigureFive, Quality, read_quality
from reformer_viz.measure.speed import (
    SpeedMeasurement,
    SpeedReading,
    measure_speed,
    read_speed,
)
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import NARROW, choice
from reformer_viz.widgets.panel import Panel

_LIVE = {"lengths": (256, 512, 1024, 2048), "n_hashes": (1, 2, 4), "repeats": 2}
"""What is measured where nothing is given: a few seconds on a laptop."""

FIGURE_FIVE, EVERYBODY = "quality and speed", "everybody"


def explore_speed(
    measurement: SpeedMeasurement | str | Path | None = None,
    *,
    quality: Quality | str | Path | None = None,
    n_hashes: int | None = None,
    what: str = "seconds",
    backward: bool = True,
    show: str = FIGURE_FIVE,
    place: Mapping | None = None,
) -> Panel:
    """Show time, time a token or memory against length: everybody, and ours by rounds.

    `measurement` is one of `measure_speed`, or a file that `make bench` has written; without it,
    LSH and full attention are timed here and now, for a few seconds. `n_hashes` is the number of
    rounds at which everybody is compared, by default the one that was measured at most lengths.
    With `quality`, one of `measure_quality` or a file of it, `show` is "quality and speed", both
    panels of the paper's Figure 5, or "everybody".
    """
    given = {"measurement": measurement, "quality": quality}

    @cache
    def read() -> tuple[SpeedMeasurement, Quality | None]:
        speed = measure_speed(**_LIVE) if measurement is None else measurement
        return (
            speed if isinstance(speed, SpeedMeasurement) else read_speed(speed),
            read_quality(quality) if isinstance(quality, str | Path) else quality,
        )

    def measure(*, show: str = EVERYBODY, **chosen) -> SpeedReading | FigureFive:
        measurement, quality = read()
        reading = SpeedReading(measurement=measurement, **chosen)
        if show not in (FIGURE_FIVE, EVERYBODY):
            raise ValueError(f"show must be one of {[FIGURE_FIVE, EVERYBODY]}, got {show!r}")
        both = quality is not None and show == FIGURE_FIVE
        return FigureFive(quality=quality, speed=reading) if both else reading

    try:
        controls = _controls(*read(), n_hashes, what, backward, show)
    except ValueError:  # measuring says what is wrong with the files
        controls = {}
    call = Call(explore_speed, given)
    return Panel(SpeedView(), measure, controls, place, call)


def _controls(
    measurement: SpeedMeasurement,
    quality: Quality | None,
    n_hashes: int | None,
    what: str,
    backward: bool,
    show: str,
) -> dict[str, Widget]:
    """Make the controls that the measurements have a use for."""
    rounds = measurement.n_hashes.tolist()
    if n_hashes is None:
        n_hashes = rounds[measurement.main_round()]
    controls = {
        "n_hashes": choice("rounds", n_hashes, [(str(n), n) for n in rounds], NARROW),
        "what": choice("what", what, measurement.quantities(), NARROW),
        "backward": choice(
            "pass", backward, [("forward and backward", True), ("forward", False)], NARROW
        ),
    }
    if quality is not None:
        controls["show"] = choice("show", show, (FIGURE_FIVE, EVERYBODY), NARROW)
    return controls


@dataclass(frozen=True)
class SpeedView:
    """Curves against length, and of quality against depth where it is known."""

    title = "How long attention takes"

    def describe(self, data: SpeedReading | FigureFive, place: Mapping) -> str:
        """Read out the right end of the curves."""
        return data.describe()

    def plotly(self, data: SpeedReading | FigureFive, place: Mapping) -> Any:
        """Draw the curves with Plotly."""
        if isinstance(data, FigureFive):
            return plotly_quality(data.quality, data.speed)
        return plotly_speed(data.measurement, data.n_hashes, data.what, data.backward)

    def plot(self, data: SpeedReading | FigureFive, place: Mapping) -> Figure:
        """Draw time and memory with Matplotlib."""
        if isinstance(data, FigureFive):
            return plot_quality(data.quality, data.speed)
        return plot_speed(data.measurement, data.n_hashes, data.backward)
