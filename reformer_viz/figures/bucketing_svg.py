"""The picture of one round as SVG: the same bytes on every machine, and small enough to store."""

from html import escape
from math import ceil

import numpy as np

from reformer_viz import style
from reformer_viz.figures import svg
from reformer_viz.figures.bucketing import CUT, LOOK, SORT, TOKENS, lit_kinds
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
_FRAME = f'<path d="M0 0h1v1h-1z" fill="none" stroke="{style.MUTED}" stroke-width=".003"/>'
_SMALL = 9  # letters of names that are words
_LOST_FROM, _ELSEWHERE = 2, 1  # numbers in a square's image; seen pairs follow the lost ones


def draw_svg(
    bucketing: Bucketing, round: int = 0, token: int | None = None, step: int = LOOK
) -> str:
    """Draw a round as `plot_bucketing` does, for places where no script runs.

    Stands on a white card of its own, because a still picture cannot follow a dark page.
    """
    bucketing.check_round(round)
    lit = lit_kinds(bucketing, round, token, step)
    token = token if step == LOOK else None
    n, side = bucketing.length, (WIDTH - LEFT - RIGHT - 28) // 2
    height = SQUARES + side + RIGHT
    ways = bucketing.order[round], np.arange(n)
    titles = "sorted order: near the diagonal", "reading order: scattered; other rounds in grey"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="{style.INK}">',
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="{style.PAPER}"/>',
        *_strip(bucketing, round, token, step, lit),
    ]
    places = bucketing.slot[round], np.arange(n)
    for k, (order, title) in enumerate(zip(ways, titles, strict=True)):
        x = LEFT + k * (side + 28)
        parts.append(svg.text(title, x, SQUARES - 8, anchor="start"))
        parts.append(f'<g transform="translate({x} {SQUARES}) scale({side})">')
        if step < LOOK:
            parts.append(_FRAME)
        elif n > MOST_PAIRWISE:
            parts += _square_of_bins(bucketing, round, in_sorted_order=k == 0)
        else:
            parts += _square(bucketing, round, order, in_sorted_order=k == 0)
        if token is not None:
            parts += _framed_row(places[k], token, lit)
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _framed_row(place: np.ndarray, token: int, lit: np.ndarray) -> list[str]:
    """Frame a token's row of a square; where pairs share bins, tick the keys that it sees."""
    n, row = len(place), place[token] / len(place)
    frame = f'<path d="M0 {row:.5f}h1v{1 / n:.5f}H0z" fill="none" stroke="{style.INK}" '
    parts = [f'{frame}stroke-width=".004"/>']
    if n > MOST_PAIRWISE:
        keys = place[(lit == SEEN) & (np.arange(n) != token)]
        ticks = "".join(f"M{svg.number(key / n, 4)} {row - 0.006:.4f}v.012" for key in keys)
        parts.append(f'<path d="{ticks}" stroke="{style.INK}" stroke-width=".003"/>')
    return parts


