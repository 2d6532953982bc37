"""The picture of sparsity as SVG: the same bytes on every machine, and small enough to store."""

from itertools import pairwise

import numpy as np

from reformer_viz import style
from reformer_viz.figures import svg
from reformer_viz.figures.sparsity import (
    LITTLE,
    Sorted,
    is_striped,
    round_colours,
    shares_of,
)
from reformer_viz.measure.pairs import Grid
from reformer_viz.measure.sparsity import Sparsity
from reformer_viz.measure.words import in_percent

# The picture's own units; a browser scales it to the page.
WIDTH, SIDE, TOP, LEFT, RIGHT = 800, 330, 26, 42, 428
BARS, BAR, NAMES, ROOM = TOP + SIDE + 42, 18, 160, 520
_NAMED_ROUNDS = 8  # of more the key has only numbers
_MOST_CELLS, _SHARED_CELLS = 128, 64  # along a square's side: more share that few
_DENSITIES = (0.35, 0.6, 1.0)  # opacities of a shared cell: few of its pairs seen, some, many
WEIGHT_LEVELS = 8


def draw_svg(
    sparsity: Sparsity,
    rounds: int,
    order: Sorted | None = None,
    cell: tuple[int, int] | None = None,
) -> str:
    """Draw what `plot_sparsity` draws, for places where no script runs.

    Stands on a white card of its own, because a still picture cannot follow a dark page.
    """
    sparsity.check_rounds(rounds)
    if order is None:
        cells, possible = sparsity.first_seen, sparsity.possible
        title = "who sees whom, in reading order"
    else:
        cells, possible = order.cells, order.possible
        title = f"who sees whom, as round {order.round} sorts"
    height = BARS + 3 * (BAR + 8) + 30
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="11" fill="{style.INK}">',
            f'<rect width="{WIDTH}" height="{height}" rx="6" fill="{style.PAPER}"/>',
            *_square(LEFT, title, _seen(cells[:rounds], possible, sparsity)),
            *_weights(sparsity),
            *_marks(sparsity, cell, (LEFT, RIGHT) if order is None else (LEFT,)),
            *_bars(sparsity, rounds),
            *_key(sparsity, rounds, height),
            "</svg>",
        ]
    )


def _marks(sparsity: Sparsity, cell: tuple[int, int] | None, lefts: tuple[int, ...]) -> list[str]:
    """Frame a cell's row and its column."""
    if cell is None:
        return []
    unit = SIDE / sparsity.grid.n_cells
    row, column = (unit * at - 1 for at in cell)
    boxes = [
        box
        for left in lefts
        for box in (
            svg.path(np.array([left - 1]), TOP + row, SIDE + 2, unit + 2, "none"),
            svg.path(np.array([left + column]), TOP - 1, unit + 2, SIDE + 2, "none"),
        )
    ]
    return [f'<g stroke="{style.INK}" stroke-width="1.5">', *boxes, "</g>"]


def weight_levels(weights: np.ndarray, levels: int) -> tuple[np.ndarray, float]:
    """Sort weights into levels, evenly on a root's scale; -1 where there is none. And the top.

    Few levels, so that the last digit of a float decides as seldom as can be.
    """
    some = np.isfinite(weights)
    top = float(np.percentile(weights[some], 99.5)) or 1.0
    shares = np.minimum(np.nan_to_num(weights) / top, 1) ** 0.4
    return np.where(some, np.rint(shares * (levels - 1)), -1).astype(np.int64), top


def _square(x: int, title: str, inside: list[str]) -> list[str]:
    """Frame a matrix, drawn in a square of side 1."""
    return [
        svg.text(title, x, TOP - 9, "start"),
        f'<g transform="translate({x} {TOP}) scale({SIDE})" shape-rendering="crispEdges">',
        *inside,
        f'<path d="M0 0h1v1h-1z" fill="none" stroke="{style.MUTED}" stroke-width=".003"/></g>',
    ]


