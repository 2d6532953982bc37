"""The microscope's picture as SVG: the same bytes on every machine, and small enough to store."""

import numpy as np

from reformer_viz import style
from reformer_viz.figures import svg
from reformer_viz.figures.microscope import (
    DETAIL,
    lit_kinds,
    room_for_names,
    short_names,
    start_of_detail,
)
from reformer_viz.measure.bucketing import ELSEWHERE, FOUND, LOST, SEEN
from reformer_viz.measure.microscope import Microscope

# The picture's own units; a browser scales it to the page.
WIDTH, MARGIN, STRIP, FUNNEL, CELL = 800, 10, 14, 20, 24
TEXT, SORTED, SQUARES = 28, 138, 250
_MOST_COLUMNS, _BINS = 390, 64
_LEAST_ROW = 9 / 385  # of a square's side
_FRAME = f'<path d="M0 0h1v1h-1z" fill="none" stroke="{style.MUTED}" stroke-width=".003"/>'
_ALL = "all pairs, in reading order: rows look at columns; blue: this round"
_NEAR = "part of sorted order: rows look at columns; colours: buckets"
_LEVELS = ((0, ".3"), (0.25, ".65"), (0.5, "1"))  # more of a bin's pairs, and how strong that looks


def draw_svg(microscope: Microscope, round: int = 0, token: int | None = None) -> str:
    """Draw a round as `plot_microscope` does, for places where no script runs.

    Stands on a white card of its own, because a still picture cannot follow a dark page.
    """
    microscope.check_round(round)
    side = (WIDTH - 3 * MARGIN) // 2
    height = SQUARES + side + MARGIN
    reading = np.arange(microscope.length)
    titles = (
        f"the text, {microscope.length:,} tokens",
        f"round {round}: sorted by bucket, cut into chunks of {microscope.chunk_length:,}",
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="{style.INK}">',
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="{style.PAPER}"/>',
        *_row(microscope, round, token, reading, TEXT, titles[0]),
        *_row(microscope, round, token, microscope.order[round], SORTED, titles[1]),
        svg.text(_ALL, MARGIN, SQUARES - 6, "start"),
        f'<g transform="translate({MARGIN} {SQUARES}) scale({side})">',
        *_all_pairs(microscope, round, token),
        "</g>",
        svg.text(_NEAR, 2 * MARGIN + side, SQUARES - 6, "start"),
        f'<g transform="translate({2 * MARGIN + side} {SQUARES}) scale({side})">',
        *_near_pairs(microscope, round, token),
        "</g></svg>",
    ]
    return "".join(parts)


