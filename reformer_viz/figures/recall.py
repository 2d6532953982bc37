"""Draw what more rounds of hashing find of full attention, and how far the output stays off."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from reformer_viz.measure.recall import Recall
from reformer_viz.style import (
    INK,
    MUTED,
    PALETTE,
    PAPER,
    RC,
    SHADE,
    bucket_colours,
    dress,
    new_figure,
    plotly_template,
)

_SMALL = RC["font.size"] - 1
_MOST_TICKS = 8
_FAINT = 0.18  # a band's opacity
_ROW_HEIGHT = 240  # of Plotly's picture, in pixels

# What each panel shows: quantities, and of each how it is drawn and what it is called.
_FOUND = {
    "found": ("found: in its window too", {"linestyle": "-", "linewidth": 2.0}),
    "same_bucket": (
        "in the query’s bucket",
        {"linestyle": "", "marker": "o", "markerfacecolor": PAPER, "markersize": 4},
    ),
    "expected": (
        "theory: 1 − (1 − p)ⁿ",
        {"linestyle": (0, (4, 3)), "linewidth": 0.9, "color": INK, "zorder": 5},
    ),
}
_MASS = {"mass_found": ("weight found", {"linestyle": "-", "linewidth": 2.0})}
_ERROR = {
    "error_of_repeats": (
        "a pair counts as often as seen",
        {"linestyle": ":", "linewidth": 1.4, "marker": "s", "markersize": 3.5},
    ),
    "error": (
        "a pair counts once",
        {"linestyle": "-", "linewidth": 2.0, "marker": "o", "markersize": 3.5},
    ),
}
_WITH_BAND = ("found", "mass_found", "error")
_THEORY = PALETTE[7]
_IN_PLOTLY = {
    "expected": {"mode": "lines", "line": {"dash": "dash", "width": 1.5}},
    "same_bucket": {"mode": "markers", "marker": {"symbol": "circle-open", "size": 8}},
    "found": {"mode": "lines+markers", "line": {"width": 2.5}},
    "mass_found": {"mode": "lines+markers", "line": {"width": 2.5}},
    "error": {"mode": "lines+markers", "line": {"width": 2.5}},
    "error_of_repeats": {
        "mode": "lines+markers",
        "line": {"dash": "dot", "width": 2},
        "marker": {"symbol": "square"},
    },
}


def plot_recall(*recalls: Recall) -> Figure:
    """Draw what is found against the number of rounds, one row of panels for each recall.

    Left, each query's top keys: the dots are hashed to the query's bucket in at least one round,
    theory's dashed line runs through them, and the solid line is what remains of them after the
    window. Then the weight that those rounds show; then, where values were measured, how far the
    output is off. A band is all heads and seeds.
    """
    _check(recalls)
    columns = max(len(_panels(recall)) for recall in recalls)
    figure = new_figure(3.3 * columns + 0.2, 2.7 * len(recalls) + 0.6)
    rows = figure.subplots(len(recalls), columns, squeeze=False, sharey="col")
    for recall, row in zip(recalls, rows, strict=True):
        for axes in row[len(_panels(recall)) :]:
            axes.set_axis_off()
        for axes, (title, quantities) in zip(row, _panels(recall), strict=False):
            _draw_panel(axes, recall, quantities)
            dress(axes, title, "rounds of hashing")
            _explain(axes, quantities)
        _name_row(row[0], recall)
    _name_settings(figure, recalls)
    return figure


def plotly_recall(*recalls: Recall):
    """Draw the same with Plotly: point at a line to read it.

    Raises ImportError where Plotly is not installed.
    """
    import plotly.graph_objects as go  # slow to import, and print does without

    _check(recalls)
    columns = max(len(_panels(recall)) for recall in recalls)
    axes, titles, traces = {}, [], []
    for row, recall in enumerate(recalls):
        for column, (title, quantities) in enumerate(_panels(recall)):
            place = _Place(row=row, column=column, rows=len(recalls), columns=columns)
            axes |= _plotly_axes(place, recall, quantities)
            named = column == 0 and recall.label
            title = _in_two_lines(f"<b>{recall.label}</b>: {title.lower()}" if named else title)
            titles.append(place.title(title))
            traces += _traces(recall, quantities, place.number)
    height = _ROW_HEIGHT * len(recalls)
    # All at once: Plotly checks every change of a figure anew.
    return go.Figure(
        data=[*traces, *_legend(recalls)],
        layout={
            **axes,
            "annotations": titles,
            "template": plotly_template(),
            "height": height + 150,
            "margin": {"l": 50, "r": 10, "t": 50, "b": 110},
            "legend": {"orientation": "h", "y": -70 / height, "yanchor": "top"},
            "hovermode": "closest",
        },
    )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a panel stands in Plotly's picture, counted from its upper left corner."""

    row: int
    column: int
    rows: int
    columns: int

    @property
    def number(self) -> str:
        """What Plotly writes behind the x and y of its axes: nothing for the first."""
        number = self.row * self.columns + self.column + 1
        return "" if number == 1 else str(number)

    @property
    def x(self) -> tuple[float, float]:
        """Where it begins and ends, as shares of the width."""
        gap = 0.07
        width = (1 - gap * (self.columns - 1)) / self.columns
        return self.column * (width + gap), self.column * (width + gap) + width

    @property
    def y(self) -> tuple[float, float]:
        """Where it begins and ends, as shares of the height, counted from below."""
        gap = 0.36 / self.rows
        height = (1 - gap * (self.rows - 1)) / self.rows
        top = 1 - self.row * (height + gap)
        return max(0.0, top - height), top

    def title(self, text: str) -> dict:
        """Write above it."""
        return {
            "text": text,
            "x": sum(self.x) / 2,
            "y": self.y[1],
            "xref": "paper",
            "yref": "paper",
            "xanchor": "center",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 13},
        }


