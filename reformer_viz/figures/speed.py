"""Draw time, and memory where it is known, against length: the paper's Figure 5."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from reformer_viz.measure.memory import in_units
from reformer_viz.measure.speed import (
    Quantity,
    SpeedMeasurement,
    SpeedReading,
    in_quantity,
    in_rounds,
)
from reformer_viz.style import (
    INK,
    MUTED,
    PALETTE,
    PAPER,
    RC,
    SHADE,
    dress,
    new_figure,
    plotly_template,
)

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


def plot_speed(
    measurement: SpeedMeasurement, n_hashes: Integral | None = None, backward: bool = True
) -> Figure:
    """Draw the time of a pass against length, on logarithmic axes.

    First everybody at one number of rounds, by default the one measured at most lengths, above the
    dashed line that no implementation of whole tiles undercuts; then ours for every number of
    rounds, beside full attention; then, where it was measured, everybody's memory. A straight line
    is a power of the length: LSH attention's grows by one decade a decade, full attention's by two.
    """
    place = measurement.main_round() if n_hashes is None else measurement.round_of(n_hashes)
    timings = measurement.step if backward else measurement.forward
    knows_memory = bool(np.isfinite(timings.extra_bytes).any())
    figure = new_figure(10.2 if knows_memory else 7.4, 4.2)
    panels = figure.subplots(1, 3 if knows_memory else 2)
    panels[0].sharey(panels[1])
    _draw_everybody(panels[0], measurement, timings.fastest, place)
    _draw_rounds(panels[1], measurement, timings.fastest, place)
    if knows_memory:
        _draw_memory(panels[2], measurement, timings.extra_bytes, place)
    passed = "Forward and backward" if backward else "Forward"
    rounds = in_rounds(measurement.n_hashes[place])
    for axes, title in zip(
        panels,
        (f"{passed}, {rounds}", f"{passed}, by rounds", f"Extra memory, {rounds}"),
        strict=False,
    ):
        dress(axes, title, "tokens")
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


_PLOTLY = {
    "ours": {"marker": {"symbol": "circle", "size": 8}, "line": {"width": 3}},
    "peer": {"marker": {"symbol": "square", "size": 7}, "line": {"width": 1.6}},
    "full": {"marker": {"symbol": "diamond", "size": 9}, "line": {"width": 1.6}},
    "bound": {"marker": {"symbol": "circle", "size": 1}, "line": {"width": 1.6, "dash": "dash"}},
}
_QUANTITIES = {
    "seconds": "time",
    "seconds a token": "time a token",
    "bytes": "extra memory",
}


def plotly_speed(
    measurement: SpeedMeasurement,
    n_hashes: Integral | None = None,
    what: Quantity | str = "seconds",
    backward: bool = True,
):
    """Draw `plot_speed` with Plotly: everybody at a number of rounds, then ours by rounds.

    As time, memory, or time a token, which is flat where time grows with the length: the paper's
    own picture, which holds the number of tokens and varies how many sequences they are.
    """
    from plotly.subplots import make_subplots  # slow to import, and print does without

    place = measurement.main_round() if n_hashes is None else measurement.round_of(n_hashes)
    passed = "forward and backward" if backward else "forward"
    titles = [f"Everybody, {in_rounds(measurement.n_hashes[place])}", "Ours, by rounds"]
    figure = make_subplots(1, 2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.05)
    values = measurement.values(what, backward)
    for curve in _everybody(measurement, values, place, what):
        figure.add_scatter(**curve, row=1, col=1)
    for curve in _by_rounds(measurement, values, place, what):
        figure.add_scatter(**curve, showlegend=False, row=1, col=2)
    _scale_plotly(figure, measurement, values, what, row=1)
    figure.update_yaxes(title={"text": f"{_QUANTITIES[what]}, {passed}"}, col=1)
    figure.update_layout(template=plotly_template(), height=460)
    return figure


def add_by_rounds(figure: Any, reading: SpeedReading, row: int, col: int) -> None:
    """Draw ours for every number of rounds, beside full attention, into a place of a figure."""
    measurement, what = reading.measurement, reading.what
    place = measurement.round_of(reading.n_hashes)
    values = measurement.values(what, reading.backward)
    for curve in _by_rounds(measurement, values, place, what):
        figure.add_scatter(**curve, showlegend=False, row=row, col=col)
    _scale_plotly(figure, measurement, values, what, row=row, col=col)
    passed = "forward and backward" if reading.backward else "forward"
    title = f"{_QUANTITIES[what]}, {passed}"
    figure.update_yaxes(title={"text": title}, row=row, col=col)


def draw_by_rounds(axes: Axes, reading: SpeedReading) -> None:
    """Draw the time of ours for every number of rounds, beside full attention, on its own axes."""
    measurement = reading.measurement
    timings = measurement.step if reading.backward else measurement.forward
    place = measurement.round_of(reading.n_hashes)
    _draw_rounds(axes, measurement, timings.fastest, place)
    passed = "Forward and backward" if reading.backward else "Forward"
    dress(axes, f"{passed}, by rounds", "tokens")
    _scale(axes, measurement.lengths)
    _label_seconds(axes)


def _scale_plotly(
    figure: Any, measurement: SpeedMeasurement, values: np.ndarray, what: Quantity | str, **at: int
) -> None:
    """Give axes their logarithmic scales, with every length along x."""
    lengths = measurement.lengths
    figure.update_xaxes(
        type="log",
        title={"text": "tokens"},
        tickvals=lengths.tolist(),
        ticktext=[_tokens(length) for length in lengths],
        range=np.log10([lengths.min() / 1.3, lengths.max() * 3]).tolist(),
        showgrid=False,
        **at,
    )
    figure.update_yaxes(type="log", **_plotly_ticks(values[np.isfinite(values)], what), **at)


def _everybody(
    measurement: SpeedMeasurement, values: np.ndarray, place: int, what: Quantity | str
) -> Iterator[dict]:
    """Describe every contestant's line; of the bound only the time is of interest."""
    for row, colour in enumerate(_colours_of(measurement)):
        if what != "bytes" or measurement.contestants[row].kind != "bound":
            yield _curve(measurement, row, values[row, place], colour, what)


