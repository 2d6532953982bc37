"""Explore how long attention takes: everybody's curves against length, the paper's Figure 5."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from reformer_viz.figures.speed import plot_speed, plotly_speed
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


def explore_speed(
    measurement: SpeedMeasurement | str | Path | None = None,
    *,
    n_hashes: int | None = None,
    what: str = "seconds",
    backward: bool = True,
    place: Mapping | None = None,
) -> Panel:
    """Show time, time a token or memory against length: everybody, and ours by rounds.

    `measurement` is one of `measure_speed`, or a file that `make bench` has written; without it,
    LSH and full attention are timed here and now, for a few seconds. `n_hashes` is the number of
    rounds at which everybody is compared, by default the one that was measured at most lengths.
    """
    given = measurement
    if measurement is None:
        measurement = measure_speed(**_LIVE)
    elif not isinstance(measurement, SpeedMeasurement):
        measurement = read_speed(measurement)

    def measure(**chosen) -> SpeedReading:
        return SpeedReading(measurement=measurement, **chosen)

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
    call = Call(explore_speed, {"measurement": given})
    return Panel(SpeedView(), measure, controls, dict(place or {}), call)


@dataclass(frozen=True)
class SpeedView:
    """Curves against length."""

    title = "How long attention takes"

    def describe(self, data: SpeedReading, place: Mapping) -> str:
        """Read out the right end of the curves."""
        return data.describe()

    def plotly(self, data: SpeedReading, place: Mapping) -> Any:
        """Draw the curves with Plotly."""
        return plotly_speed(data.measurement, data.n_hashes, data.what, data.backward)

    def plot(self, data: SpeedReading, place: Mapping) -> Figure:
        """Draw time and memory with Matplotlib."""
        return plot_speed(data.measurement, data.n_hashes, data.backward)