def _strip(
    bucketing: Bucketing, round: int, token: int | None, step: int, lit: np.ndarray
) -> list[str]:
    """Draw the tokens in both orders, the ways between, and the names of buckets and chunks."""
    n, m = bucketing.length, bucketing.chunk_length
    room, n_chunks = WIDTH - LEFT - RIGHT, ceil(n / m)
    gap = min(GAP, 0.25 * room / n_chunks)
    one, two = room / n, (room - gap * (n_chunks - 1)) / n
    reading_x = LEFT + one * np.arange(n)
    if step < CUT:
        gap, two = 0, one
    slot_x = LEFT + two * np.arange(n) + gap * (np.arange(n) // m)
    sorted_x = slot_x[bucketing.slot[round]]
    parts = [
        svg.text(name, LEFT - 10, y, anchor="end")
        for name, y, since in (
            ("reading order", READING + 15, TOKENS),
            ("bucket", SORTED - 11, SORT),
            ("sorted order", SORTED + 15, SORT),
            ("chunk", SORTED + ROW + 18, CUT),
        )
        if step >= since
    ]
    if step >= SORT:
        parts += _curves(bucketing, round, reading_x + one / 2, sorted_x + two / 2, token, lit)
    every = ceil(n / _MOST_TOKENS)
    rows = [
        (np.arange(n), reading_x, READING, one),
        (bucketing.order[round], sorted_x, SORTED, two),
    ]
    for way, x, y, width in rows if step >= SORT else rows[:1]:
        shown, cell = np.sort(way[::every]), width * every
        parts += _cells(bucketing, round, shown, x, y, cell, lit, hashed=step > TOKENS)
        if token is not None:
            if every > 1:  # those that it sees, also if they are not among the few
                seen = np.flatnonzero(lit == SEEN)
                parts += _cells(bucketing, round, seen, x, y, max(1.0, width), lit, hashed=True)
            parts += _marked(shown, x, y, cell, token, lit)
    if token is not None and bucketing.real[token]:
        parts += _window(bucketing, round, token, slot_x, two)
    if step >= SORT:
        parts += _bucket_names(bucketing, round, slot_x, two)
    return parts + (_chunk_names(bucketing, slot_x, two) if step >= CUT else [])


def _bucket_names(
    bucketing: Bucketing, round: int, slot_x: np.ndarray, two: svg.Number
) -> list[str]:
    """Write over the sorted row which buckets stand there."""
    parts = []
    colours = style.bucket_colours(bucketing.n_buckets)
    for bucket, first, last in bucketing.runs(round):
        left, right = slot_x[first], slot_x[last] + two
        parts.append(svg.rect(left, SORTED - 5, right - left - 1, 3, colours[bucket]))
        if right - left > 16:
            parts.append(svg.text(bucket, (left + right) / 2, SORTED - 10))
    return parts


def _chunk_names(bucketing: Bucketing, slot_x: np.ndarray, two: svg.Number) -> list[str]:
    """Write under the sorted row into which chunks it is cut."""
    n, m, parts = bucketing.length, bucketing.chunk_length, []
    n_chunks = ceil(n / m)
    if n_chunks > _MOST_CHUNKS:
        middle = (LEFT + WIDTH - RIGHT) / 2
        return [svg.text(f"{n_chunks:,} chunks", middle, SORTED + ROW + 18)]
    every = ceil(_ROOM_FOR_A_NUMBER * n_chunks / (WIDTH - LEFT - RIGHT))
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
    lit: np.ndarray,
    hashed: bool,
) -> list[str]:
    """Draw some tokens as cells of a width; `left` says for every token where.

    White before they are hashed, hollow if lost, and pale if a chosen token does not see them.
    """
    buckets, colours = bucketing.buckets[round], style.bucket_colours(bucketing.n_buckets)
    hatched = style.needs_hatching(bucketing.n_buckets)
    cell = width - (1 if width > 5 else 0)
    parts = []
    real = shown[bucketing.real[shown]]
    if not hashed:
        boxes = svg.path(left[real] + 0.5, top + 0.5, max(0.5, cell - 1), ROW - 1, "none")
        parts.append(f'<g stroke="{style.MUTED}">{boxes}</g>')
    lost = (lit == LOST) | (lit == FOUND)
    for bucket in np.unique(buckets[real]) if hashed else ():
        mates = real[buckets[real] == bucket]
        tokens, pale = mates[lit[mates] == SEEN], mates[(lit[mates] != SEEN) & ~lost[mates]]
        if len(tokens):
            parts.append(svg.path(left[tokens], top, cell, ROW, colours[bucket]))
        if len(pale):
            boxes = svg.path(left[pale], top, cell, ROW, colours[bucket])
            parts.append(f'<g opacity=".18">{boxes}</g>')
        if lost[mates].any():
            edge = min(2.0, cell / 4)
            sizes = top + edge / 2, cell - edge, ROW - edge, "none"
            boxes = svg.path(left[mates[lost[mates]]] + edge / 2, *sizes)
            edges = f'stroke="{colours[bucket]}" stroke-width="{svg.number(edge)}"'
            parts.append(f"<g {edges}>{boxes}</g>")
        if len(tokens) and hatched and bucket % 2:
            stripe = style.text_on(colours[bucket])
            parts.append(svg.path(left[tokens], top + ROW - 5, cell, 2, stripe))
    if bucketing.padding is not None:
        tokens = shown[bucketing.padding[shown]]
        parts.append(svg.path(left[tokens], top + ROW / 2, cell, 1, style.MUTED))
    faces = [colours[bucket] if hashed else style.PAPER for bucket in buckets]
    return parts + _names(bucketing, faces, left, top, width, lit)


