"""The pictures of sparsity: who sees whom by first round, full attention beside it, every head."""

from math import ceil
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize, PowerNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from reformer_viz import style
from reformer_viz.measure.pairs import Grid
from reformer_viz.measure.sparsity import Sparsity, SparsityPerHead
from reformer_viz.measure.words import count, in_percent, percent

_FAINTEST = 0.25  # a cell in which one pair is seen must still show
_STRONGEST = 99.5  # percentile of the cells in which somebody is seen
_GAMMA = 0.4  # weights fall off steeply: without it all but the largest would look like none
_ROOM_FOR_STRIPES = 128  # tokens: more, and stripes in cells run into each other
LITTLE = 0.2
"""Of full attention: bars that are all shorter get a scale of their own."""


class Sorted(NamedTuple):
    """Who sees whom in another order than the text's: a round's, and the counts of every cell."""

    round: int
    cells: np.ndarray

    @property
    def possible(self) -> np.ndarray:
        """In a sorted order any place may hold a pair."""
        return np.ones(self.cells.shape[1:], dtype=np.int64)


def plot_sparsity(
    sparsity: Sparsity,
    rounds: int | None = None,
    order: Sorted | None = None,
    cell: tuple[int, int] | None = None,
) -> Figure:
    """Draw who sees whom, coloured by the round that saw it first, and full attention's weights.

    Queries in rows, keys in columns, in reading order. Below: what each round adds to the pairs
    seen, to full attention's weight found and to the scores computed, all as shares of full
    attention's. `rounds` draws the first of them only; None draws all. With `order` who sees whom
    is drawn in a round's sorted order. A `cell`, row and column, is marked.
    """
    rounds = sparsity.n_rounds if rounds is None else rounds
    sparsity.check_rounds(rounds)
    figure = style.new_figure(9.0, 5.9 if sparsity.mass else 6.4)
    top = ["seen", "weights"] if sparsity.mass else ["seen", "seen"]
    axes = figure.subplot_mosaic([top, ["shares", "shares"]], height_ratios=[4.2, 1.0])
    _plot_seen(axes["seen"], sparsity, rounds, order)
    if sparsity.mass:
        _plot_weights(axes["weights"], sparsity)
    if cell is not None:
        _mark_cell(axes["seen"], sparsity.grid, cell)
        if sparsity.mass and order is None:
            _mark_cell(axes["weights"], sparsity.grid, cell)
    _plot_shares(axes["shares"], sparsity, rounds)
    _add_key(figure, sparsity, rounds)
    return figure


def round_colours(n_rounds: int) -> list[str]:
    """Return one colour a round: distinct hues up to eight, then a scale."""
    return style.bucket_colours(n_rounds)


def is_striped(sparsity: Sparsity, round: int) -> bool:
    """Say whether a round is told from its neighbours by a stripe: there are more than hues."""
    return style.needs_hatching(sparsity.n_rounds) and round % 2 == 1


def cell_colours(sparsity: Sparsity, rounds: int, order: Sorted | None = None) -> np.ndarray:
    """Colour every cell by the rounds that first see its pairs: "cells cells 3", 0 to 1.

    A cell of many pairs mixes its rounds' colours, the stronger the more of its pairs are seen.
    """
    colours = np.array([to_rgb(colour) for colour in round_colours(sparsity.n_rounds)])
    counts, possible = sparsity.first_seen, sparsity.possible
    if order is not None:
        counts, possible = order.cells, order.possible
    first_seen = counts[:rounds].astype(float)
    seen = first_seen.sum(0)
    image = np.ones((*seen.shape, 3))
    image[possible > 0] = to_rgb(style.SHADE)
    some = seen > 0
    if some.any():
        mixed = np.einsum("rp,rc->pc", first_seen[:, some], colours[:rounds]) / seen[some, None]
        density = (seen / np.maximum(possible, 1))[some]
        strength = np.sqrt(np.minimum(density / np.percentile(density, _STRONGEST), 1))
        strength = (_FAINTEST + (1 - _FAINTEST) * strength)[:, None]
        image[some] = strength * mixed + (1 - strength) * to_rgb(style.SHADE)
    return image


