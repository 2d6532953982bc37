"""Draw quality against depth, and beside it how it was learned, or the time that length takes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from reformer_viz.figures.speed import add_by_rounds, draw_by_rounds
from reformer_viz.measure.quality import LABELS, Quality
from reformer_viz.measure.speed import SpeedReading
from reformer_viz.style import (
    INK,
    PALETTE,
    RC,
    SHADE,
    bucket_colours,
    dress,
    new_figure,
    plotly_template,
)

_LOOKS = {"lsh": (PALETTE[0], "o", "circle"), "full": (PALETTE[2], "^", "diamond")}
_SMALL = RC["font.size"] - 1


def plot_quality(quality: Quality, speed: SpeedReading | None = None) -> Figure:
    """Draw what was reached against the number of layers, and how, a line a depth.

    With `speed` the time by rounds takes the second place: both panels of the paper's Figure 5.
    """
    figure = new_figure(9.2, 4.0)
    left, right = figure.subplots(1, 2)
    for row, way in enumerate(quality.ways):
        colour, marker, _ = _LOOKS[way]
        left.plot(quality.depths, quality.last[row], color=colour, marker=marker, label=LABELS[way])
    dress(left, f"Held-out {quality.words()} by depth", "layers")
    left.xaxis.set_major_locator(FixedLocator(quality.depths))
    _legend(left)
    _in_units(left, quality)
    if speed is not None:
        draw_by_rounds(right, speed)
        return figure
    for name, y, colour in _curves(quality):
        right.plot(quality.steps, y, color=colour, marker=".", label=name)
    dress(right, f"While it learns, {LABELS[quality.ways[0]]}", "steps of training")
    right.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _legend(right)
    _in_units(right, quality)
    return figure


def plotly_quality(quality: Quality, speed: SpeedReading | None = None) -> Any:
    """Draw `plot_quality` with Plotly."""
    from plotly.subplots import make_subplots  # slow to import, and print does without

    second = f"While it learns, {LABELS[quality.ways[0]]}" if speed is None else "Time by rounds"
    titles = (f"Held-out {quality.words()} by depth", second)
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.12)
    for row, way in enumerate(quality.ways):
        colour, _, symbol = _LOOKS[way]
        looks = {"line": {"color": colour}, "marker": {"symbol": symbol, "size": 8}}
        points = {"x": quality.depths, "y": quality.last[row], "unit": "layers"}
        curve = _curve(quality, LABELS[way], **points) | looks
        figure.add_scatter(**curve, row=1, col=1)
    ticks = quality.depths.tolist()
    figure.update_xaxes(title={"text": "layers"}, tickvals=ticks, showgrid=False, row=1, col=1)
    figure.update_yaxes(**_plotly_unit(quality), row=1, col=1)
    figure.update_layout(template=plotly_template(), height=440)
    if speed is not None:
        add_by_rounds(figure, speed, row=1, col=2)
        return figure
    for name, y, colour in _curves(quality):
        curve = _curve(quality, name, x=quality.steps, y=y, unit="steps")
        figure.add_scatter(**curve | {"line": {"color": colour}}, row=1, col=2)
    figure.update_xaxes(title={"text": "steps of training"}, showgrid=False, row=1, col=2)
    figure.update_yaxes(**_plotly_unit(quality), row=1, col=2)
    return figure


def _curves(quality: Quality) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield how every depth was learned, by the first way: a name, values, a colour."""
    colours = bucket_colours(len(quality.depths))
    for depth, values, colour in zip(quality.depths, quality.measure[0], colours, strict=True):
        yield f"{depth} layer{'s' * int(depth != 1)}", values, colour


def _curve(quality: Quality, name: str, x: np.ndarray, y: np.ndarray, unit: str) -> dict:
    """Describe one line."""
    return {
        "x": x,
        "y": y,
        "name": name,
        "mode": "lines+markers",
        "customdata": [quality.in_units(value) for value in y],
        "hovertemplate": f"%{{x:,}} {unit}: %{{customdata}}",
    }


def _plotly_unit(quality: Quality) -> dict:
    """Describe the axis of the measure."""
    form = {"tickformat": ".0%"} if quality.more_is_better else {}
    return {"title": {"text": quality.words()}, **form}


def _in_units(axes: Axes, quality: Quality) -> None:
    """Write the measure in its units along y, and keep lines back that are no data."""
    axes.set_ylabel(quality.words(), fontsize=RC["font.size"])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: quality.in_units(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=SHADE, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=_SMALL, labelcolor=INK)
