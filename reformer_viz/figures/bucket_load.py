"""Draw how evenly buckets fill, which are the longest, and the pairs that they lose."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from reformer_viz.figures.still_axes import decades
from reformer_viz.measure.bucket_load import BucketLoad
from reformer_viz.style import INK, MUTED, PALETTE, RC, SHADE, dress, new_figure, plotly_template

_SEEN, _LOST = PALETTE[0], PALETTE[5]
_LOST_NAME = "lost to the window"
_MOST_BARS = 40
_SMALL = RC["font.size"] - 1
_UNDER_ONE = 0.7  # where a logarithmic scale begins, so that a bar of one bucket shows
_PANELS = {
    "xaxis": {"domain": [0, 0.2], "title": {"text": "tokens in a bucket"}},
    "xaxis2": {"domain": [0.5, 0.74], "title": {"text": "pairs in one bucket"}, "nticks": 4},
    "yaxis2": {"anchor": "x2", "tickfont": {"size": 10}},
    "xaxis3": {"domain": [0.82, 1], "title": {"text": "tokens in a bucket"}},
    "yaxis3": {"anchor": "x3", "title": {"text": "lost, %"}, "range": [-2, 102]},
}


def plot_bucket_load(load: BucketLoad, n_longest: int = 12) -> Figure:
    """Draw a histogram of the buckets' sizes, the longest buckets, and the pairs that each loses.

    A pair is lost when the two tokens of one bucket stand too far apart for the window. Left of the
    dotted line no bucket loses any. Where one bar of the histogram holds most of the buckets, as
    when they are empty, its scale is logarithmic.
    """
    _check(n_longest)
    figure = new_figure(10.2, 3.9)
    sizes, longest, lost = figure.subplots(1, 3, width_ratios=[1.0, 1.15, 1.0])
    _plot_sizes(sizes, load)
    _plot_longest(longest, load, n_longest)
    _plot_lost(lost, load)
    for axes in (sizes, longest, lost):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return figure


def _plot_sizes(axes: Axes, load: BucketLoad) -> None:
    """Draw how many buckets have how many tokens."""
    edges = _edges(load)
    axes.hist(load.sizes.ravel(), edges, color=_SEEN, edgecolor="white", linewidth=0.5)
    low, high, name = _scale(_histogram(load, edges))
    if low:
        axes.set_yscale("log")
        axes.set_yticks(_ticks(low, high))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.axvline(load.even, color=INK, linewidth=1.2, linestyle="--", label="shared evenly")
    _mark_safe(axes, load)
    axes.legend(frameon=False, fontsize=_SMALL, labelcolor=INK, loc="upper right")
    dress(axes, "How many tokens a bucket holds", "tokens in a bucket", name)


def _plot_longest(axes: Axes, load: BucketLoad, n_longest: int) -> None:
    """Draw the longest buckets' pairs, seen and lost."""
    found = load.longest(n_longest)
    pairs, lost = _of(load, found)
    rows = np.arange(len(found))
    axes.barh(rows, pairs - lost, color=_SEEN, label="seen")
    axes.barh(rows, lost, left=pairs - lost, color=_LOST, label=_LOST_NAME)
    axes.set_yticks(rows, _names(load, found))
    axes.invert_yaxis()
    below = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, -0.17),
        "ncols": 2,
    }  # bars fill the axes
    axes.legend(frameon=False, fontsize=_SMALL, labelcolor=INK, **below)
    dress(axes, "The longest buckets", "pairs in one bucket")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.get_major_locator().set_params(nbins=4)


def _plot_lost(axes: Axes, load: BucketLoad) -> None:
    """Draw for every bucket the share of its pairs that is lost, against its size."""
    some = load.pairs > 0
    shares = 100 * load.lost[some] / load.pairs[some]
    axes.scatter(load.sizes[some], shares, s=16, color=_LOST, alpha=0.6, linewidths=0)
    _mark_safe(axes, load)
    axes.grid(axis="y", color=SHADE, linewidth=0.8)
    axes.set_ylim(-2, 102)
    axes.set_xlim(left=0)
    dress(
        axes,
        f"{_loss(load)} of pairs lost",
        "tokens in a bucket",
        "of its pairs lost, %",
    )