def shares_of(sparsity: Sparsity, rounds: int) -> dict[str, np.ndarray]:
    """Return what each round adds, by what it is a share of full attention's."""
    shares = {"pairs seen": sparsity.pairs_first_seen[:rounds] / sparsity.n_possible}
    if sparsity.mass:
        found = sparsity.mass.found[:rounds].mean(axis=1)
        shares["weight found"] = np.diff(found, prepend=0)
    shares["scores, in whole tiles"] = np.full(rounds, sparsity.tiles / sparsity.length**2)
    return shares


def _plot_seen(axes: Axes, sparsity: Sparsity, rounds: int, order: Sorted | None) -> None:
    seen = int(sparsity.pairs_first_seen[:rounds].sum())
    axes.imshow(
        cell_colours(sparsity, rounds, order),
        interpolation="nearest",
        extent=extent_of(sparsity.grid),
    )
    if sparsity.grid.per_cell == 1 and sparsity.length <= _ROOM_FOR_STRIPES:
        _stripe_cells(axes, sparsity, rounds, sparsity.first_seen if order is None else order.cells)
    where, how = "position", ""
    if order is not None:
        where, how = "slot", f", as round {order.round} sorts"
    sees = "sees" if rounds == 1 else "see"
    style.dress(
        axes,
        f"{count(rounds, 'round')} {sees} {percent(seen, sparsity.n_possible)} of the pairs",
        _named(f"{where} of the key{how}", sparsity),
        f"{where} of the query{how}",
    )
    count_positions(axes)


def _mark_cell(axes: Axes, grid: Grid, cell: tuple[int, int]) -> None:
    """Frame a cell's row and its column."""
    end = grid.n_cells * grid.per_cell
    row, column = (at * grid.per_cell - 0.5 for at in cell)
    for corner, width, height in (
        ((-0.5, row), end, grid.per_cell),
        ((column, -0.5), grid.per_cell, end),
    ):
        frame = Rectangle(corner, width, height, fill=False, edgecolor=style.INK, zorder=4)
        frame.set(linewidth=0.9)
        axes.add_patch(frame)


def _stripe_cells(axes: Axes, sparsity: Sparsity, rounds: int, cells: np.ndarray) -> None:
    colours = round_colours(sparsity.n_rounds)
    for round in filter(lambda round: is_striped(sparsity, round), range(rounds)):
        query, key = np.nonzero(cells[round])
        stripes = [Rectangle((j - 0.5, i - 0.1), 1, 0.3) for i, j in zip(query, key, strict=True)]
        colour = style.text_on(colours[round])
        axes.add_collection(PatchCollection(stripes, facecolor=colour, linewidth=0, alpha=0.8))


def _plot_weights(axes: Axes, sparsity: Sparsity) -> None:
    grid = sparsity.mass.grid
    weights = np.ma.masked_invalid(sparsity.mass.weights)
    top = max(float(np.percentile(weights.compressed(), _STRONGEST)), 1e-9)
    image = axes.imshow(
        weights,
        interpolation="nearest",
        extent=extent_of(grid),
        cmap=style.SEQUENTIAL,
        norm=PowerNorm(_GAMMA, vmin=0, vmax=top),
    )
    drawn = f", {len(sparsity.mass.queries):,} queries drawn" if sparsity.mass.sampled else ""
    style.dress(axes, f"Full attention's weights{drawn}", "position of the key")
    count_positions(axes)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, extend="max", ticks=MaxNLocator(4))
    per = "key" if grid.per_cell == 1 else f"cell of {grid.per_cell} keys"
    bar.set_label(
        f"weight of a {per} (a query's sum to 1)", size=style.RC["font.size"], color=style.MUTED
    )
    bar.ax.tick_params(labelsize=style.RC["font.size"] - 1, labelcolor=style.MUTED)


