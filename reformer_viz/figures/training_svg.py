"""A run's curves and its film as SVG: the same bytes on every machine, small enough to store."""

from collections.abc import Callable

import numpy as np

from reformer_viz import style
from reformer_viz.figures.svg import Number, element, number, text
from reformer_viz.measure.recording import NOBODY
from reformer_viz.measure.training import Training

# The picture's own units; a browser scales it to the page.
WIDTH, LEFT, RIGHT = 800, 56, 12
_TOP, _PLOT, _FILM = 34, 84, 158
_MOST_POINTS, _MOST_NAMES = 200, 12
_TALLEST_ROW, _TALLEST_FILM = 16, 320
_MOST_CELLS = 12_000  # of the film: of more tokens, every so many-th has a column


def draw_svg(
    training: Training,
    layer: int = 0,
    head: int = 0,
    round: int = 0,
    snapshot: int | None = None,
    token: int | None = None,
    in_reading_order: bool = False,
) -> str:
    """Draw loss, measure and gradient norm, and below them the film of one round's buckets.

    A snapshot, a token and, dashed, the one that it seeks at last are framed. For places where no
    script runs: stands on a white card of its own, because a still picture cannot follow a dark
    page.
    """
    height, film = _FILM, []
    if training.recording is not None:
        place = layer, head, round
        training.recording.check_place(*place, snapshot=snapshot or 0, token=token)
        film, height = _draw_film(training, place, snapshot, token, in_reading_order)
    parts = [
        element("rect", width=WIDTH, height=height, rx=6, fill=style.PAPER),
        *_draw_curves(training, snapshot),
        *film,
    ]
    return element(
        "svg",
        "".join(parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        font_family="sans-serif",
        font_size=11,
        fill=style.INK,
    )


def _draw_curves(training: Training, snapshot: int | None) -> list[str]:
    """Draw three small panels side by side, each with its value at the snapshot, or its last."""
    steps, held_out = training.steps, training.evaluation_steps
    at = steps[-1]
    if training.recording is not None and snapshot is not None:
        at = training.recording.steps[snapshot]

    def value(x: np.ndarray, y: np.ndarray, in_words: Callable[[float], str]) -> str:
        known = int(np.searchsorted(x, at, "right"))
        return in_words(y[known - 1]) if known else "not measured"

    values = (
        value(steps, training.loss, "{:.3g} nats".format),
        value(held_out, training.measure, training.in_units),
        value(steps, training.gradient_norm, "{:.3g}".format),
    )
    loss = [(steps, training.loss, 0), (held_out, training.evaluation_loss, 5)]
    panels = (
        ("loss: training, held out", loss),
        (f"held-out {training.words()}", [(held_out, training.measure, 5)]),
        ("gradient norm, logarithmic", [(steps, np.log(training.gradient_norm), 0)]),
    )
    parts, room = [], (WIDTH - LEFT - RIGHT) / 3
    for k, (title, lines) in enumerate(panels):
        left, right = LEFT + k * room, LEFT + (k + 1) * room - 24
        parts += [
            text(title, left, _TOP - 14, "start"),
            text(values[k], right, _TOP - 14, "end"),
            element(
                "path", d=f"M{number(left)} {_TOP + _PLOT}H{number(right)}", stroke=style.MUTED
            ),
            text("step 0", left, _TOP + _PLOT + 14, "start"),
            text(f"{steps[-1]:,}", right, _TOP + _PLOT + 14, "end"),
        ]
        parts += _draw_lines(lines, left, right, steps[-1], from_zero=k < 2)
        if training.recording is not None and snapshot is not None:
            at = left + (right - left) * training.recording.steps[snapshot] / steps[-1]
            way = f"M{number(at)} {_TOP - 4}V{_TOP + _PLOT}"
            parts.append(element("path", d=way, stroke=style.INK))
    return parts


def _draw_lines(
    lines: list, left: Number, right: Number, n_steps: Number, from_zero: bool
) -> list[str]:
    """Draw lines over the same range of values."""
    known = np.concatenate([y for _, y, _ in lines])
    known = known[np.isfinite(known)]
    if not len(known):
        return []
    low, high = 0.0 if from_zero else known.min(), known.max()
    span = (high - low) or 1.0
    parts = []
    for x, y, colour in lines:
        shown = slice(None, None, max(1, -(-len(x) // _MOST_POINTS)))
        across = left + (right - left) * x[shown] / n_steps
        down = _TOP + _PLOT * (1 - (y[shown] - low) / span)
        there = np.isfinite(down)
        points = zip(across[there], down[there], strict=True)
        line = " ".join(f"{number(a, 1)},{number(d, 1)}" for a, d in points)
        colour = style.PALETTE[colour]
        parts.append(element("polyline", points=line, fill="none", stroke=colour, stroke_width=1.5))
    return parts


def _draw_film(
    training: Training,
    layer_head_round: tuple[int, int, int],
    snapshot: int | None,
    chosen: int | None,
    in_reading_order: bool,
) -> tuple[list[str], int]:
    """Draw a row for every snapshot and a column for every token, in the last one's order.

    Where those would be too many to store, every so many-th token stands for its neighbours.
    """
    recording, (layer, head, round) = training.recording, layer_head_round
    order = recording.last_order(layer, head, round)
    if in_reading_order:
        order = np.arange(len(order))
    every = -(-len(order) * len(recording.steps) // _MOST_CELLS)
    buckets = recording.buckets[:, layer, head, round][:, order[::every]]
    n_rows, n = buckets.shape
    row = min(_TALLEST_ROW, _TALLEST_FILM / n_rows)
    one, top, bottom = (WIDTH - LEFT - RIGHT) / n, _FILM + 24, _FILM + 24 + n_rows * row
    place = f"layer {recording.layers[layer]}, head {head}, round {round}"
    title = f"buckets of a probe, {place}: a row for every snapshot"
    parts = [text(title, LEFT, _FILM + 14, "start")]
    for bucket, colour in enumerate(style.bucket_colours(recording.rule["n_buckets"])):
        runs = "".join(
            f"M{number(LEFT + first * one)} {number(top + at * row)}"
            f"h{number((last - first) * one)}v{number(row - 0.5)}h-{number((last - first) * one)}z"
            for at in range(n_rows)
            for first, last in _runs(buckets[at] == bucket)
        )
        parts.append(element("path", d=runs, fill=colour) if runs else "")
    for at in range(0, n_rows, -(-n_rows // _MOST_NAMES)):
        middle = top + (at + 0.5) * row + 4
        parts.append(text(f"{recording.steps[at]:,}", LEFT - 8, middle, "end"))
    room = WIDTH - LEFT - RIGHT
    if snapshot is not None:
        parts.append(_frame(LEFT - 1, top + snapshot * row - 1, room + 2, row + 1))
    if chosen is not None:
        sought = recording.sought[-1, layer, head, chosen]
        for token, dash in ((chosen, None), (sought, "3 3")):
            if token != NOBODY:
                x = LEFT + room * int(np.flatnonzero(order == token)[0]) / len(order)
                width = max(3.0, room / len(order))
                parts.append(_frame(x, top - 2, width, bottom - top + 4, dash))
    sorted_by = "sorted by their bucket in the last snapshot"
    words = f"tokens, {'in reading order' if in_reading_order else sorted_by}"
    if every > 1:
        words += f": one of every {every:,} of {len(order):,}"
    parts.append(text(words, LEFT, bottom + 16, "start"))
    return parts, int(bottom + 28)


def _frame(x: Number, y: Number, width: Number, height: Number, dash: str | None = None) -> str:
    return element(
        "rect",
        x=x,
        y=y,
        width=width,
        height=height,
        fill="none",
        stroke=style.INK,
        stroke_width=1.5,
        stroke_dasharray=dash,
    )


def _runs(there: np.ndarray) -> list[tuple[int, int]]:
    """List where a condition begins to hold, and where it ends to."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