def _row(
    microscope: Microscope,
    round: int,
    token: int | None,
    order: np.ndarray,
    top: int,
    title: str,
) -> list[str]:
    """Draw all tokens, and below them 64 with their names."""
    room, length = WIDTH - 2 * MARGIN, microscope.length
    kinds = lit_kinds(microscope, round, token)
    at = None if token is None else int(np.flatnonzero(order == token)[0])
    shown = room_for_names(microscope)
    start = start_of_detail(at, length, shown)
    columns = min(length, _MOST_COLUMNS)
    sampled = order[np.arange(columns) * length // columns]
    xs = MARGIN + np.arange(columns) * room / columns
    left, right = (MARGIN + k * room / length for k in (start, start + shown))
    foot = top + STRIP + FUNNEL
    corners = (
        f"M{svg.number(left)} {top + STRIP + 2}H{svg.number(right)}L{MARGIN + room} {foot - 2}"
    )
    return [
        svg.text(title, MARGIN, top - 8, "start"),
        *_boxes(microscope, round, kinds, sampled, xs, top, room / columns, STRIP),
        f'<path d="{corners}H{MARGIN}z" fill="{style.SHADE}"/>',
        *_cells(microscope, round, kinds, order[start : start + shown], foot, room / shown),
        *(
            []
            if at is None
            else [_outline(MARGIN + (at - start) * room / shown, foot, room / shown)]
        ),
    ]


def _outline(x: svg.Number, top: int, width: svg.Number) -> str:
    """Frame the chosen token."""
    corner = f"M{svg.number(x - 1)} {top - 1}h{svg.number(width + 1)}v{CELL + 2}"
    return f'<path d="{corner}h-{svg.number(width + 1)}z" fill="none" stroke="{style.INK}"/>'


def _boxes(
    microscope: Microscope,
    round: int,
    kinds: np.ndarray,
    tokens: np.ndarray,
    xs: np.ndarray,
    top: int,
    width: svg.Number,
    height: int,
) -> list[str]:
    """Draw a box a token, those that are not seen faintly."""
    colours, buckets = style.bucket_colours(microscope.n_buckets), microscope.buckets[round]
    parts = []
    for bucket in np.unique(buckets[tokens]):
        for seen, opacity in ((True, "1"), (False, ".2")):
            chosen = (buckets[tokens] == bucket) & ((kinds[tokens] == SEEN) == seen)
            if chosen.any():
                boxes = svg.path(xs[chosen], top, width, height, colours[bucket])
                parts.append(f'<g opacity="{opacity}">{boxes}</g>')
    return parts


def _cells(
    microscope: Microscope,
    round: int,
    kinds: np.ndarray,
    tokens: np.ndarray,
    top: int,
    room: svg.Number,
) -> list[str]:
    colours, width = style.bucket_colours(microscope.n_buckets), room - 1
    names = short_names(microscope)
    xs = MARGIN + np.arange(len(tokens)) * room
    parts = _boxes(microscope, round, kinds, tokens, xs, top, width, CELL)
    for x, token in zip(xs, tokens, strict=True):
        colour, kind = colours[microscope.buckets[round, token]], kinds[token]
        if kind in (ELSEWHERE, FOUND):
            parts.append(svg.rect(x, top + CELL + 1, width, 3, style.MUTED))
        if kind in (LOST, FOUND):
            parts.append(svg.rect(x, top + CELL - 4, width, 4, colour))
        label = names[token]
        ink = style.text_on(colour) if kind == SEEN else style.INK
        size = svg.number(min(10 if room > 20 else 12, 1.32 * room / max(1, len(label))))
        words = svg.text(label, x + width / 2, top + CELL / 2 + 4)
        parts.append(f'<g font-family="monospace" font-size="{size}" fill="{ink}">{words}</g>')
    return parts


def _all_pairs(microscope: Microscope, round: int, token: int | None) -> list[str]:
    """Draw all pairs in a square of side 1, queries in rows and keys in columns."""
    bins = min(_BINS, microscope.length)
    here, any_round = microscope.seen_binned(bins, round), microscope.seen_binned(bins)
    pairs = (microscope.length / bins) ** 2
    return [
        _FRAME,
        f'<g transform="scale({1 / bins:.6f})"{_faded(token)}>',
        f'<path d="{svg.runs((any_round > 0) & (here == 0))}" fill="{style.ELSEWHERE}"/>',
        *(
            f'<path d="{svg.runs(here > least * pairs)}" fill="{style.PALETTE[0]}" '
            f'opacity="{opacity}"/>'
            for least, opacity in _LEVELS
        ),
        "</g>",
        *([] if token is None else _row_of_all(microscope, round, token)),
    ]


def _row_of_all(microscope: Microscope, round: int, token: int) -> list[str]:
    """Draw one query's pairs in the square of all, as high and as wide as can be seen."""
    length, kinds = microscope.length, microscope.kinds(round, token)
    high, columns = max(1 / length, _LEAST_ROW), min(length, _MOST_COLUMNS // 2)
    top = min(max(0.0, (token + 0.5) / length - high / 2), 1 - high)

    def cells(*of_kind: int) -> str:
        shown = np.zeros((1, columns), bool)
        shown[0, np.flatnonzero(np.isin(kinds, of_kind)) * columns // length] = True
        return svg.runs(shown)

    return [
        f'<g transform="translate(0 {top:.4f}) scale({1 / columns:.6f} {high:.4f})">',
        f'<path d="M0 0h{columns}v1H0z" fill="{style.PAPER}"/>',
        f'<path d="{cells(ELSEWHERE, FOUND)}" fill="{style.ELSEWHERE}"/>',
        f'<path d="{cells(LOST, FOUND)}" transform="matrix(1 0 0 .3 0 .7)" '
        f'fill="{style.PALETTE[0]}"/>',
        f'<path d="{cells(SEEN)}" fill="{style.PALETTE[0]}"/>',
        "</g>",
        _around(top, high),
        *_bars(microscope, token, (np.arange(length) + 0.5) / length, top, 1 / columns),
    ]


def _near_pairs(microscope: Microscope, round: int, token: int | None) -> list[str]:
    """Draw the pairs of 64 slots in a square of side 1."""
    at = None if token is None else int(microscope.slot[round, token])
    start, shown = start_of_detail(at, microscope.length), min(DETAIL, microscope.length)
    tokens = microscope.order[round, start : start + shown]
    kinds = microscope.kinds_among(round, tokens)
    colours, buckets = style.bucket_colours(microscope.n_buckets), microscope.buckets[round, tokens]
    chosen = np.arange(shown) == (-1 if at is None else at - start)

    def pairs_of(rows: np.ndarray) -> list[str]:
        elsewhere = ((kinds == ELSEWHERE) | (kinds == FOUND)) & rows[:, None]
        parts = [f'<path d="{svg.runs(elsewhere)}" fill="{style.ELSEWHERE}"/>']
        for bucket in np.unique(buckets[rows]):
            of_bucket = ((buckets == bucket) & rows)[:, None]
            lost = np.argwhere(((kinds == LOST) | (kinds == FOUND)) & of_bucket)
            squares = "".join(f"M{key}.2 {query}.2h.6v.6h-.6z" for query, key in lost)
            colour = colours[bucket]
            parts += [
                f'<path d="{svg.runs((kinds == SEEN) & of_bucket)}" fill="{colour}"/>',
                f'<path d="{squares}" fill="none" stroke="{colour}" stroke-width=".2"/>',
            ]
        return parts

    scale = f'<g transform="scale({1 / shown:.6f})"'
    parts = [_FRAME, f"{scale}{_faded(token)}>", *pairs_of(~chosen), "</g>"]
    if at is None:
        return parts
    top, places = (at - start) / shown, (microscope.slot[round] - start + 0.5) / shown
    return [
        *(*parts, f"{scale}>", *pairs_of(chosen), "</g>", _around(top, 1 / shown)),
        *_bars(microscope, token, places, top, 1 / shown),
    ]


def _faded(token: int | None) -> str:
    """Return what makes the other pairs faint while a token is chosen."""
    return "" if token is None else ' opacity=".3"'


def _around(top: float, high: float) -> str:
    """Frame a row of a square of side 1."""
    frame = f"M0 {top:.4f}h1v{high:.4f}H0z"
    return f'<path d="{frame}" fill="none" stroke="{style.INK}" stroke-width=".003"/>'


def _bars(
    microscope: Microscope, token: int, places: np.ndarray, foot: float, wide: float
) -> list[str]:
    """Stand a query's weights on its row of a square of side 1, where that shows their keys."""
    if microscope.weights is None:
        return []
    keys, shares = microscope.weights.of(token)
    heights = min(0.06, foot + 0.01) * shares / max(1e-9, shares.max(initial=0))
    shown = (places[keys] > 0) & (places[keys] < 1) & (heights > 0.001)
    bars = "".join(
        f"M{x:.4f} {foot:.4f}v-{high:.4f}h{0.6 * wide:.4f}V{foot:.4f}z"
        for x, high in zip(places[keys][shown] - 0.3 * wide, heights[shown], strict=True)
    )
    return [f'<path d="{bars}" fill="{style.INK}"/>']
