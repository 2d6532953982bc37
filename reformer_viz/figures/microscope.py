"""The picture of one head under the microscope: text, sorted order and matrix, whole and near."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Patch, Polygon, Rectangle

from reformer_viz import style
from reformer_viz.measure.bucketing import ELSEWHERE, FOUND, HIDDEN, LOST, SEEN
from reformer_viz.measure.microscope import Microscope

DETAIL = 64
"""How many tokens a detail shows, and at most with their names."""

_BINS = 256
_FONT = "DejaVu Sans Mono"  # comes with Matplotlib
_FAINT = 0.16  # what is not lit, beside the same colour at full strength
_BESIDE = 0.3  # the same of pairs that are not the chosen token's
_MOST_LETTERS = 8  # of a name that is written out
_ROWS, _COLUMNS = 45, 180  # of a square: the least that its chosen row and a key in it are wide


def plot_microscope(
    microscope: Microscope, round: int | None = None, token: int | None = None
) -> Figure:
    """Draw a round, or what it does with one token: all of the sequence, and 64 tokens of it.

    Above, the text and the same tokens in sorted order. Below, all pairs in reading order, and the
    pairs of 64 slots of sorted order. Filled: seen in this round. Hollow: one bucket, but lost to
    the window. Grey: seen by another round. Everywhere the chosen token's pairs stand out, and bars
    show their weights. None draws round 0, and no token.
    """
    round = 0 if round is None else round
    microscope.check_round(round)
    if token is not None:
        microscope.check_token(token)
    figure = style.new_figure(9.0, 8.6)
    axes = figure.subplot_mosaic(
        [["text", "text"], ["sorted", "sorted"], ["all", "near"]], height_ratios=[1.0, 1.0, 4.0]
    )
    order = np.arange(microscope.length)
    _plot_row(axes["text"], microscope, round, token, order, in_sorted_order=False)
    order = microscope.order[round]
    _plot_row(axes["sorted"], microscope, round, token, order, in_sorted_order=True)
    _plot_all(axes["all"], microscope, round, token)
    _plot_near(axes["near"], microscope, round, token)
    _add_key(figure)
    return figure


def start_of_detail(at: int | None, length: int, shown: int = DETAIL) -> int:
    """Return where a detail of so many begins that has a place in its middle."""
    return 0 if at is None else max(0, min(length - shown, at - shown // 2))


def letters_of(labels: Sequence[str]) -> int:
    """Return how long nine of ten names are, as far as names are written out."""
    lengths = sorted(map(len, labels))
    return max(1, min(_MOST_LETTERS, lengths[9 * (len(lengths) - 1) // 10]))


def room_for_names(microscope: Microscope) -> int:
    """Return how many tokens have room for their names in a row of 800 pixels, as in the page."""
    return min(DETAIL, microscope.length, 756 // (5 * letters_of(microscope.labels) + 4))


def short_names(microscope: Microscope) -> tuple[str, ...]:
    """Return names that fit: of longer ones the beginning, and an ellipsis."""
    most = max(2, letters_of(microscope.labels))
    return tuple(x if len(x) <= most else f"{x[: most - 1]}…" for x in microscope.labels)


def lit_kinds(microscope: Microscope, round: int, token: int | None) -> np.ndarray:
    """Return what to draw of every token: without a chosen one, all but padding are lit."""
    if token is None:
        return np.where(microscope.real, SEEN, HIDDEN)
    kinds = microscope.kinds(round, token)
    kinds[token] = SEEN
    return kinds


def _plot_row(
    axes: Axes,
    microscope: Microscope,
    round: int,
    token: int | None,
    order: np.ndarray,
    in_sorted_order: bool,
) -> None:
    """Draw all tokens in a row, and below it 64 of them with their names; one unit a token."""
    kinds, length = lit_kinds(microscope, round, token)[order], microscope.length
    slot = microscope.slot[round]
    at = None if token is None else int(slot[token] if in_sorted_order else token)
    shown = room_for_names(microscope)
    start, names = start_of_detail(at, length, shown), short_names(microscope)
    colours = _colours(microscope, round)[order]
    image = np.where((kinds == SEEN)[:, None], colours, _FAINT * colours + 1 - _FAINT)
    axes.imshow(image[None], extent=(0, shown, 2.5, 3.3), aspect="auto", interpolation="nearest")
    scale = shown / length
    for place in np.flatnonzero((kinds == LOST) | (kinds == FOUND)):
        axes.bar(place * scale, 0.25, scale, 2.5, align="edge", color=colours[place])
    corners = [(start * scale, 2.45), ((start + shown) * scale, 2.45), (shown, 1.5), (0, 1.5)]
    axes.add_patch(Polygon(corners, color=style.SHADE, linewidth=0))
    for k in range(start, start + shown):
        chosen, name = order[k] == token, _printable(names[order[k]])
        _plot_cell(axes, name, k - start, int(kinds[k]), colours[k], chosen, shown)
    _plot_weights(axes, microscope, token, np.argsort(order), start, shown)
    _name_row(axes, microscope, round, start, shown, in_sorted_order)


def _colours(microscope: Microscope, round: int) -> np.ndarray:
    colours = style.bucket_colours(microscope.n_buckets)
    return np.array([to_rgb(colours[bucket]) for bucket in microscope.buckets[round]])


def _plot_cell(
    axes: Axes,
    name: str,
    x: int,
    kind: int,
    colour: np.ndarray,
    chosen: bool | np.bool_,
    shown: int,
) -> None:
    lost = kind in (LOST, FOUND)
    face = colour if kind == SEEN else _FAINT * colour + 1 - _FAINT
    axes.add_patch(
        Rectangle(
            (x + 0.05, 0),
            0.9,
            1.0,
            facecolor=style.PAPER if lost else face,
            edgecolor=style.INK if chosen else colour if lost else "none",
            linewidth=1.5 if chosen else 1.2,
        )
    )
    if kind in (ELSEWHERE, FOUND):
        axes.bar(x + 0.05, 0.12, 0.9, -0.22, align="edge", color=style.MUTED)
    axes.text(
        x + 0.5,
        0.45,
        name,
        ha="center",
        va="center",
        family=_FONT,
        fontsize=min(8, 900 / max(12, shown) / max(1, len(name))),
        color=style.text_on(_hex(face)) if kind == SEEN else style.INK,
    )


def _printable(label: str) -> str:
    """Put a box where the font has no picture of a character."""
    return "".join(character if ord(character) in _pictured() else "□" for character in label)


@cache
def _pictured() -> frozenset[int]:
    return frozenset(get_font(findfont(_FONT)).get_charmap())


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{int(255 * channel):02X}" for channel in colour)


def _plot_weights(
    axes: Axes,
    microscope: Microscope,
    token: int | None,
    place: np.ndarray,
    start: int,
    shown: int,
) -> None:
    """Raise a bar over every key that the chosen token gives weight to, in both rows."""
    if token is None or microscope.weights is None:
        return
    keys, shares = microscope.weights.of(token)
    if not len(keys):
        return
    height, scale = shares / shares.max(), shown / microscope.length
    axes.bar(
        (place[keys] + 0.5) * scale, 0.7 * height, max(0.15, 0.6 * scale), 3.35, color=style.INK
    )
    near = (place[keys] >= start) & (place[keys] < start + shown)
    axes.bar(place[keys][near] - start + 0.5, 0.6 * height[near], 0.35, 1.05, color=style.INK)


def _name_row(
    axes: Axes,
    microscope: Microscope,
    round: int,
    start: int,
    shown: int,
    in_sorted_order: bool,
) -> None:
    title = (
        f"Round {round}: sorted by bucket, cut into chunks of {microscope.chunk_length:,}"
        if in_sorted_order
        else f"Layer {microscope.layer}, head {microscope.head}: the text, "
        f"{microscope.length:,} tokens"
    )
    style.dress(axes, title, x="slot" if in_sorted_order else "position")
    step = microscope.chunk_length if in_sorted_order else max(1, shown // 8)
    ticks = [k for k in range(start, start + shown) if k % step == 0]
    axes.set_xticks([k - start + 0.5 for k in ticks], [f"{k:,}" for k in ticks])
    if in_sorted_order:
        axes.vlines([k - start for k in ticks if k > start], -0.3, 1.3, style.INK, linewidth=0.8)
    axes.set_yticks([2.9, 0.5], ["all", f"{shown} of them"])
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-0.1, shown + 0.1), ylim=(-0.35, 4.2))
    axes.spines[:].set_visible(False)


def _plot_all(axes: Axes, microscope: Microscope, round: int, token: int | None) -> None:
    """Draw all pairs in reading order, in bins where they are many."""
    length, bins = microscope.length, min(_BINS, microscope.length)
    here, any_round = microscope.seen_binned(bins, round), microscope.seen_binned(bins)
    strength = np.minimum(1, 0.35 + here / max(1, here.max()))[..., None]
    image = np.ones((bins, bins, 3))
    image[any_round > 0] = to_rgb(style.ELSEWHERE)
    ink = strength * np.array(to_rgb(style.PALETTE[0])) + 1 - strength
    image[here > 0] = ink[here > 0]
    if token is not None:
        image = _faded(image)
    axes.imshow(image, extent=(0, length, length, 0), interpolation="nearest")
    if token is not None:
        _plot_row_of_all(axes, microscope, round, token)
    title = "All pairs, in reading order; blue: seen by this round"
    style.dress(axes, title, "position of the key", "position of the query")


def _plot_row_of_all(axes: Axes, microscope: Microscope, round: int, token: int) -> None:
    """Draw one query's pairs, as high and as wide as can be seen."""
    length, kinds = microscope.length, microscope.kinds(round, token)
    high, wide = max(1.0, length / _ROWS), max(1.0, length / _COLUMNS)
    top = min(max(0.0, token + 0.5 - high / 2), length - high)
    row = {"xy": (0, top), "width": length, "height": high}
    axes.add_patch(Rectangle(**row, color=style.PAPER))
    looks = (
        ((ELSEWHERE, FOUND), {"color": style.ELSEWHERE, "linewidth": 0}),
        ((LOST, FOUND), {"fill": False, "edgecolor": style.PALETTE[0], "linewidth": 0.8}),
        ((SEEN,), {"color": style.PALETTE[0], "linewidth": 0}),
    )
    for of_kind, look in looks:
        keys = np.flatnonzero(np.isin(kinds, of_kind))
        axes.bar(keys, high, wide, top, align="edge", **look)
    axes.add_patch(Rectangle(**row, fill=False, color=style.INK))
    if microscope.weights is not None:
        keys, shares = microscope.weights.of(token)
        _raise_bars(axes, keys + 0.5, shares, top, length, wide)


