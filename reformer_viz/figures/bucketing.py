"""The picture of one round: reading order, sorted order, and who sees whom."""

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle
from matplotlib.path import Path

from reformer_viz import style
from reformer_viz.figures.names import name_in_cell
from reformer_viz.measure.bucketing import (
    ELSEWHERE,
    FOUND,
    HIDDEN,
    LOST,
    MOST_PAIRWISE,
    SEEN,
    Bucketing,
)

TOKENS, HASH, SORT, CUT, LOOK = range(5)
"""How far a picture goes: the sequence, its buckets, sorted order, chunks, and who sees whom."""

# Heights in the strip of tokens, whose cells are one unit wide and ROW high.
ROW, READING, SORTED, BAR = 1.0, 5.2, 0.0, 1.25
_GAP_SHARE = 0.09  # of the strip's width, for the gaps between chunks
_MOST_TOKENS, _MOST_CURVES = 1024, 512  # drawn in the strip: of more, only some
_BINS = 256  # along a matrix's side for long sequences
_STRIP, _CELL = 475, 18  # points: the strip's cells side by side, and the height of one
_UNDRAWN = chr(0x250)  # the first letter that not every machine's font has
_ROOM_FOR_A_LABEL = 100  # tokens: more, and a letter no longer fits its cell
_ROOM_FOR_HATCHES = 512  # tokens: more, and hatches run into each other
_WINDOW = -1.7  # height of the chosen token's window, below the names of the chunks
_FAINT, _FAINT_WAY = 0.18, 0.12  # what a chosen token has nothing to do with
_TINT = 0.4  # how much of its bucket's colour a lost pair has where it is one
_ROOM_FOR_OUTLINES = 130  # tokens: more, and a lost pair is a tint instead of a hollow square


def plot_bucketing(
    bucketing: Bucketing, round: int | None = None, token: int | None = None, step: int = LOOK
) -> Figure:
    """Draw a round: tokens by bucket, their way into sorted order, chunks, and who sees whom.

    Below the strip the same pairs stand twice, in sorted order, where what may be seen lies near
    the diagonal, and in reading order. Filled: seen in this round. Hollow: one bucket, but lost to
    the window. Grey: seen by another round. None draws round 0. With a `token` only those are lit
    that it sees, its window stands below, and its row is framed. `step`, TOKENS to LOOK, is how far
    the picture goes; a token has something to look at in the last one.
    """
    round = 0 if round is None else round
    bucketing.check_round(round)
    lit = lit_kinds(bucketing, round, token, step)
    token = token if step == LOOK else None
    figure = style.new_figure(9.0, 7.6)
    axes = figure.subplot_mosaic(
        [["strip", "strip"], ["sorted", "reading"]], height_ratios=[1.0, 2.1]
    )
    _plot_strip(axes["strip"], bucketing, round, token, step, lit)
    _plot_sorted(axes["sorted"], bucketing, round, blank=step < LOOK)
    _plot_reading(axes["reading"], bucketing, round, blank=step < LOOK)
    if token is not None:
        _frame_row(axes["sorted"], bucketing, bucketing.slot[round], token, lit)
        _frame_row(axes["reading"], bucketing, np.arange(bucketing.length), token, lit)
    _add_key(figure, bucketing)
    return figure


def lit_kinds(bucketing: Bucketing, round: int, token: int | None, step: int) -> np.ndarray:
    """Return what to draw of every token: all are seen until, in the last step, one is chosen."""
    if not TOKENS <= step <= LOOK:
        raise ValueError(f"step must be in {TOKENS}..{LOOK}, got {step}")
    if token is None:
        return np.full(bucketing.length, SEEN)
    bucketing.check_token(token)
    if step < LOOK:
        return np.full(bucketing.length, SEEN)
    kinds = bucketing.kinds_for(round, token)
    kinds[token] = SEEN
    return kinds


