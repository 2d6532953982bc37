"""Draw how the error of computing inputs again grows with depth."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from reformer_viz.measure.reconstruction import LABELS, Precision, Reconstruction
from reformer_viz.style import INK, MUTED, PALETTE, RC, SHADE, dress, new_figure, plotly_template

# Colour, and the mark of either library.
_LOOKS: dict[Precision, tuple[str, str, str]] = {
    "bfloat16": (PALETTE[5], "s", "square"),
    "autocast": (PALETTE[1], "^", "triangle-up"),
    "float32": (PALETTE[0], "o", "circle"),
}
_SMALL = RC["font.size"] - 1


def plot_reconstruction(reconstruction: Reconstruction) -> Figure:
    """Draw the relative error of the streams that the backward computes again, layer by layer.

    From left to right as the backward goes, away from the outputs that were kept. Dotted lines are
    what one rounding of a stream may be off. Where products are rounded to bfloat16 but streams are
    not, errors stay tiny until a product is rounded the other way the second time.
    """
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    for precision, (colour, marker, _) in _looks(reconstruction):
        axes.plot(
            reconstruction.undone,
            reconstruction.errors[precision],
            color=colour,
            marker=marker,
            markersize=5,
            label=LABELS[precision],
        )
    axes.set_yscale("log", nonpositive="mask")
    for rounding in sorted(set(reconstruction.rounding.values())):
        _mark_rounding(axes, rounding)
    dress(axes, _title(reconstruction), "layers undone", "relative error of the stream")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=SHADE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="outside lower center", ncols=3, frameon=False, fontsize=_SMALL, labelcolor=INK
    )
    return figure


def plotly_reconstruction(reconstruction: Reconstruction):
    """Draw `plot_reconstruction` with Plotly."""
    import plotly.graph_objects as go  # slow to import, and print does without

    figure = go.Figure()
    step = 1 + len(reconstruction.undone) // 13
    for precision, (colour, _, symbol) in _looks(reconstruction):
        figure.add_scatter(
            x=reconstruction.undone,
            y=reconstruction.errors[precision],
            name=LABELS[precision],
            mode="lines+markers",
            line={"color": colour, "width": 2.5},
            marker={"color": colour, "symbol": symbol, "size": 8},
            hovertemplate="%{x} layers undone: %{y:.2e}",
        )
    for rounding in sorted(set(reconstruction.rounding.values())):
        figure.add_scatter(
            x=reconstruction.undone,
            y=np.full(len(reconstruction.undone), rounding),
            name=f"one rounding, {rounding:.1e}",
            mode="lines",
            line={"color": MUTED, "width": 1, "dash": "dot"},
            hoverinfo="name",
        )
    figure.update_xaxes(
        title={"text": "layers undone"}, showgrid=False, tickvals=reconstruction.undone[::step]
    )
    figure.update_yaxes(
        title={"text": "relative error of the stream"}, type="log", exponentformat="power", dtick=1
    )
    title = {"text": _title(reconstruction)}
    figure.update_layout(template=plotly_template(), height=440, title=title)
    return figure


def _looks(reconstruction: Reconstruction) -> Iterator[tuple[Precision, tuple[str, str, str]]]:
    """Yield the precisions that were measured, worst first, with their looks."""
    for precision, looks in _LOOKS.items():
        if precision in reconstruction.errors:
            yield precision, looks


def _mark_rounding(axes: Axes, rounding: float) -> None:
    """Draw how far one rounding may be off, and say so beside the axes, where no error is drawn."""
    axes.axhline(rounding, color=MUTED, linestyle=":", linewidth=1.1)
    axes.annotate(
        f"one rounding,\n{rounding:.1e}",
        (1, rounding),
        (5, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=_SMALL,
        color=MUTED,
    )


def _title(reconstruction: Reconstruction) -> str:
    tokens = f"{reconstruction.batch_size} x {reconstruction.length:,} tokens"
    return f"What the backward computes again, {tokens}"