def _by_rounds(
    measurement: SpeedMeasurement, values: np.ndarray, place: int, what: Quantity | str
) -> Iterator[dict]:
    """Describe full attention's line, and ours for every number of rounds, named at its end."""
    for row in measurement.rows("full"):
        yield _curve(measurement, row, values[row, place], _colours_of(measurement)[row], what)
    for row in measurement.rows("ours")[:1]:
        for at, n_hashes in enumerate(measurement.n_hashes):
            curve = _curve(measurement, row, values[row, at], _COLOURS["ours"][0], what)
            yield {**curve, "name": in_rounds(n_hashes), **_named_end(values[row], at, n_hashes)}


def _colours_of(measurement: SpeedMeasurement) -> list[str]:
    """Return everybody's colour: the next of their kind."""
    drawn = dict.fromkeys(_COLOURS, 0)
    colours = []
    for contestant in measurement.contestants:
        of_kind = _COLOURS[contestant.kind]
        colours.append(of_kind[drawn[contestant.kind] % len(of_kind)])
        drawn[contestant.kind] += 1
    return colours


def _curve(
    measurement: SpeedMeasurement, row: int, values: np.ndarray, colour: str, what: Quantity | str
) -> dict:
    """Describe one line through what was measured."""
    contestant = measurement.contestants[row]
    there, looks = np.isfinite(values), _PLOTLY[contestant.kind]
    # The bound is in its text's colour in print; a page may be dark.
    colour = MUTED if colour == INK else colour
    return {
        "x": measurement.lengths[there],
        "y": values[there],
        "name": contestant.label,
        "mode": "lines+markers",
        "marker": looks["marker"] | {"color": colour},
        "line": looks["line"] | {"color": colour},
        "customdata": [in_quantity(value, what) for value in values[there]],
        "hovertemplate": "%{x:,} tokens: %{customdata}",
    }


def _named_end(of_rounds: np.ndarray, at: int, n_hashes: Integral) -> dict:
    """Write a number of rounds beside its line's last point, clear of its neighbours' names."""
    there = np.flatnonzero(np.isfinite(of_rounds[at]))
    if not there.size:
        return {}
    ends = [np.flatnonzero(np.isfinite(values))[-1:].tolist() for values in of_rounds]
    beside = [of_rounds[k, end[0]] for k, end in enumerate(ends) if end == there[-1:].tolist()]
    mine, is_alone = of_rounds[at, there[-1]], len(beside) == 1
    middle = is_alone or min(beside) < mine < max(beside)
    side = "middle" if middle else "top" if mine == max(beside) else "bottom"
    return {
        "mode": "lines+markers+text",
        "text": [""] * (len(there) - 1) + [in_rounds(n_hashes)],
        "textposition": f"{side} right",
    }


def _plotly_ticks(values: np.ndarray, what: Quantity | str) -> dict:
    """Choose ticks for a logarithmic axis: decades, or fourfold steps of bytes."""
    if not values.size:
        return {}
    base = 4 if what == "bytes" else 10
    low, high = (np.log(ends) / np.log(base) for ends in (values.min(), values.max()))
    steps = (1, 2, 5) if base == 10 and high - low < 2 else (1,)
    ticks = [m * float(base) ** k for k in range(int(low) - 1, int(high) + 2) for m in steps]
    inside = [tick for tick in ticks if values.min() / 1.5 <= tick <= values.max() * 1.5]
    return {"tickvals": inside, "ticktext": [_tick(tick, what) for tick in inside]}


def _tick(value: Real, what: Quantity | str) -> str:
    if what == "bytes":
        return in_units(value)
    if value >= 0.999:
        return f"{value:,.3g} s"
    return f"{value * 1e3:,.3g} ms" if value >= 0.999e-3 else f"{value * 1e6:,.3g} µs"


def _draw_everybody(
    axes: Axes, measurement: SpeedMeasurement, values: np.ndarray, place: int, but: str = ""
) -> None:
    """Draw a line for every contestant but those of a kind."""
    axes.set_yscale("log", base=4 if but else 10)
    colours = _colours_of(measurement)
    for row, contestant in enumerate(measurement.contestants):
        if contestant.kind != but:
            _draw(
                axes,
                measurement,
                values[row, place],
                colours[row],
                contestant.kind,
                contestant.label,
            )


def _draw_memory(axes: Axes, measurement: SpeedMeasurement, values: np.ndarray, place: int) -> None:
    """Draw every contestant's memory but that of the bound, which is none of interest."""
    _draw_everybody(axes, measurement, values, place, but="bound")
    axes.yaxis.set_major_locator(LogLocator(base=4, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_units(value)))


def _draw_rounds(axes: Axes, measurement: SpeedMeasurement, values: np.ndarray, place: int) -> None:
    """Draw ours for every number of rounds, each named at its end, and full attention."""
    axes.set_yscale("log")
    ours, full = measurement.rows("ours")[:1], measurement.rows("full")[:1]
    for row in full:
        label = measurement.contestants[row].label
        _draw(axes, measurement, values[row, place], _COLOURS["full"][0], "full", label)
    for row in ours:
        for at, n_hashes in enumerate(measurement.n_hashes):
            times, label = values[row, at], in_rounds(n_hashes)
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