def _names(
    bucketing: Bucketing,
    faces: list[str],
    left: np.ndarray,
    top: svg.Number,
    width: svg.Number,
    lit: np.ndarray,
) -> list[str]:
    """Write the tokens' names into their cells, where those have room."""
    if width < 8 or bucketing.labels is None:
        return []
    cell, parts = width - 1, []
    inks = [
        style.text_on(face if kind == SEEN else style.PAPER)
        for face, kind in zip(faces, lit, strict=True)
    ]
    for ink in sorted({*inks}):
        tokens = [i for i in range(len(left)) if inks[i] == ink]
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


def _marked(
    shown: np.ndarray,
    left: np.ndarray,
    top: svg.Number,
    cell: svg.Number,
    token: int,
    lit: np.ndarray,
) -> list[str]:
    """Frame the chosen token's cell, and put a dot under those that other rounds see."""
    dots = shown[(lit[shown] == ELSEWHERE) | (lit[shown] == FOUND)]
    size = min(3.0, cell)
    frame = svg.path(left[[token]] - 1, top - 1, cell + 2, ROW + 2, "none")
    return [
        svg.path(left[dots] + (cell - size) / 2, top + ROW + 1, size, 2, style.MUTED),
        f'<g stroke="{style.INK}" stroke-width="2">{frame}</g>',
    ]


def _window(
    bucketing: Bucketing, round: int, token: int, left: np.ndarray, width: svg.Number
) -> list[str]:
    """Draw the slots that the chosen token's window covers, and in them those that it may see."""
    slot, y = bucketing.slot[round, token], SORTED + ROW + 30
    parts = [svg.text("its window", LEFT - 10, y + 4, anchor="end")]
    for first, last, height, colour in (
        (bucketing.window_first[slot], bucketing.window_last[slot], 10, style.SHADE),
        (bucketing.first[round, slot], bucketing.last[round, slot], 4, style.INK),
    ):
        if first <= last:
            end = left[min(last, bucketing.length - 1)] + width
            parts.append(svg.rect(left[first], y - height / 2, end - left[first], height, colour))
    return parts


def _curves(
    bucketing: Bucketing,
    round: int,
    start: np.ndarray,
    end: np.ndarray,
    chosen: int | None,
    lit: np.ndarray,
) -> list[str]:
    colours = style.bucket_colours(bucketing.n_buckets)
    top, bottom = READING + ROW + 3, SORTED - 22
    middle = (top + bottom) // 2
    every = ceil(bucketing.length / _MOST_CURVES)
    weight = svg.number(min(1.8, 120 * every / bucketing.length))
    drawn = bucketing.real & (np.arange(bucketing.length) % every == 0)
    if chosen is not None:  # whoever it sees shows its way, also if it is not among those few
        drawn |= lit == SEEN
    lost = (lit == LOST) | (lit == FOUND)
    looks = (
        (lit == SEEN, 'opacity=".85"'),
        (lost, 'stroke-dasharray="3 3"'),
        ((lit != SEEN) & ~lost, 'opacity=".12"'),
    )
    parts = []

    def draw(tokens: np.ndarray, colour: str, look: str) -> None:
        ways = "".join(
            f"M{a} {top}C{a} {middle} {b} {middle} {b} {bottom}"
            for a, b in ((svg.number(start[i]), svg.number(end[i])) for i in tokens)
        )
        if ways:
            parts.append(
                f'<path d="{ways}" fill="none" stroke="{colour}" stroke-width="{weight}" {look}/>'
            )

    for bucket in range(bucketing.n_buckets):
        for chosen_ones, look in looks:
            of_bucket = (bucketing.buckets[round] == bucket) & drawn & chosen_ones
            draw(np.flatnonzero(of_bucket), colours[bucket], look)
    if chosen is not None and bucketing.real[chosen]:
        draw(np.array([chosen]), style.INK, "")
    return parts


def _square(
    bucketing: Bucketing, round: int, order: np.ndarray, in_sorted_order: bool
) -> list[str]:
    """Draw who sees whom in a square of side 1, queries in rows and keys in columns."""
    n = bucketing.length
    colours = style.bucket_colours(bucketing.n_buckets)
    image, share = _binned(_image_of(bucketing, round, order, in_sorted_order))
    cells = len(image)
    parts = [_FRAME]
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
    parts = [_FRAME]
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
