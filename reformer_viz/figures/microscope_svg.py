"""The microscope's picture as SVG: the same bytes on every machine, and small enough to store."""

import numpy as np

from reformer_viz import style
from reformer_viz.figures import svg
from reformer_viz.figures.microscope import DETAIL, lit_kinds, start_of_detail
from reformer_viz.measure.bucketing import ELSEWHERE, FOUND, LOST, SEEN
from reformer_viz.measure.microscope import Microscope

# The picture's own units; a browser scales it to the page.
WIDTH, MARGIN, STRIP, FUNNEL, CELL = 800, 10, 14, 20, 24
TEXT, SORTED, SQUARES = 28, 138, 250
_MOST_COLUMNS, _BINS = 390, 64
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
        svg.text("all pairs, in reading order", MARGIN, SQUARES - 6, "start"),
        f'<g transform="translate({MARGIN} {SQUARES}) scale({side})">',
        *_all_pairs(microscope, round),
        "</g>",
        svg.text("part of sorted order", 2 * MARGIN + side, SQUARES - 6, "start"),
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
    start, shown = start_of_detail(at, length), min(DETAIL, length)
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
    xs = MARGIN + np.arange(len(tokens)) * room
    parts = _boxes(microscope, round, kinds, tokens, xs, top, width, CELL)
    for x, token in zip(xs, tokens, strict=True):
        colour, kind = colours[microscope.buckets[round, token]], kinds[token]
        if kind in (ELSEWHERE, FOUND):
            parts.append(svg.rect(x, top + CELL + 1, width, 3, style.MUTED))
        if kind in (LOST, FOUND):
            parts.append(svg.rect(x, top + CELL - 4, width, 4, colour))
        label = microscope.labels[token]
        ink = style.text_on(colour) if kind == SEEN else style.INK
        size = svg.number(min(12, 16 / max(1, len(label))))
        words = svg.text(label, x + width / 2, top + CELL / 2 + 4)
        parts.append(f'<g font-family="monospace" font-size="{size}" fill="{ink}">{words}</g>')
    return parts


def _all_pairs(microscope: Microscope, round: int) -> list[str]:
    """Draw all pairs in a square of side 1, queries in rows and keys in columns."""
    bins = min(_BINS, microscope.length)
    here, any_round = microscope.seen_binned(bins, round), microscope.seen_binned(bins)
    pairs = (microscope.length / bins) ** 2
    return [
        f'<path d="M0 0h1v1h-1z" fill="none" stroke="{style.MUTED}" stroke-width=".003"/>',
        f'<g transform="scale({1 / bins:.6f})">',
        f'<path d="{svg.runs((any_round > 0) & (here == 0))}" fill="{style.ELSEWHERE}"/>',
        *(
            f'<path d="{svg.runs(here > least * pairs)}" fill="{style.PALETTE[0]}" '
            f'opacity="{opacity}"/>'
            for least, opacity in _LEVELS
        ),
        "</g>",
    ]


def _near_pairs(microscope: Microscope, round: int, token: int | None) -> list[str]:
    """Draw the pairs of 64 slots in a square of side 1."""
    at = None if token is None else int(microscope.slot[round, token])
    start, shown = start_of_detail(at, microscope.length), min(DETAIL, microscope.length)
    tokens = microscope.order[round, start : start + shown]
    kinds, buckets = microscope.kinds_among(round, tokens), microscope.buckets[round, tokens]
    colours = style.bucket_colours(microscope.n_buckets)
    elsewhere = (kinds == ELSEWHERE) | (kinds == FOUND)
    parts = [
        f'<path d="M0 0h1v1h-1z" fill="none" stroke="{style.MUTED}" stroke-width=".003"/>',
        f'<g transform="scale({1 / shown:.6f})">',
        f'<path d="{svg.runs(elsewhere)}" fill="{style.ELSEWHERE}"/>',
    ]
    for bucket in np.unique(buckets):
        rows = (buckets == bucket)[:, None]
        lost = np.argwhere(((kinds == LOST) | (kinds == FOUND)) & rows)
        squares = "".join(f"M{key}.2 {query}.2h.6v.6h-.6z" for query, key in lost)
        colour = colours[bucket]
        parts += [
            f'<path d="{svg.runs((kinds == SEEN) & rows)}" fill="{colour}"/>',
            f'<path d="{squares}" fill="none" stroke="{colour}" stroke-width=".2"/>',
        ]
    return [*parts, "</g>"]