def _plot_strip(
    axes: Axes, bucketing: Bucketing, round: int, token: int | None, step: int, lit: np.ndarray
) -> None:
    reading_x = np.arange(bucketing.length) * (1 + _GAP_SHARE)
    sorted_x = _placed(bucketing.slot[round], bucketing, step)
    every = ceil(bucketing.length / _MOST_TOKENS)
    shown = np.arange(0, bucketing.length, every), np.sort(bucketing.order[round][::every])
    rows = [(shown[0], reading_x, READING), (shown[1], sorted_x, SORTED)]
    for row in rows if step >= SORT else rows[:1]:
        bars = _cells(axes, *row, bucketing, round, lit, hashed=step > TOKENS)
        if token is not None:
            _light(axes, bars, *row, bucketing, round, token, lit)
    if step >= SORT:
        _curves(axes, reading_x, sorted_x, bucketing, round, token, lit)
        _name_buckets(axes, bucketing, round, step)
    if step >= CUT:
        _name_chunks(axes, bucketing)
    rows = {"reading order": READING + 0.5}
    if step >= SORT:
        rows |= {"bucket": BAR + 0.5, "sorted order": 0.5}
    if step >= CUT:
        rows["chunk"] = -0.8
    if token is not None and bucketing.real[token]:
        _draw_window(axes, bucketing, round, token)
        rows["its window"] = _WINDOW
    style.dress(
        axes,
        f"{bucketing.length:,} tokens, {bucketing.n_buckets:,} buckets, "
        f"chunks of {bucketing.chunk_length:,}: round {round} of 0–{bucketing.n_rounds - 1}",
    )
    axes.set(
        xlim=(-0.3, bucketing.length * (1 + _GAP_SHARE)),
        ylim=(min(-0.8, *rows.values()) - 0.4, READING + ROW + 0.1),
    )
    axes.set_yticks(list(rows.values()), list(rows))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _placed(slot: np.ndarray, bucketing: Bucketing, step: int) -> np.ndarray:
    """Place slots along the strip: until they are cut into chunks, side by side."""
    return _with_gaps(slot, bucketing) if step >= CUT else slot * (1 + _GAP_SHARE)