def _plot_shares(axes: Axes, sparsity: Sparsity, rounds: int) -> None:
    """Stack what each round adds, as shares of what full attention has."""
    bars = shares_of(sparsity, rounds)
    colours = round_colours(sparsity.n_rounds)
    for row, adds in enumerate(bars.values()):
        left = np.cumsum(adds) - adds
        bars_of = axes.barh(row, adds, left=left, color=colours[:rounds], height=0.62)
        for round, bar in enumerate(bars_of):
            if is_striped(sparsity, round):
                bar.set(hatch="////", edgecolor=style.text_on(colours[round]), linewidth=0)
        words = axes.annotate(
            in_percent(float(adds.sum())),
            (adds.sum(), row),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=style.INK,
        )
        words.set_bbox({"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.5})
    axes.set_yticks(range(len(bars)), list(bars))
    most = max(float(adds.sum()) for adds in bars.values())
    if most > LITTLE:
        axes.axvline(1, color=style.MUTED, linewidth=1)
        most = max(1.0, most)
    axes.set(xlim=(0, 1.1 * most), ylim=(len(bars) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    style.dress(axes, "", "share of full attention")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _add_key(figure: Figure, sparsity: Sparsity, rounds: int) -> None:
    colours = round_colours(sparsity.n_rounds)
    figure.legend(
        handles=[
            *(
                Patch(
                    facecolor=colours[round],
                    edgecolor=style.text_on(colours[round]),
                    linewidth=0,
                    hatch="////" if is_striped(sparsity, round) else None,
                    label=f"round {round}",
                )
                for round in range(rounds)
            ),
            Patch(color=style.SHADE, label="seen by none"),
        ],
        title="first seen by",
        loc="outside lower center",
        ncols=rounds + 1 if rounds < 9 else ceil((rounds + 1) / 2),
        handlelength=1.2,
        frameon=False,
        fontsize=style.RC["font.size"] - 0.5,
        title_fontsize=style.RC["font.size"] - 0.5,
        labelcolor=style.INK,
    )


def extent_of(grid: Grid) -> tuple[float, float, float, float]:
    """Place a matrix so that the axes count positions, whatever a cell holds."""
    end = grid.n_cells * grid.per_cell - 0.5
    return -0.5, end, end, -0.5


def _named(axis: str, sparsity: Sparsity) -> str:
    per = sparsity.grid.per_cell
    return axis if per == 1 else f"{axis} (a cell is {per} x {per})"


def count_positions(axes: Axes) -> None:
    """Number both axes of a matrix in whole positions."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_major_formatter(lambda position, _: f"{position:,.0f}")


def plot_sparsity_per_head(sparsity: SparsityPerHead) -> Figure:
    """Draw for every LSH layer and head the share of pairs seen and of weight found, in numbers."""
    n_layers = len(sparsity.layers)
    height = 1.6 + 0.42 * n_layers
    figure = style.new_figure(9.0, max(2.4, height))
    seen, found = figure.subplots(1, 2, sharey=True)
    _plot_heads(seen, sparsity.visible_fraction, "Share of the pairs that are seen")
    _plot_heads(found, sparsity.mass_found, "Share of full attention's weight found")
    names = [f"layer {layer}" for layer in sparsity.layers]
    seen.set_yticks(range(n_layers), names)
    return figure


def _plot_heads(axes: Axes, shares: np.ndarray, title: str) -> None:
    image = axes.imshow(shares, cmap=style.SEQUENTIAL, norm=Normalize(0, 1), aspect="auto")
    for (layer, head), share in np.ndenumerate(shares):
        colour = style.text_on(to_hex(image.cmap(float(share))))
        words = f"{100 * share:.1f}"
        axes.text(head, layer, words, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(shares.shape[1]))
    style.dress(axes, f"{title}, in %", "head")
    axes.tick_params(length=0)
