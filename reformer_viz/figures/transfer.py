"""Draw Table 2 as a matrix: a row for each attention in training, a column for each in use."""

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reformer_viz.measure.transfer import Transfer
from reformer_viz.style import INK, PALETTE, RC, SEQUENTIAL, dress, new_figure, text_on

_CELL, _GAP = 0.62, 0.04


def plot_transfer(*transfers: Transfer, titles: tuple[str, ...] = ()) -> Figure:
    """Draw one matrix or several side by side, every cell with its accuracy in percent.

    A frame marks the cells where a model is used as it was trained. `titles` name the matrices, by
    default by their task. Raises ValueError for no matrix, and for another number of titles.
    """
    if not transfers or len(titles) not in (0, len(transfers)):
        raise ValueError(
            f"give at least one matrix, and a title for each or none, got {len(transfers)} and "
            f"{len(titles)} titles"
        )
    columns = [len(transfer.used) for transfer in transfers]
    rows = max(len(transfer.trained) for transfer in transfers)
    figure = new_figure(_CELL * sum(columns) + 1.2 * len(transfers), 0.72 * _CELL * rows + 1.3)
    panels = figure.subplots(1, len(transfers), squeeze=False, width_ratios=columns)[0]
    for axes, transfer, title in zip(panels, transfers, titles or _titles(transfers), strict=True):
        _draw(axes, transfer, title)
    figure.supxlabel(
        "right answers, percent; framed: used as trained", fontsize=RC["font.size"] - 1, color=INK
    )
    return figure


def _titles(transfers: tuple[Transfer, ...]) -> list[str]:
    return [f"length {it.length:,}, {it.vocab_size:,} symbols" for it in transfers]


def _draw(axes: Axes, transfer: Transfer, title: str) -> None:
    """Draw one matrix."""
    scale = matplotlib.colormaps[SEQUENTIAL]
    for row, trained in enumerate(transfer.trained):
        for column, used in enumerate(transfer.used):
            share = float(transfer.accuracy[row, column])
            _cell(axes, row, column, to_hex(scale(share)), f"{100 * share:.1f}", trained == used)
    n_rows, n_columns = transfer.accuracy.shape
    axes.set(xlim=(-_GAP, n_columns), ylim=(n_rows, -_GAP))
    axes.set_xticks([column + 0.5 for column in range(n_columns)], transfer.used)
    axes.set_yticks([row + 0.5 for row in range(n_rows)], transfer.trained)
    dress(axes, title, "used with", "trained with")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _cell(axes: Axes, row: int, column: int, colour: str, text: str, own: bool) -> None:
    """Paint one accuracy, and frame it where a model is used as it was trained."""
    size = 1 - 2 * _GAP
    frame = {"edgecolor": PALETTE[5], "linewidth": 2.2} if own else {"linewidth": 0}
    corner = (column + _GAP, row + _GAP)
    axes.add_patch(Rectangle(corner, size, size, facecolor=colour, **frame))
    axes.text(
        column + 0.5,
        row + 0.5,
        text,
        ha="center",
        va="center",
        color=text_on(colour),
        fontsize=RC["font.size"],
    )