def _with_gaps(slot: np.ndarray, bucketing: Bucketing) -> np.ndarray:
    """Place slots along the strip, with a gap between chunks that fills the strip's spare width."""
    n_chunks = ceil(bucketing.length / bucketing.chunk_length)
    gap = _GAP_SHARE * bucketing.length / max(1, n_chunks - 1)
    return slot + gap * (slot // bucketing.chunk_length)


def _cells(
    axes: Axes,
    shown: np.ndarray,
    left: np.ndarray,
    bottom: float,
    bucketing: Bucketing,
    round: int,
    lit: np.ndarray,
    hashed: bool,
) -> BarContainer:
    """Draw some tokens as cells, white before they are hashed; `left` says for every token where.

    Returns the cells.
    """
    colours = style.bucket_colours(bucketing.n_buckets)
    buckets = bucketing.buckets[round]
    face = [colours[bucket] if hashed else style.PAPER for bucket in buckets]
    width = 0.9 if bucketing.length <= 200 else bucketing.length / len(shown)
    faces = [face[token] for token in shown]
    hatched = style.needs_hatching(bucketing.n_buckets) and bucketing.length <= _ROOM_FOR_HATCHES
    bars = axes.bar(left[shown], ROW, width, bottom, align="edge", color=faces, linewidth=0)
    for token, bar in zip(shown, bars, strict=True):
        if not bucketing.real[token]:
            bar.set(facecolor="none", edgecolor=style.MUTED, linewidth=0.5, linestyle=":")
        elif not hashed:
            bar.set(edgecolor=style.MUTED, linewidth=0.5)
        elif hatched and buckets[token] % 2:
            bar.set(hatch="////", edgecolor=style.text_on(face[token]))
    if bucketing.labels is None or bucketing.length > _ROOM_FOR_A_LABEL:
        return bars
    size = min(9.0, 420 / bucketing.length)
    for token, label in enumerate(bucketing.labels):
        if not (label.isprintable() and max(label, default="") < _UNDRAWN):
            continue
        words, upright = name_in_cell(label, _STRIP / bucketing.length, _CELL, min(size, 6.5))
        middle = left[token] + width / 2, bottom + ROW / 2
        how = {"fontsize": size if len(label) == 1 else min(size, 6.5), "rotation": 90 * upright}
        axes.text(
            *middle,
            words,
            **how,
            ha="center",
            va="center",
            color=style.text_on(face[token]) if lit[token] == SEEN else style.INK,
            parse_math=False,
        )
    return bars


def _light(
    axes: Axes,
    bars: BarContainer,
    shown: np.ndarray,
    left: np.ndarray,
    bottom: float,
    bucketing: Bucketing,
    round: int,
    chosen: int,
    lit: np.ndarray,
) -> None:
    """Leave lit the cells that a chosen token sees, hollow those it loses, and frame its own."""
    colours = style.bucket_colours(bucketing.n_buckets)
    for token, bar in zip(shown, bars, strict=True):
        colour = colours[bucketing.buckets[round, token]]
        if lit[token] in (LOST, FOUND):
            bar.set(facecolor=style.PAPER, edgecolor=colour, linewidth=1.2, hatch=None)
        elif lit[token] != SEEN and bucketing.real[token]:
            bar.set(alpha=_FAINT, hatch=None)
    width = bars[0].get_width()
    dots = np.flatnonzero((lit == ELSEWHERE) | (lit == FOUND))
    size = min(6.0, 400 / bucketing.length)
    axes.scatter(left[dots] + width / 2, np.full(len(dots), bottom - 0.16), size, style.MUTED)
    frame = Rectangle((left[chosen], bottom), width, ROW, fill=False, edgecolor=style.INK)
    axes.add_patch(frame)
    frame.set(linewidth=1.6, zorder=4)


def _draw_window(axes: Axes, bucketing: Bucketing, round: int, token: int) -> None:
    """Draw the slots that the window covers, and in them, darker, those that may be seen."""
    slot = bucketing.slot[round, token]
    for first, last, height, colour in (
        (bucketing.window_first[slot], bucketing.window_last[slot], 0.5, style.SHADE),
        (bucketing.first[round, slot], bucketing.last[round, slot], 0.2, style.INK),
    ):
        if first <= last:
            ends = np.array([first, min(last, bucketing.length - 1)])
            left, right = _with_gaps(ends, bucketing)
            axes.barh(_WINDOW, right + 0.9 - left, height, left, color=colour)


def _frame_row(
    axes: Axes, bucketing: Bucketing, place: np.ndarray, token: int, lit: np.ndarray
) -> None:
    """Frame a token's row of a matrix; where pairs share bins, tick the keys that it sees."""
    row = Rectangle((-0.5, place[token] - 0.5), bucketing.length, 1, fill=False, zorder=4)
    row.set(edgecolor=style.INK, linewidth=0.9)
    axes.add_patch(row)
    if bucketing.length > MOST_PAIRWISE:
        keys = np.flatnonzero((lit == SEEN) & (np.arange(bucketing.length) != token))
        at = place[keys], np.full(len(keys), place[token])
        axes.plot(*at, "|", color=style.INK, markersize=5, zorder=4)


def _curves(
    axes: Axes,
    reading_x: np.ndarray,
    sorted_x: np.ndarray,
    bucketing: Bucketing,
    round: int,
    chosen: int | None,
    lit: np.ndarray,
) -> None:
    """Lead every token from its place in the text to its place in sorted order."""
    top, bottom = READING - 0.1, BAR + 0.95
    middle = (top + bottom) / 2
    codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    colours = style.bucket_colours(bucketing.n_buckets)
    paths, edges, lines = [], [], []
    every = ceil(bucketing.length / _MOST_CURVES)
    tokens = np.flatnonzero(bucketing.real)[::every]
    if chosen is not None:  # whoever is lit shows its way, also if it is not among those few
        tokens = np.union1d(tokens, np.flatnonzero(lit != HIDDEN))
    for token in tokens:
        start, end = reading_x[token] + 0.48, sorted_x[token] + 0.45
        paths.append(Path([(start, top), (start, middle), (end, middle), (end, bottom)], codes))
        lost, own = lit[token] in (LOST, FOUND), chosen is not None and token == chosen
        strength = 0.85 if lit[token] == SEEN or lost else _FAINT_WAY
        colour = style.INK if own else colours[bucketing.buckets[round, token]]
        edges.append(to_rgba(colour, strength))
        lines.append("--" if lost else "-")
    width = min(1.3, 90 * every / bucketing.length)
    curves = PathCollection(paths, facecolor="none", edgecolor=edges, linewidth=width)
    curves.set_linestyle(lines)
    axes.add_collection(curves)


def _name_buckets(axes: Axes, bucketing: Bucketing, round: int, step: int) -> None:
    colours = style.bucket_colours(bucketing.n_buckets)
    for bucket, first, last in bucketing.runs(round):
        left, right = _placed(np.array([first, last]), bucketing, step)
        right += 0.9
        axes.bar(left, 0.16, right - left, BAR - 0.05, align="edge", color=colours[bucket])
        if right - left > bucketing.length / 60:
            x = (left + right) / 2
            axes.text(x, BAR + 0.5, bucket, ha="center", va="center", fontsize=7, color=style.INK)


def _name_chunks(axes: Axes, bucketing: Bucketing) -> None:
    starts = np.arange(0, bucketing.length, bucketing.chunk_length)
    ends = np.minimum(starts + bucketing.chunk_length, bucketing.length) - 1
    left, right = _with_gaps(starts, bucketing), _with_gaps(ends, bucketing) + 0.9
    axes.bar(left, 0.08, right - left, -0.3, align="edge", color=style.MUTED)
    for chunk in range(0, len(starts), ceil(len(starts) / 32)):
        x = (left[chunk] + right[chunk]) / 2
        axes.text(x, -0.8, chunk, ha="center", va="center", fontsize=7, color=style.MUTED)


def _plot_sorted(axes: Axes, bucketing: Bucketing, round: int, blank: bool) -> None:
    if blank:
        _plot_nothing(axes, bucketing)
    elif bucketing.length > MOST_PAIRWISE:
        _plot_bins(axes, bucketing, round, in_sorted_order=True)
    else:
        _plot_sorted_pairs(axes, bucketing, round)
    style.dress(axes, "Who sees whom, in sorted order", "slot of the key", "slot of the query")
    borders = np.arange(0, bucketing.length + 1, bucketing.chunk_length)
    for places in (axes.set_xticks, axes.set_yticks):
        shown = borders[:: ceil(len(borders) / 9)]
        places(shown - 0.5, [f"{slot:,}" for slot in shown])


def _plot_sorted_pairs(axes: Axes, bucketing: Bucketing, round: int) -> None:
    order = bucketing.order[round]
    kinds = bucketing.kinds(round)[order][:, order]
    kinds = np.where(kinds == FOUND, LOST, np.where(kinds == ELSEWHERE, 0, kinds))
    slots = np.arange(bucketing.length)
    within = (slots >= bucketing.window_first[:, None]) & (slots <= bucketing.window_last[:, None])
    _plot_pairs(axes, kinds, bucketing.buckets[round][order], bucketing.n_buckets, within)


def _plot_nothing(axes: Axes, bucketing: Bucketing) -> None:
    """Leave a matrix empty, which a later step fills."""
    end = bucketing.length - 0.5
    axes.imshow(np.ones((1, 1, 3)), extent=(-0.5, end, end, -0.5))


def _plot_reading(axes: Axes, bucketing: Bucketing, round: int, blank: bool) -> None:
    if blank:
        _plot_nothing(axes, bucketing)
    elif bucketing.length > MOST_PAIRWISE:
        _plot_bins(axes, bucketing, round, in_sorted_order=False)
    else:
        kinds = bucketing.kinds(round)
        nothing = np.zeros_like(kinds, dtype=bool)
        _plot_pairs(axes, kinds, bucketing.buckets[round], bucketing.n_buckets, nothing)
    style.dress(axes, "The same pairs, in reading order", "position of the key")
    axes.set_ylabel("position of the query", fontsize=style.RC["font.size"], color=style.MUTED)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")


def _plot_pairs(
    axes: Axes, kinds: np.ndarray, bucket_of_row: np.ndarray, n_buckets: int, shaded: np.ndarray
) -> None:
    length = len(kinds)
    colours = np.array([to_rgb(colour) for colour in style.bucket_colours(n_buckets)])
    of_row = np.broadcast_to(colours[bucket_of_row][:, None], (length, length, 3))
    image = np.ones((length, length, 3))
    image[shaded] = to_rgb(style.SHADE)
    image[(kinds == ELSEWHERE) | (kinds == FOUND)] = to_rgb(style.ELSEWHERE)
    lost = (kinds == LOST) | (kinds == FOUND)
    if length > _ROOM_FOR_OUTLINES:
        image[lost] = _TINT * of_row[lost] + (1 - _TINT)
    else:
        squares = [
            Rectangle((key - 0.32, query - 0.32), 0.64, 0.64) for query, key in np.argwhere(lost)
        ]
        width = min(1.0, 45 / length)
        axes.add_collection(
            PatchCollection(squares, facecolor="none", edgecolor=of_row[lost], linewidth=width)
        )
    image[kinds == SEEN] = of_row[kinds == SEEN]
    axes.imshow(image, interpolation="nearest")


def _plot_bins(axes: Axes, bucketing: Bucketing, round: int, in_sorted_order: bool) -> None:
    """Draw many pairs in bins: the darker, the more; ink where several buckets share a bin."""
    bins = bucketing.binned(round, in_sorted_order, _BINS)
    inks = [*style.bucket_colours(bucketing.n_buckets), style.INK]  # the last is SEVERAL's
    colours = np.array([to_rgb(colour) for colour in inks])[bins.bucket]
    seen, grey = bins.seen > 0, bins.elsewhere & (not in_sorted_order)
    depth = 0.25 + 0.75 * np.sqrt(bins.seen / max(1, bins.seen.max()))
    colours = np.where(seen[..., None], colours, to_rgb(style.ELSEWHERE))
    image = np.dstack([colours, np.where(seen, depth, grey)])
    end = bucketing.length - 0.5
    axes.imshow(image, interpolation="nearest", extent=(-0.5, end, end, -0.5), zorder=2)
    for bucket, first, last in bucketing.runs(round) if in_sorted_order else ():
        corners = np.array([(first, first), (last, first), (last, last), (first, last)])
        block = Polygon(corners[[0, 2, 3]] if bucketing.causal else corners, zorder=1)
        block.set(facecolor=inks[bucket], alpha=_TINT, linewidth=0)
        axes.add_patch(block)


def _add_key(figure: Figure, bucketing: Bucketing) -> None:
    """Name the colours, of which a bucket in the middle is the example."""
    example = style.bucket_colours(bucketing.n_buckets)[(bucketing.n_buckets - 1) // 2]
    binned, lost = bucketing.length > MOST_PAIRWISE, "same bucket, lost to the window"
    tint = Patch(facecolor=example, alpha=_TINT, linewidth=0, label=lost)
    hollow = Patch(facecolor="none", edgecolor=example, label=lost)
    seen = "seen by this round" + binned * " (stronger: more pairs)"
    style.add_key(
        figure,
        [
            Patch(color=example, label=seen),
            *([Patch(color=style.INK, label="of several buckets")] if binned else []),
            tint if bucketing.length > _ROOM_FOR_OUTLINES else hollow,
            Patch(color=style.ELSEWHERE, label="seen by another round"),
            Patch(color=style.SHADE, label="the window"),
        ],
        rows=1 + binned,
    )
