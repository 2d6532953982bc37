"""Draw time, and memory where it is known, against length: the paper's Figure 5."""

from numbers import Real

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from reformer_viz.measure.memory import in_units
from reformer_viz.measure.speed import SpeedMeasurement, in_rounds
from reformer_viz.style import INK, MUTED, PALETTE, PAPER, RC, SHADE, dress, new_figure

_COLOURS = {
    "ours": (PALETTE[0], PALETTE[4]),
    "peer": (PALETTE[5], PALETTE[1], PALETTE[3], PALETTE[7]),
    "full": (PALETTE[2],),
    "bound": (INK,),
}
_LOOKS = {
    "ours": {"marker": "o", "linewidth": 2.2, "zorder": 4},
    "peer": {"marker": "s", "linewidth": 1.2, "zorder": 3},
    "full": {"marker": "^", "linewidth": 1.2, "zorder": 3},
    "bound": {"linestyle": "--", "linewidth": 1.2, "zorder": 2},
}
_MANY_DECADES = 1000
_SMALL = RC["font.size"] - 1


def plot_speed(measurement: SpeedMeasurement) -> Figure:
    """Draw the time of a forward and backward pass against length, on logarithmic axes.

    First everybody at one number of rounds, above the dashed line that no implementation of whole
    tiles undercuts; then ours for every number of rounds, beside full attention; then, where it
    was measured, everybody's memory. A straight line is a power of the length: LSH attention's
    grows by one decade a decade, full attention's by two.
    """
    knows_memory = bool(np.isfinite(measurement.step.extra_bytes).any())
    figure = new_figure(10.2 if knows_memory else 7.4, 4.2)
    panels = figure.subplots(1, 3 if knows_memory else 2)
    panels[0].sharey(panels[1])
    _draw_everybody(panels[0], measurement)
    _draw_rounds(panels[1], measurement)
    if knows_memory:
        _draw_memory(panels[2], measurement)
    for axes in panels:
        _scale(axes, measurement.lengths)
    _label_seconds(panels[1])
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(panels),
        frameon=False,
        fontsize=_SMALL,
        labelcolor=INK,
    )
    return figure


def _draw_everybody(axes: Axes, measurement: SpeedMeasurement) -> None:
    """Draw every contestant's time at the main number of rounds."""
    _draw_all(axes, measurement, measurement.step.fastest)
    n_hashes = measurement.n_hashes[measurement.main_round()]
    dress(axes, f"Forward and backward, {in_rounds(n_hashes)}", "tokens")


def _draw_memory(axes: Axes, measurement: SpeedMeasurement) -> None:
    """Draw every contestant's memory but that of the bound, which is none of interest."""
    _draw_all(axes, measurement, measurement.step.extra_bytes, but="bound")
    axes.yaxis.set_major_locator(LogLocator(base=4, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_units(value)))
    n_hashes = measurement.n_hashes[measurement.main_round()]
    dress(axes, f"Extra memory, {in_rounds(n_hashes)}", "tokens")


def _draw_all(
    axes: Axes, measurement: SpeedMeasurement, values: np.ndarray, but: str | None = None
) -> None:
    """Draw a line for every contestant at the main number of rounds."""
    axes.set_yscale("log", base=4 if but else 10)
    place = measurement.main_round()
    drawn = dict.fromkeys(_COLOURS, 0)
    for row, contestant in enumerate(measurement.contestants):
        kind = contestant.kind
        colours = _COLOURS[kind]
        colour = colours[drawn[kind] % len(colours)]
        drawn[kind] += 1
        if kind != but:
            _draw(axes, measurement, values[row, place], colour, kind, contestant.label)


def _draw_rounds(axes: Axes, measurement: SpeedMeasurement) -> None:
    """Draw ours for every number of rounds, each named at its end, and full attention."""
    axes.set_yscale("log")
    fastest = measurement.step.fastest
    ours, full = measurement.rows("ours")[:1], measurement.rows("full")[:1]
    for row in full:
        with_full = fastest[row, measurement.main_round()]
        label = measurement.contestants[row].label
        _draw(axes, measurement, with_full, _COLOURS["full"][0], "full", label)
    for row in ours:
        for place, n_hashes in enumerate(measurement.n_hashes):
            times, label = fastest[row, place], in_rounds(n_hashes)
            _draw(axes, measurement, times, _COLOURS["ours"][0], "ours", label)
            _name_end(axes, measurement.lengths, times, label)
    names = [measurement.contestants[row].label for row in ours + full[:1]]
    axes.legend(
        handles=[axes.lines[-1]] * len(ours) + axes.lines[: len(full)],
        labels=names,
        loc="upper left",
        frameon=False,
        fontsize=_SMALL,
        labelcolor=INK,
    )
    axes.margins(x=0.12)
    dress(axes, "Forward and backward, by rounds", "tokens")


def _name_end(axes: Axes, lengths: np.ndarray, values: np.ndarray, name: str) -> None:
    """Write a name beside the last point of a line, if it has one."""
    for place in np.flatnonzero(np.isfinite(values))[-1:]:
        axes.annotate(
            name,
            (lengths[place], values[place]),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=_SMALL,
            color=INK,
            zorder=5,
            path_effects=[withStroke(linewidth=4, foreground=PAPER)],  # lines pass behind it
        )


def _draw(
    axes: Axes,
    measurement: SpeedMeasurement,
    values: np.ndarray,
    colour: object,
    kind: str,
    label: str,
) -> None:
    """Draw one line through what was measured."""
    there = np.isfinite(values)
    axes.plot(
        measurement.lengths[there],
        values[there],
        color=colour,
        markersize=4,
        label=label,
        **_LOOKS[kind],
    )


def _scale(axes: Axes, lengths: np.ndarray) -> None:
    """Give axes a logarithmic x with every length on it, and a quiet grid."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tokens(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=SHADE, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=MUTED)


def _label_seconds(axes: Axes) -> None:
    """Write times in milliseconds and seconds, between decades too where there are few of them."""
    low, high = axes.get_ylim()
    subs = (1.0,) if high > _MANY_DECADES * low else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=20))
    axes.yaxis.set_major_formatter(
        FuncFormatter(
            lambda value, _: f"{value * 1000:,.3g} ms" if value < 0.999 else f"{value:,.3g} s"
        )
    )


def _tokens(length: Real) -> str:
    """Write a length in as few characters as a tick has room for."""
    return f"{length / 1024:.0f}k" if length >= 1024 and length % 1024 == 0 else f"{length:.0f}"
