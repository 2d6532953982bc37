"""Draw the symptoms of a mistake: the sorting, the pairs seen, lost and added, and two errors."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reformer_viz import style
from reformer_viz.measure.bugs import Symptoms

# What a cell of the matrix can be, and its colour.
_KINDS = {
    "not seen": style.SHADE,
    "seen, as it should be": style.PALETTE[0],
    "lost": style.PALETTE[1],
    "should not be seen": style.PALETTE[5],
}
_ERRORS = ("output", "gradient")


def plot_bug(symptoms: Symptoms) -> Figure:
    """Draw slots by position in the first round, who sees whom, and how far off two results are.

    Queries in rows, keys in columns. The output's error is against the right output, the gradient's
    against that of the output which was computed.
    """
    figure = style.new_figure(10.0, 4.1)
    order, matrix, errors = figure.subplots(1, 3, width_ratios=[1.0, 1.0, 0.42])
    _plot_order(order, symptoms)
    _plot_matrix(matrix, symptoms)
    errors.bar(_ERRORS, _percent(symptoms), color=style.PALETTE[5], width=0.6)
    errors.set_ylim(0, _top(symptoms))
    style.dress(errors, "How far off", "", "error, %")
    errors.spines[["top", "right"]].set_visible(False)
    handles = [Patch(facecolor=colour, label=kind) for kind, colour in _KINDS.items()]
    style.add_key(figure, handles)
    return figure


def _plot_order(axes: Axes, symptoms: Symptoms) -> None:
    """Draw where each position is sorted to, with its bucket's number."""
    colours = style.bucket_colours(symptoms.n_buckets)
    place = np.arange(len(symptoms.slot))
    axes.scatter(place, symptoms.slot, s=90, c=[colours[b] for b in symptoms.buckets], linewidths=0)
    for position, slot, bucket in zip(place, symptoms.slot, symptoms.buckets, strict=True):
        looks = {"ha": "center", "va": "center", "fontsize": 6.5}
        axes.text(position, slot, bucket, color=style.text_on(colours[bucket]), **looks)
    style.dress(axes, "Sorted by bucket, round 0", "position", "slot")
    axes.grid(color=style.SHADE, linewidth=0.6)
    axes.set_axisbelow(True)


def _plot_matrix(axes: Axes, symptoms: Symptoms) -> None:
    axes.imshow(cells(symptoms), cmap=ListedColormap(list(_KINDS.values())), vmin=0, vmax=3)
    style.dress(axes, "Who sees whom, in any round", "position of the key", "position of the query")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


def cells(symptoms: Symptoms) -> np.ndarray:
    """Number every pair by its kind, in the order of the key: "length length"."""
    kinds = symptoms.seen.any(0).astype(int)
    kinds[symptoms.lost] = 2
    kinds[symptoms.extra] = 3
    return kinds


def plotly_bug(symptoms: Symptoms) -> Any:
    """Draw `plot_bug` with Plotly.

    Raises ImportError where Plotly is not installed.
    """
    import plotly.graph_objects as go  # slow to import

    figure = go.Figure()
    colours = style.bucket_colours(symptoms.n_buckets)
    figure.add_scatter(
        x=np.arange(len(symptoms.slot)),
        y=symptoms.slot,
        mode="markers+text",
        text=[str(bucket) for bucket in symptoms.buckets],
        textfont={"size": 9, "color": [style.text_on(colours[b]) for b in symptoms.buckets]},
        marker={"size": 14, "color": [colours[b] for b in symptoms.buckets]},
        hovertemplate="position %{x} is sorted to slot %{y}: bucket %{text}<extra></extra>",
        showlegend=False,
        name="slot of a position",
    )
    kinds = cells(symptoms)
    figure.add_heatmap(
        z=kinds,
        zmin=-0.5,
        zmax=3.5,
        colorscale=style.plotly_steps(list(_KINDS.values())),
        showscale=False,
        xgap=1,
        ygap=1,
        customdata=np.array(list(_KINDS))[kinds],
        hovertemplate="query %{y}, key %{x}: %{customdata}<extra></extra>",
        xaxis="x2",
        yaxis="y2",
        name="pairs",
    )
    for kind, colour in _KINDS.items():
        marker = {"symbol": "square", "size": 11, "color": colour}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=kind)
    figure.add_bar(
        x=list(_ERRORS),
        y=_percent(symptoms),
        marker={"color": style.PALETTE[5]},
        hovertemplate="%{x}: off by %{y:.3g} %<extra></extra>",
        showlegend=False,
        xaxis="x3",
        yaxis="y3",
        name="error, %",
    )
    return _laid_out(figure, symptoms)


def _laid_out(figure: Any, symptoms: Symptoms) -> Any:
    length = len(symptoms.slot)
    figure.update_layout(
        template=style.plotly_template(),
        height=430,
        xaxis={"domain": [0, 0.36], "title": {"text": "position"}},
        yaxis={"title": {"text": "slot"}, "range": [-1, length]},
        xaxis2={"domain": [0.45, 0.78], "title": {"text": "position of the key"}},
        yaxis2={
            "anchor": "x2",
            "title": {"text": "position of the query"},
            "range": [length - 0.5, -0.5],
        },
        xaxis3={"domain": [0.87, 1]},
        yaxis3={
            "anchor": "x3",
            "title": {"text": "error, %"},
            "range": [0, _top(symptoms)],
        },
    )
    titles = "Sorted by bucket, round 0", "Who sees whom, in any round", "How far off"
    for title, x in zip(titles, (0.0, 0.45, 0.87), strict=True):
        looks = {"showarrow": False, "xanchor": "left", "yanchor": "bottom", "font": {"size": 13}}
        figure.add_annotation(text=title, x=x, y=1.02, xref="paper", yref="paper", **looks)
    return figure


def _percent(symptoms: Symptoms) -> list[float]:
    return [100 * symptoms.output_error, 100 * symptoms.gradient_error]


def _top(symptoms: Symptoms) -> float:
    """Return where the scale of errors ends, so that rounding alone draws nothing."""
    return max(10.0, 1.15 * max(_percent(symptoms)))