def _in_two_lines(title: str) -> str:
    """Break a title near its middle: in a narrow page it would run into its neighbour."""
    middle, blanks = len(title) / 2, [at for at, letter in enumerate(title) if letter == " "]
    at = min(blanks, key=lambda blank: abs(blank - middle))
    return f"{title[:at]}<br>{title[at + 1 :]}"


def _plotly_axes(place: _Place, recall: Recall, quantities: dict) -> dict:
    """Describe the axes of a panel: rounds below, doubling where they are many, and per cent."""
    short = _is_short(recall)
    return {
        f"xaxis{place.number}": {
            "domain": place.x,
            "anchor": f"y{place.number}",
            "title": {"text": "rounds of hashing", "font": {"size": 12}},
            "type": "linear" if short else "log",
            "tickvals": [int(n) for n in recall.n_hashes if short or n & (n - 1) == 0],
        },
        f"yaxis{place.number}": {
            "domain": place.y,
            "anchor": f"x{place.number}",
            "tickformat": ".0%",
            "rangemode": "tozero",
            "range": None if quantities is _ERROR else [0, 1.03],
        },
    }


def _check(recalls: tuple[Recall, ...]) -> None:
    if not recalls:
        raise ValueError("give at least one recall to draw, got none: see measure_recall")


def _panels(recall: Recall) -> list[tuple[str, dict]]:
    """List the panels of a recall: title and quantities."""
    panels = [
        (f"Top {recall.top_k:,} keys of full attention", _FOUND),
        ("Full attention’s weight, found", _MASS),
    ]
    if recall.error is not None:
        panels.append(("Output: distance from full attention’s", _ERROR))
    return panels


def _draw_panel(axes: Axes, recall: Recall, quantities: dict) -> None:
    """Draw every quantity of every setting."""
    colours = bucket_colours(len(recall.settings))
    for setting, colour in enumerate(colours):
        for name, (_, looks) in quantities.items():
            curve = recall.curve(name, setting)
            axes.plot(recall.n_hashes, curve.mean, label=name, **{"color": colour, **looks})
            if name in _WITH_BAND:
                axes.fill_between(
                    recall.n_hashes, curve.low, curve.high, color=colour, alpha=_FAINT, linewidth=0
                )
    _scale(axes, recall)
    if "error" not in quantities:
        axes.set_ylim(0, 1.02)
    axes.set_ylim(bottom=0)