def _plot_near(axes: Axes, microscope: Microscope, round: int, token: int | None) -> None:
    """Draw the pairs of 64 slots of sorted order, around the chosen token's."""
    slots = microscope.slot[round]
    at = None if token is None else int(slots[token])
    start, shown = start_of_detail(at, microscope.length), min(DETAIL, microscope.length)
    tokens = microscope.order[round, start : start + shown]
    kinds, colours = microscope.kinds_among(round, tokens), _colours(microscope, round)[tokens]
    of_row = np.broadcast_to(colours[:, None], (shown, shown, 3)).copy()
    image = np.ones((shown, shown, 3))
    image[(kinds == ELSEWHERE) | (kinds == FOUND)] = to_rgb(style.ELSEWHERE)
    image[kinds == SEEN] = of_row[kinds == SEEN]
    if at is not None:
        others = np.arange(shown) != at - start
        image[others], of_row[others] = _faded(image[others]), _faded(of_row[others])
    edges = (start - 0.5, start + shown - 0.5, start + shown - 0.5, start - 0.5)
    axes.imshow(image, extent=edges, interpolation="nearest")
    lost = (kinds == LOST) | (kinds == FOUND)
    squares = [
        Rectangle((start + key - 0.32, start + query - 0.32), 0.64, 0.64)
        for query, key in np.argwhere(lost)
    ]
    axes.add_collection(
        PatchCollection(squares, facecolor="none", edgecolor=of_row[lost], linewidth=0.7)
    )
    if at is not None:
        axes.add_patch(Rectangle((start - 0.5, at - 0.5), shown, 1, fill=False, color=style.INK))
        if microscope.weights is not None:
            keys, shares = microscope.weights.of(token)
            near = (slots[keys] >= start) & (slots[keys] < start + shown)
            _raise_bars(axes, slots[keys][near], shares[near], at - 0.5, shown, 1.0)
    title = f"{shown} slots of sorted order; colours: buckets"
    style.dress(axes, title, "slot of the key", "slot of the query")


def _faded(image: np.ndarray) -> np.ndarray:
    return 1 - _BESIDE * (1 - image)


def _raise_bars(
    axes: Axes,
    places: np.ndarray,
    shares: np.ndarray,
    foot: float,
    side: int,
    wide: float,
) -> None:
    """Stand a query's weights on its row of a square, whose places count down from its top."""
    if len(shares):
        heights, limits = 0.06 * side * shares / shares.max(), axes.get_ylim()
        axes.bar(places, -heights, 0.6 * wide, foot, color=style.INK)
        axes.set_ylim(limits)


def _add_key(figure: Figure) -> None:
    example = style.PALETTE[0]
    style.add_key(
        figure,
        [
            Patch(color=example, label="seen by this round"),
            Patch(facecolor="none", edgecolor=example, label="one bucket, lost to the window"),
            Patch(color=style.ELSEWHERE, label="shown by another round"),
            Patch(color=style.INK, label="bars: weight"),
        ],
    )