def plotly_bucket_load(load: BucketLoad, n_longest: int = 12):
    """Draw `plot_bucket_load` with Plotly.

    Raises ImportError where Plotly is not installed.
    """
    import plotly.graph_objects as go  # slow to import

    _check(n_longest)
    edges = _edges(load)
    counts = _histogram(load, edges)
    found = load.longest(n_longest)
    pairs, lost = _of(load, found)
    names = _names(load, found)
    some = load.pairs > 0
    shares = 100 * load.lost[some] / load.pairs[some]
    figure = go.Figure()
    figure.add_bar(
        x=(edges[1:] + edges[:-1]) / 2,
        y=counts,
        width=np.diff(edges) * 0.92,
        marker={"color": _SEEN},
        name="buckets",
        showlegend=False,
        hovertemplate="%{y:,} buckets hold about %{x:,.0f} tokens<extra></extra>",
    )
    for name, values, colour in (("seen", pairs - lost, _SEEN), (_LOST_NAME, lost, _LOST)):
        bars = {"x": values, "y": names, "orientation": "h", "marker": {"color": colour}}
        hover = "%{y}<br>%{x:,} pairs " + name + "<extra></extra>"
        figure.add_bar(**bars, name=name, xaxis="x2", yaxis="y2", hovertemplate=hover)
    figure.add_scatter(
        x=load.sizes[some],
        y=shares,
        mode="markers",
        marker={"color": _LOST, "size": 6, "opacity": 0.6},
        name="a bucket's loss",
        showlegend=False,
        hovertemplate="%{x:,} tokens: %{y:.0f}% of the pairs lost<extra></extra>",
        xaxis="x3",
        yaxis="y3",
    )
    low, high, name = _scale(counts)
    _add_marks(figure, load, low, float(counts.max()))
    figure.update_layout(template=plotly_template(), barmode="stack", height=430, **_PANELS)
    figure.update_layout(
        yaxis={"title": {"text": name}, **_plotly_scale(low, high)},
        yaxis2={"range": [len(names) - 0.5, -0.5]},
        legend={"traceorder": "normal"},
    )
    titles = "How many tokens a bucket holds", "The longest buckets", f"{_loss(load)} of pairs lost"
    for title, x in zip(titles, (0.0, 0.5, 0.82), strict=True):
        looks = {"showarrow": False, "xanchor": "left", "yanchor": "bottom", "font": {"size": 13}}
        figure.add_annotation(text=title, x=x, y=1.02, xref="paper", yref="paper", **looks)
    return figure


def _add_marks(figure: Any, load: BucketLoad, low: float, height: float) -> None:
    """Mark an even share, and the longest bucket that loses nothing, if the picture reaches there.

    A line that the picture does not reach is a point that nobody sees: there are as many traces.
    """
    reached = bool(load.sizes.max() >= load.safe)
    for name, x, ends, dash, axis, shown in (
        ("shared evenly", load.even, [low, height], "dash", "", True),
        (_safe_name(load), load.safe, [low, height], "dot", "", reached),
        (_safe_name(load), load.safe, [0.0, 100.0], "dot", "3", reached),
    ):
        line = {"color": MUTED, "width": 1.5, "dash": dash}
        figure.add_scatter(
            x=[x, x] if shown else [None, None],
            y=ends,
            mode="lines",
            line=line,
            name=name,
            showlegend=shown and not axis,
            hoverinfo="skip",
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
        )


def _mark_safe(axes: Axes, load: BucketLoad) -> None:
    """Mark the longest bucket that loses nothing, if the picture reaches there."""
    if load.sizes.max() >= load.safe:
        looks = {"color": MUTED, "linewidth": 1.2, "linestyle": ":", "label": _safe_name(load)}
        axes.axvline(load.safe, **looks)


def _safe_name(load: BucketLoad) -> str:
    return f"up to {load.safe:,}: none lost"


def _loss(load: BucketLoad) -> str:
    return f"{load.lost.sum() / max(1, load.pairs.sum()):.0%}"


def _edges(load: BucketLoad) -> np.ndarray:
    """Return the borders of the histogram's bars, between whole numbers."""
    largest = int(load.sizes.max())
    width = -(-(largest + 1) // _MOST_BARS)
    return np.arange(0, largest + width + 1, width) - 0.5


def _histogram(load: BucketLoad, edges: np.ndarray) -> np.ndarray:
    """Count the buckets in every bar."""
    return np.histogram(load.sizes, edges)[0]


def _scale(counts: np.ndarray) -> tuple[float, float, str]:
    """Return where the histogram's scale begins and ends, and its name: logarithmic above 0."""
    high = 1.06 * float(counts.max())
    if counts.max() <= counts.sum() / 2:
        return 0.0, high, "buckets"
    return _UNDER_ONE, high, "buckets, on a logarithmic scale"


def _plotly_scale(low: float, high: float) -> dict:
    """Describe the same scale to Plotly, which wants the logarithms of its ends."""
    if not low:
        return {"type": "linear", "range": [0, high]}
    ticks = _ticks(low, high)
    names = [f"{tick:,.0f}" for tick in ticks]
    ends = np.log10([low, high]).tolist()
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": names}


def _ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic scale of whole numbers."""
    return [tick for tick in decades(*np.log10([low, high])) if 1 <= tick <= high]


def _of(load: BucketLoad, found: list) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs and lost pairs of some buckets."""
    at = tuple(np.transpose(found))
    return load.pairs[at], load.lost[at]


def _names(load: BucketLoad, found: list) -> list[str]:
    return [f"{load.name(*place)}: {load.sizes[place]:,} tokens" for place in found]


def _check(n_longest: int) -> None:
    if n_longest < 1:
        raise ValueError(f"n_longest must be at least 1, got {n_longest}")