def _scale(axes: Axes, recall: Recall) -> None:
    """Put the numbers of rounds below, doubling where they are many, and per cent beside."""
    if not _is_short(recall):
        axes.set_xscale("log", base=2)
    ticks = [n for n in recall.n_hashes if _is_short(recall) or n & (n - 1) == 0]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.grid(axis="y", color=SHADE, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _is_short(recall: Recall) -> bool:
    """Say whether every number of rounds has room on an axis."""
    return bool(recall.n_hashes[-1] <= _MOST_TICKS)


def _name_row(axes: Axes, recall: Recall) -> None:
    """Write beside a row what was hashed."""
    if recall.label:
        axes.set_ylabel(recall.label, fontsize=RC["axes.titlesize"], color=INK, fontweight="bold")


def _explain(axes: Axes, quantities: dict) -> None:
    """Say what the line styles mean, where there are several."""
    if len(quantities) > 1:
        styles = [{"color": MUTED, **looks, "label": text} for text, looks in quantities.values()]
        handles = [Line2D([], [], **style) for style in styles]
        axes.legend(handles=handles, frameon=False, fontsize=_SMALL, labelcolor=INK)


def _name_settings(figure: Figure, recalls: tuple[Recall, ...]) -> None:
    """Say under the picture what the colours mean."""
    most = max(recalls, key=lambda recall: len(recall.settings))
    handles = [
        Line2D([], [], color=colour, linewidth=5, label=most.name(setting))
        for setting, colour in enumerate(bucket_colours(len(most.settings)))
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=_SMALL,
        labelcolor=INK,
    )


def _traces(recall: Recall, quantities: dict, axes: str) -> Iterator[dict]:
    """Describe the bands and lines of one panel; those of a setting come and go together."""
    for setting, colour in enumerate(bucket_colours(len(recall.settings))):
        for name, (text, _) in quantities.items():
            where = {
                "xaxis": f"x{axes}",
                "yaxis": f"y{axes}",
                "legendgroup": str(setting),
                "showlegend": False,
            }
            if name in _WITH_BAND:
                yield {**where, **_band(recall, name, setting, colour)}
            yield {**where, **_line(recall, name, setting, colour, text)}


def _line(recall: Recall, name: str, setting: int, colour: str, text: str) -> dict:
    """Describe the line of a mean, and what it says where one points."""
    curve = recall.curve(name, setting)
    return {
        **_plotly_looks(name, {"color": _THEORY if name == "expected" else colour}),
        "x": recall.n_hashes,
        "y": curve.mean,
        "name": f"{text}, {recall.name(setting)}",
        "customdata": np.stack([curve.low, curve.high], axis=1),
        "hovertemplate": (
            f"{recall.name(setting)}<br>rounds: %{{x}}, {text}: <b>%{{y:.1%}}</b>"
            "<br>heads and seeds: %{customdata[0]:.1%} to %{customdata[1]:.1%}<extra></extra>"
        ),
    }


def _band(recall: Recall, name: str, setting: int, colour: str) -> dict:
    """Describe the area between the lowest and the highest head and seed."""
    curve = recall.curve(name, setting)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter",
        "x": np.concatenate([recall.n_hashes, recall.n_hashes[::-1]]),
        "y": np.concatenate([curve.high, curve.low[::-1]]),
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},{_FAINT})",
        "hoverinfo": "skip",
    }


def _legend(recalls: tuple[Recall, ...]) -> Iterator[dict]:
    """Describe the legend's entries: a colour for each setting, a grey line for each style."""
    most = max(recalls, key=lambda recall: len(recall.settings))
    empty = {"type": "scatter", "x": [None], "y": [None]}
    for setting, colour in enumerate(bucket_colours(len(most.settings))):
        line = {"mode": "lines", "line": {"color": colour, "width": 6}}
        yield {**empty, **line, "name": most.name(setting), "legendgroup": str(setting)}
    richest = max(recalls, key=lambda recall: len(_panels(recall)))
    for _, quantities in _panels(richest):
        for name, (text, _) in quantities.items() if len(quantities) > 1 else ():
            looks = _plotly_looks(name, {"color": _THEORY})
            yield {**empty, **looks, "name": text, "legendgroup": name}


def _plotly_looks(name: str, colour: dict) -> dict:
    """Describe how a quantity is drawn, in a colour."""
    looks = _IN_PLOTLY[name]
    return {
        "type": "scatter",
        "mode": looks["mode"],
        "line": {**looks.get("line", {}), **colour},
        "marker": {**looks.get("marker", {}), **colour},
    }
