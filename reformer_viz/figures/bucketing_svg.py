"""The picture of one round as SVG: the same bytes on every machine, and small enough to store."""

from html import escape
from math import ceil

import numpy as np

from reformer_viz import style
from reformer_viz.figures import svg
from reformer_viz.figures.names import name_in_cell
from reformer_viz.measure.bucketing import (
    ELSEWHERE,
    FOUND,
    LOST,
    MOST_PAIRWISE,
    SEEN,
    Bucketing,
)

# The picture's own units; a browser scales it to the page.
WIDTH, LEFT, RIGHT, ROW, GAP = 800, 92, 10, 22, 7
READING, SORTED, SQUARES = 12, 138, 232
_ROOM_FOR_A_NUMBER = 24
_MOST_CURVES, _MOST_TOKENS, _MOST_CHUNKS = 256, 1024, 256  # drawn: of more, only some
_BINS, _LEVELS = 96, 4  # along a square's side for long sequences, and how dark a bin can be
_MOST_CELLS, _SHARED_CELLS = 128, 64  # along a square's side: more tokens share that few
_SMALL = 9  # letters of names that are words
_LOST_FROM, _ELSEWHERE = 2, 1  # numbers in a square's image; seen pairs follow the lost ones


def draw_svg(bucketing: Bucketing, round: int = 0) -> str:
    """Draw a round as `plot_bucketing` does, for places where no script runs.

    Stands on a white card of its own, because a still picture cannot follow a dark page.
    """
    bucketing.check_round(round)
    n, side = bucketing.length, (WIDTH - LEFT - RIGHT - 28) // 2
    height = SQUARES + side + RIGHT
    ways = bucketing.order[round], np.arange(n)
    titles = "sorted order: near the diagonal", "reading order: scattered; other rounds in grey"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="{style.INK}">',
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="{style.PAPER}"/>',
        *_strip(bucketing, round),
    ]
    for k, (order, title) in enumerate(zip(ways, titles, strict=True)):
        x = LEFT + k * (side + 28)
        parts.append(svg.text(title, x, SQUARES - 8, anchor="start"))
        parts.append(f'<g transform="translate({x} {SQUARES}) scale({side})">')
        if n > MOST_PAIRWISE:
            parts += _square_of_bins(bucketing, round, in_sorted_order=k == 0)
        else:
            parts += _square(bucketing, round, order, in_sorted_order=k == 0)
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _strip(bucketing: Bucketing, round: int) -> list[str]:
    """Draw the tokens in both orders, the ways between, and the names of buckets and chunks."""
    n, m = bucketing.length, bucketing.chunk_length
    room, n_chunks = WIDTH - LEFT - RIGHT, ceil(n / m)
    gap = min(GAP, 0.25 * room / n_chunks)
    one, two = room / n, (room - gap * (n_chunks - 1)) / n
    reading_x = LEFT + one * np.arange(n)
    slot_x = LEFT + two * np.arange(n) + gap * (np.arange(n) // m)
    sorted_x = slot_x[bucketing.slot[round]]
    parts = [
        svg.text(name, LEFT - 10, y, anchor="end")
        for name, y in (
            ("reading order", READING + 15),
            ("bucket", SORTED - 11),
            ("sorted order", SORTED + 15),
            ("chunk", SORTED + ROW + 18),
        )
    ]
    parts += _curves(bucketing, round, reading_x + one / 2, sorted_x + two / 2)
    every = ceil(n / _MOST_TOKENS)
    for way, x, y, width in (
        (np.arange(n), reading_x, READING, one),
        (bucketing.order[round], sorted_x, SORTED, two),
    ):
        parts += _cells(bucketing, round, np.sort(way[::every]), x, y, width * every)
    colours = style.bucket_colours(bucketing.n_buckets)
    for bucket, first, last in bucketing.runs(round):
        left, right = slot_x[first], slot_x[last] + two
        parts.append(svg.rect(left, SORTED - 5, right - left - 1, 3, colours[bucket]))
        if right - left > 16:
            parts.append(svg.text(bucket, (left + right) / 2, SORTED - 10))
    if n_chunks > _MOST_CHUNKS:
        return [*parts, svg.text(f"{n_chunks:,} chunks", LEFT + room / 2, SORTED + ROW + 18)]
    every = ceil(_ROOM_FOR_A_NUMBER * n_chunks / room)
    for chunk, first in enumerate(range(0, n, m)):
        left, right = slot_x[first], slot_x[min(n, first + m) - 1] + two
        parts.append(svg.rect(left, SORTED + ROW + 3, right - left - 1, 1.5, style.MUTED))
        if chunk % every == 0:
            parts.append(svg.text(chunk, (left + right) / 2, SORTED + ROW + 18))
    return parts


def _cells(
    bucketing: Bucketing,
    round: int,
    shown: np.ndarray,
    left: np.ndarray,
    top: svg.Number,
    width: svg.Number,
) -> list[str]:
    """Draw some tokens as cells of a width; `left` says for every token where."""
    buckets, colours = bucketing.buckets[round], style.bucket_colours(bucketing.n_buckets)
    hatched = style.needs_hatching(bucketing.n_buckets)
    cell = width - (1 if width > 5 else 0)
    parts = []
    real = shown[bucketing.real[shown]]
    for bucket in np.unique(buckets[real]):
        tokens = real[buckets[real] == bucket]
        parts.append(svg.path(left[tokens], top, cell, ROW, colours[bucket]))
        if hatched and bucket % 2:
            stripe = style.text_on(colours[bucket])
            parts.append(svg.path(left[tokens], top + ROW - 5, cell, 2, stripe))
    if bucketing.padding is not None:
        tokens = shown[bucketing.padding[shown]]
        parts.append(svg.path(left[tokens], top + ROW / 2, cell, 1, style.MUTED))
    if width < 8 or bucketing.labels is None:
        return parts
    for ink in ("#000000", "#FFFFFF"):
        tokens = [i for i in range(len(left)) if style.text_on(colours[buckets[i]]) == ink]
        places = [(bucketing.labels[i], left[i] + cell / 2) for i in tokens]
        if _all_single(bucketing.labels):
            xs = " ".join(svg.number(x) for _, x in places)
            letters = escape("".join(label for label, _ in places))
            parts.append(
                f'<text x="{xs}" y="{svg.number(top + 15)}" text-anchor="middle" fill="{ink}">'
                f"{letters}</text>"
            )
        else:
            names = "".join(_name(label, x, top, cell) for label, x in places)
            parts.append(f'<g font-size="{_SMALL}" text-anchor="middle" fill="{ink}">{names}</g>')
    return parts


def _name(label: str, x: svg.Number, top: svg.Number, cell: svg.Number) -> str:
    """Write as much of a token's name as its cell has room for, upright if that is more."""
    words, upright = name_in_cell(label, cell, ROW, _SMALL)
    middle = top + ROW / 2
    turned = f"rotate(-90 {svg.number(x)} {svg.number(middle)})" if upright else None
    return svg.text(words, x, middle + 3, None, transform=turned) if words else ""


def _curves(bucketing: Bucketing, round: int, start: np.ndarray, end: np.ndarray) -> list[str]:
    colours = style.bucket_colours(bucketing.n_buckets)
    top, bottom = READING + ROW + 3, SORTED - 22
    middle = (top + bottom) // 2
    every = ceil(bucketing.length / _MOST_CURVES)
    weight = svg.number(min(1.8, 120 * every / bucketing.length))
    drawn = bucketing.real & (np.arange(bucketing.length) % every == 0)
    parts = []
    for bucket in range(bucketing.n_buckets):
        tokens = np.flatnonzero((bucketing.buckets[round] == bucket) & drawn)
        ways = "".join(
            f"M{a} {top}C{a} {middle} {b} {middle} {b} {bottom}"
            for a, b in ((svg.number(start[i]), svg.number(end[i])) for i in tokens)
        )
        if ways:
            parts.append(
                f'<path d="{ways}" fill="none" stroke="{colours[bucket]}" '
                f'stroke-width="{weight}" opacity=".85"/>'
            )
    return parts


def _square(
    bucketing: Bucketing, round: int, order: np.ndarray, in_sorted_order: bool
) -> list[str]:
    """Draw who sees whom in a square of side 1, queries in rows and keys in columns."""
    n = bucketing.length
    colours = style.bucket_colours(bucketing.n_buckets)
    image, share = _binned(_image_of(bucketing, round, order, in_sorted_order))
    cells = len(image)
    parts = [f'<path d="M0 0h1v1h-1z" fill="none" stroke="{style.MUTED}" stroke-width=".003"/>']
    if in_sorted_order:
        bounds = zip(bucketing.window_first, bucketing.window_last, strict=True)
        runs = [(slot, a, min(b, n - 1) + 1) for slot, (a, b) in enumerate(bounds) if a <= b]
        shade = "".join(f"M{a} {row}h{b - a}v1h{a - b}z" for row, a, b in runs)
        parts.append(f'<path transform="scale({1 / n:.6f})" d="{shade}" fill="{style.SHADE}"/>')
    parts.append(f'<g transform="scale({1 / cells:.6f})">')
    for number in np.unique(image[image > 0]):
        if number == _ELSEWHERE:
            parts.append(f'<path d="{svg.runs(image == number)}" fill="{style.ELSEWHERE}"/>')
        elif number < _LOST_FROM + bucketing.n_buckets:
            parts.append(_lost(image == number, colours[number - _LOST_FROM], hollow=share == 1))
        else:
            colour = colours[number - _LOST_FROM - bucketing.n_buckets]
            parts.append(f'<path d="{svg.runs(image == number)}" fill="{colour}"/>')
    return [*parts, "</g>"]


def _square_of_bins(bucketing: Bucketing, round: int, in_sorted_order: bool) -> list[str]:
    """Draw who sees whom in bins: the darker, the more pairs; grey where several buckets share."""
    bins = bucketing.binned(round, in_sorted_order, _BINS)
    colours = [*style.bucket_colours(bucketing.n_buckets), style.INK]  # the last is SEVERAL's
    levels = np.ceil(_LEVELS * np.sqrt(bins.seen / max(1, bins.seen.max()))).astype(int)
    parts = [f'<path d="M0 0h1v1h-1z" fill="none" stroke="{style.MUTED}" stroke-width=".003"/>']
    parts.append(f'<g transform="scale({1 / _BINS:.6f})">')
    if in_sorted_order:
        parts.append(f'<path d="{_shade_of_bins(bucketing)}" fill="{style.SHADE}"/>')
        for bucket, first, last in bucketing.runs(round):
            a, b = (svg.number(slot * _BINS / bucketing.length) for slot in (first, last + 1))
            corner = f"L{a} {b}" if bucketing.causal else f"V{b}H{a}"
            turn = f"L{b} {b}" if bucketing.causal else f"H{b}"
            path = f"M{a} {a}{turn}{corner}z"
            parts.append(f'<path d="{path}" fill="{colours[bucket]}" opacity=".35"/>')
    else:
        grey = svg.runs(bins.elsewhere & (bins.seen == 0))
        parts.append(f'<path d="{grey}" fill="{style.ELSEWHERE}"/>')
    for bucket in np.unique(bins.bucket[bins.seen > 0]):
        for level in range(1, _LEVELS + 1):
            chosen = (bins.bucket == bucket) & (levels == level)
            if chosen.any():
                fill = f'fill="{colours[bucket]}" opacity="{level / _LEVELS:g}"'
                parts.append(f'<path d="{svg.runs(chosen)}" {fill}/>')
    return [*parts, "</g>"]


def _shade_of_bins(bucketing: Bucketing) -> str:
    """Outline in bins what the window covers."""
    n, edges = bucketing.length, np.arange(_BINS + 1) * bucketing.length // _BINS
    first, last = bucketing.window_first[edges[:-1]], bucketing.window_last[edges[1:] - 1]
    left, right = first * _BINS // n, -(-(last + 1) * _BINS // n)
    return "".join(
        f"M{a} {row}h{b - a}v1h{a - b}z"
        for row, (a, b) in enumerate(zip(left, right, strict=True))
        if a < b
    )


def _image_of(
    bucketing: Bucketing, round: int, order: np.ndarray, in_sorted_order: bool
) -> np.ndarray:
    """Number what to draw for every pair, the more important the higher."""
    kinds = bucketing.kinds(round)[order][:, order]
    bucket = np.broadcast_to(bucketing.buckets[round][order][:, None], kinds.shape)
    image = np.zeros(kinds.shape, dtype=np.int64)
    if not in_sorted_order:
        image[kinds == ELSEWHERE] = _ELSEWHERE
    lost = (kinds == LOST) | (kinds == FOUND)
    image[lost] = _LOST_FROM + bucket[lost]
    seen = kinds == SEEN
    image[seen] = _LOST_FROM + bucketing.n_buckets + bucket[seen]
    return image


def _binned(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Let neighbours share a cell when there are too many, keeping the most important of them."""
    share = 1 if len(image) <= _MOST_CELLS else ceil(len(image) / _SHARED_CELLS)
    cells = ceil(len(image) / share)
    image = np.pad(image, (0, cells * share - len(image)))
    return image.reshape(cells, share, cells, share).max(axis=(1, 3)), share


def _lost(chosen: np.ndarray, colour: str, hollow: bool) -> str:
    if not hollow:
        return f'<path d="{svg.runs(chosen)}" fill="{colour}" opacity=".4"/>'
    squares = "".join(f"M{key}.2 {query}.2h.6v.6h-.6z" for query, key in np.argwhere(chosen))
    return f'<path d="{squares}" fill="none" stroke="{colour}" stroke-width=".2"/>'


def _all_single(labels: tuple[str, ...] | None) -> bool:
    """Say whether every label is one character that XML may hold."""
    return labels is not None and all(len(label) == 1 and label.isprintable() for label in labels)