def _seen(counts: np.ndarray, possible: np.ndarray, sparsity: Sparsity) -> list[str]:
    """Paint every cell in the colour of the round that first sees most of its pairs."""
    cells = counts.shape[1]
    share = 1 if cells <= _MOST_CELLS else -(-cells // _SHARED_CELLS)
    counts = np.stack([_shared(of_round, share) for of_round in counts])
    seen, most = counts.sum(0), counts.argmax(0)
    exact = share == 1 and sparsity.grid.per_cell == 1
    density = np.searchsorted(np.quantile(seen[seen > 0], [0.5, 0.9]), seen) if seen.any() else seen
    parts = [
        f'<g transform="scale({1 / seen.shape[0]:.6f})">',
        f'<path d="{svg.runs(_shared(possible, share) > 0)}" fill="{style.SHADE}"/>',
    ]
    for round, colour in enumerate(round_colours(sparsity.n_rounds)[: len(counts)]):
        chosen = (seen > 0) & (most == round)
        if exact:
            parts.append(f'<path d="{svg.runs(chosen)}" fill="{colour}"/>')
            if is_striped(sparsity, round):
                stripes = svg.runs(chosen).replace("v1h", "v.3h")
                stripe = f'transform="translate(0 .4)" fill="{style.text_on(colour)}"'
                parts.append(f'<path d="{stripes}" {stripe}/>')
            continue
        for level, opacity in enumerate(_DENSITIES):
            of_level = svg.runs(chosen & (density == level))
            parts.append(f'<path d="{of_level}" fill="{colour}" opacity="{opacity}"/>')
    return [*parts, "</g>"]


def _weights(sparsity: Sparsity) -> list[str]:
    if sparsity.mass is None:
        return []
    weights, grid = sparsity.mass.weights, sparsity.mass.grid
    weights = _means(weights, grid)
    levels, _ = weight_levels(weights, WEIGHT_LEVELS)
    parts = [f'<g transform="scale({1 / len(weights):.6f})">']
    for level, colour in enumerate(style.scale_colours(WEIGHT_LEVELS)):
        parts.append(f'<path d="{svg.runs(levels == level)}" fill="{colour}"/>')
    drawn = f", {len(sparsity.mass.queries):,} queries" if sparsity.mass.sampled else ""
    return _square(RIGHT, f"full attention's weights{drawn}", [*parts, "</g>"])


def _means(weights: np.ndarray, grid: Grid) -> np.ndarray:
    """Let neighbours share a cell when there are too many: keys add up, queries are averaged."""
    share = 1 if grid.n_cells <= _SHARED_CELLS else -(-grid.n_cells // _SHARED_CELLS)
    some = _shared(np.isfinite(weights), share)
    summed = _shared(np.nan_to_num(weights), share) / share
    return np.where(some > 0, summed, np.nan)


def _shared(matrix: np.ndarray, share: int) -> np.ndarray:
    """Add up neighbours, `share` a side."""
    cells = -(-len(matrix) // share)
    padded = np.pad(matrix, (0, cells * share - len(matrix)))
    return padded.reshape(cells, share, cells, share).sum(axis=(1, 3))


def _bars(sparsity: Sparsity, rounds: int) -> list[str]:
    shares = shares_of(sparsity, rounds)
    most = max(float(adds.sum()) for adds in shares.values())
    parts, whole = [], most > LITTLE
    if whole:
        most = max(1.0, most)
        full, bottom = NAMES + ROOM / most, BARS + len(shares) * (BAR + 8)
        parts.append(f'<path d="M{full:.1f} {BARS - 4}V{bottom}" stroke="{style.MUTED}"/>')
        parts.append(svg.text("full attention", full, BARS - 8))
    for row, (name, adds) in enumerate(shares.items()):
        y = BARS + row * (BAR + 8)
        parts.append(svg.text(name, NAMES - 8, y + 13, "end"))
        edges = NAMES + ROOM / most * np.concatenate([[0], adds.cumsum()])
        for round, (left, right) in enumerate(pairwise(edges)):
            parts += _swatch(sparsity, round, left, y, right - left, BAR)
        end = edges[-1]
        if whole and end < full < end + 50:
            end = full  # past the line
        parts.append(svg.text(in_percent(float(adds.sum())), end + 6, y + 13, "start"))
    return parts


def _key(sparsity: Sparsity, rounds: int, height: int) -> list[str]:
    parts = [svg.text("first seen by", NAMES - 8, height - 12, "end")]
    step, name = (72, "round ") if rounds <= _NAMED_ROUNDS else ((WIDTH - NAMES) / rounds, "")
    for round in range(rounds):
        x = NAMES + step * round
        parts += _swatch(sparsity, round, x, height - 22, 11, 11)
        parts.append(svg.text(f"{name}{round}", x + 16, height - 12, "start"))
    return parts


def _swatch(
    sparsity: Sparsity,
    round: int,
    x: svg.Number,
    y: svg.Number,
    width: svg.Number,
    height: svg.Number,
) -> list[str]:
    """Paint a box in a round's colour, with its stripe if it has one."""
    colour = round_colours(sparsity.n_rounds)[round]
    parts = [f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>']
    if is_striped(sparsity, round):
        stripe = f'height="3" fill="{style.text_on(colour)}"'
        parts.append(f'<rect x="{x:.1f}" y="{y + height - 6}" width="{width:.1f}" {stripe}/>')
    return parts
