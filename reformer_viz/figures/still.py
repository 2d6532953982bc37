"""A Plotly figure as a still picture: SVG without a browser, the same bytes on every machine.

What is stored with a notebook, and shown where no script runs. It draws what the house's charts
are made of: lines, points, bands, bars, small heat maps and scenes, on one or more pairs of axes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reformer_viz import style
from reformer_viz.figures.still_axes import EDGE, Axis, as_numbers, axis_of, is_log, plain, raw
from reformer_viz.figures.still_marks import (
    Mark,
    Scale,
    bar_step,
    bars_of,
    cell_edges,
    draw_band,
    draw_bars,
    draw_cells,
    draw_scatter,
    line_path,
    point_colours,
    points,
    scale_of,
    spread,
)
from reformer_viz.figures.still_space import draw_space, space_of
from reformer_viz.figures.svg import Number, element, number, text

WIDTH, HEIGHT = 800, 450
FLAT, DEEP = ("scatter", "scattergl", "bar", "heatmap"), ("scatter3d", "surface", "mesh3d")
_LINE = 17  # the distance between lines of text
_UNLISTED = ("heatmap", "surface", "mesh3d")  # unless they ask to be in the legend
_LETTER = 6.3  # about the width of a letter, since no font is asked


def draw_still(figure: Any, width: int = WIDTH, height: int | None = None) -> str:
    """Draw a Plotly figure as SVG on a white card of its own.

    Raises ValueError for a kind of trace that it cannot draw.
    """
    _check(figure)
    height = height or int(figure.layout.height or HEIGHT)
    marks = _marks_of(figure)
    legend = _legend_rows(figure, marks, width)
    scale = next((mark.scale for mark in marks if _is_explained(mark)), None)
    box = _room(figure, (width, height), len(legend), scale is not None)
    parts = [
        element("rect", width=width, height=height, rx=6, fill=style.PAPER),
        *_draw_flat(figure, [mark for mark in marks if mark.trace.type in FLAT], box),
        *_draw_scenes(figure, [mark for mark in marks if mark.trace.type in DEEP], box),
        *_draw_legend(legend, height),
    ]
    if scale is not None:
        parts += _draw_scale(scale, box)
    if figure.layout.title.text:
        parts.append(text(plain(figure.layout.title.text), 14, 24, "start", font_size=15))
    return element(
        "svg",
        "".join(parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        font_family="sans-serif",
        font_size=12,
        fill=style.INK,
    )


def _check(figure: Any) -> None:
    for trace in figure.data:
        if trace.type not in FLAT + DEEP:
            raise ValueError(
                f"a trace must be one of {', '.join(FLAT + DEEP)}, got {trace.type}: "
                "a still picture has no other kind, so compose the figure of these"
            )


# ------------------------------------------------------------------------------------ the traces


def _marks_of(figure: Any) -> list[Mark]:
    """Give every trace that is shown its colour, its scale, and the place of its bars."""
    marks = [
        Mark(
            trace=trace,
            colour=style.PALETTE[k % len(style.PALETTE)],
            scale=_scale(figure, trace),
        )
        for k, trace in enumerate(figure.data)
        if trace.visible in (None, True)
    ]
    return _side_by_side(figure.layout.barmode or "group", figure.layout.bargap, marks)


def _scale(figure: Any, trace: Any) -> Scale | None:
    """Return how a trace's numbers become colours, over all traces that share the scale."""
    shared, described = _described(trace)
    if described is None:
        return None
    if not shared:
        return scale_of(described, _coloured(trace).ravel())
    mates = [_coloured(t).ravel() for t in figure.data if _described(t)[0] == shared]
    return scale_of(figure.layout[shared], np.concatenate(mates))


def _described(trace: Any) -> tuple[str, Any]:
    """Return the name of the shared colour scale, if any, and what has numbers for colours."""
    if trace.type == "heatmap":
        return trace.coloraxis or "", trace
    colours = None if trace.type in ("surface", "mesh3d") else trace.marker.color
    if colours is None or isinstance(colours, str) or raw(colours).dtype.kind in "USO":
        return "", None
    return trace.marker.coloraxis or "", trace.marker


def _coloured(trace: Any) -> np.ndarray:
    return as_numbers(trace.z if trace.type == "heatmap" else trace.marker.color)


def _is_explained(mark: Mark) -> bool:
    """Say whether a colour bar explains the trace's colours."""
    if mark.scale is None:
        return False
    said = mark.scale.described.showscale
    return mark.trace.type == "heatmap" or bool(_described(mark.trace)[0]) if said is None else said


def _side_by_side(mode: str, gap: Number | None, marks: list[Mark]) -> list[Mark]:
    """Say of bars that share their places where each stands: beside or above the others."""
    room = 1.0 - (0.2 if gap is None else gap)
    placed, tops = [], {}
    for mark in marks:
        trace = mark.trace
        if trace.type == "bar" and mode == "group":
            mates = [m for m in marks if m.trace.type == "bar" and _pair(m.trace) == _pair(trace)]
            width = room / len(mates)
            base = 0.0 if trace.base is None else as_numbers(np.atleast_1d(trace.base))
            shift = ([m is mark for m in mates].index(True) - (len(mates) - 1) / 2) * width
            mark = replace(mark, width=width, shift=shift, base=base)
        elif trace.type == "bar":
            below = tops.setdefault(_pair(trace), {}) if mode != "overlay" else {}
            names, heights = bars_of(trace)
            base = np.array([below.get(str(name), 0.0) for name in names])
            tips = zip(names, base + np.nan_to_num(heights), strict=True)
            below.update((str(name), tip) for name, tip in tips)
            mark = replace(mark, width=room, base=base)
        placed.append(mark)
    return placed


def _pair(trace: Any) -> tuple[str, str]:
    return trace.xaxis or "x", trace.yaxis or "y"


# ------------------------------------------------------------------------------------ the paper


@dataclass(frozen=True, kw_only=True)
class Box:
    """The part of the picture that all axes share, which Plotly calls the paper."""

    left: Number
    top: Number
    right: Number
    bottom: Number

    def x(self, share: Number) -> float:
        """Return the place of a share of the width."""
        return float(self.left + share * (self.right - self.left))

    def y(self, share: Number) -> float:
        """Return the place of a share of the height, counted from below."""
        return float(self.bottom - share * (self.bottom - self.top))


def _room(figure: Any, size: tuple[int, int], legend_rows: int, explained: bool) -> Box:
    """Leave room for titles, tick labels, a colour bar and the legend."""
    layout = figure.layout
    flat = any(trace.type in FLAT for trace in figure.data)
    titled = any(note.yref == "paper" and (note.y or 0) >= 1 for note in layout.annotations)
    below = (46 if flat else 10) + (_LINE * legend_rows + 6 if legend_rows else 0)
    return Box(
        left=68 if flat else 14,
        top=14 + (26 if layout.title.text else 0) + (18 if titled else 0),
        right=size[0] - (84 if explained else 22),
        bottom=size[1] - below,
    )


def _draw_scale(scale: Scale, box: Box) -> Iterator[str]:
    """Draw a colour scale from its least to its greatest value, beside the picture."""
    x, steps = box.right + 14, 32
    heights = np.linspace(box.bottom, box.top, steps + 1)
    for k in range(steps):
        side = {
            "x": x,
            "y": heights[k + 1],
            "width": 12,
            "height": heights[k] - heights[k + 1] + 0.5,
        }
        yield element("rect", **side, fill=scale.tone((k + 0.5) / steps))
    bar = scale.described.colorbar
    axis = Axis(low=scale.low, high=scale.high, start=box.bottom, end=box.top, layout=bar)
    for place, label in axis.ticks() if scale.high > scale.low else ():
        yield text(label, x + 16, place + 4, "start", font_size=11, fill=style.MUTED)
    if bar.title.text:
        yield text(plain(bar.title.text), x + 66, box.top - 5, "end", font_size=11)


# ------------------------------------------------------------------------------- pairs of axes


def _draw_flat(figure: Any, marks: Sequence[Mark], box: Box) -> Iterator[str]:
    """Draw every pair of axes with what stands on them, then shapes and notes."""
    axes = _axes_of(figure, marks, box)
    drawn: set[str] = set()
    for pair in dict.fromkeys(_pair(mark.trace) for mark in marks):
        x, y = (axes[name] for name in pair)
        on_it = [replace(mark, x=x, y=y) for mark in marks if _pair(mark.trace) == pair]
        if not drawn & set(pair):
            yield from _draw_grid(x, y)
        yield from _draw_shapes(figure, axes, pair, box, below=True)
        yield _clipped(x, y, "".join(_draw_marks(on_it)))
        yield from _draw_shapes(figure, axes, pair, box, below=False)
        if pair[0] not in drawn:
            yield from _draw_x_axis(x, y)
        if pair[1] not in drawn:
            yield from _draw_y_axis(x, y)
        drawn |= set(pair)
    for note in figure.layout.annotations:
        yield from _draw_note(note, axes, box)


def _axes_of(figure: Any, marks: Sequence[Mark], box: Box) -> dict[str, Axis]:
    """Make all axes; those that match have the range of all their values."""
    names = dict.fromkeys(name for mark in marks for name in _pair(mark.trace))
    root = {name: _layout(figure, name).matches or name for name in names}
    axes = {}
    for name in names:
        layout = _layout(figure, name)
        values = [
            part
            for mark in marks
            for own, part in zip(_pair(mark.trace), _values(figure, mark), strict=True)
            if root[own] == root[name]
        ]
        low, high = layout.domain or _layout_domain(figure, layout)
        ends = (box.x(low), box.x(high)) if name[0] == "x" else (box.y(low), box.y(high))
        described = _layout(figure, root[name]) if layout.range is None else layout
        kinds = {m.trace.type for m in marks if root[name] in (root[own] for own in _pair(m.trace))}
        edge = 0.0 if kinds == {"heatmap"} else EDGE
        axis = axis_of(described, [part for parts in values for part in parts], ends, edge)
        axes[name] = replace(_grounded(axis) if "bar" in kinds else axis, layout=layout)
    return axes


def _grounded(axis: Axis) -> Axis:
    """Let bars that begin at 0 stand on the axis's end."""
    starts_below = axis.low < 0 <= axis.low + (axis.high - axis.low) * EDGE
    return replace(axis, low=0.0) if starts_below and axis.layout.range is None else axis


def _layout(figure: Any, name: str) -> Any:
    """Return the description of the axis that traces call "x2"."""
    return figure.layout[f"{name[0]}axis{name[1:]}"]


def _layout_domain(figure: Any, layout: Any) -> tuple[Number, Number]:
    """Return the domain of an axis that lies over another one, or the whole paper."""
    other = layout.overlaying
    return (_layout(figure, other).domain or (0, 1)) if other not in (None, "free") else (0, 1)


def _values(figure: Any, mark: Mark) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return all that a trace's two axes must have room for."""
    trace = mark.trace
    if trace.type == "bar":
        return _bar_values(figure, mark)
    if trace.type == "heatmap":
        rows, columns = raw(trace.z).shape
        return _cell_values(trace.x, columns), _cell_values(trace.y, rows)
    x, y = raw(trace.x), raw(trace.y)
    x = np.arange(len(y)) if not len(x) else x
    y = np.arange(len(x)) if not len(y) else y
    ys = [y]
    if trace.error_y.array is not None:
        ys += [as_numbers(y) + as_numbers(trace.error_y.array)]
        down = trace.error_y.arrayminus
        ys += [as_numbers(y) - as_numbers(trace.error_y.array if down is None else down)]
    log = is_log(_layout(figure, _pair(trace)[1]))
    return [x], ys + ([np.zeros(1)] if trace.fill == "tozeroy" and not log else [])


def _cell_values(given: Any, cells: int) -> list[np.ndarray]:
    centres = raw(given) if given is not None else np.arange(cells)
    return [centres] if centres.dtype.kind in "US" else [cell_edges(centres)]


def _bar_values(figure: Any, mark: Mark) -> tuple[list[np.ndarray], list[np.ndarray]]:
    names, heights = bars_of(mark.trace)
    sideways = mark.trace.orientation == "h"
    across = _layout(figure, _pair(mark.trace)[0 if sideways else 1])
    tips = [mark.base + heights, *([] if is_log(across) else [np.atleast_1d(mark.base)])]
    along = [names]
    if names.dtype.kind not in "US":
        half = bar_step(as_numbers(names)) / 2
        along = [as_numbers(names) - half, as_numbers(names) + half]
    return (tips, along) if sideways else (along, tips)


def _clipped(x: Axis, y: Axis, content: str) -> str:
    """Draw within a pair of axes: a nested picture shows nothing outside."""
    left, top = min(x.start, x.end), min(y.start, y.end)
    width, height = abs(x.end - x.start), abs(y.end - y.start)
    view = " ".join(number(n) for n in (left, top, width, height))
    box = {"x": left, "y": top, "width": width, "height": height}
    return element("svg", content, **box, viewBox=view) if content else ""


def _draw_marks(marks: Sequence[Mark]) -> Iterator[str]:
    """Draw cells and bands first, then bars, then lines and points."""
    before = [None, *marks[:-1]]
    for mark, former in zip(marks, before, strict=True):
        if mark.trace.type == "heatmap":
            yield from draw_cells(mark)
        elif mark.trace.type in ("scatter", "scattergl"):
            yield from draw_band(mark, former)
    for mark in marks:
        if mark.trace.type == "bar":
            yield from draw_bars(mark)
    for mark in marks:
        if mark.trace.type in ("scatter", "scattergl"):
            yield element("g", "".join(draw_scatter(mark)), opacity=mark.trace.opacity)


def _draw_grid(x: Axis, y: Axis) -> Iterator[str]:
    """Draw quiet lines at the ticks, where the axes ask for them."""
    lines = [
        f"M{number(place, 1)} {number(y.start, 1)}V{number(y.end, 1)}"
        for place, _ in (x.ticks() if x.layout.showgrid else [])
    ]
    lines += [
        f"M{number(x.start, 1)} {number(place, 1)}H{number(x.end, 1)}"
        for place, _ in (y.ticks() if y.layout.showgrid is not False else [])
    ]
    if lines:
        yield element("path", d="".join(lines), stroke=style.SHADE)


def _draw_x_axis(x: Axis, y: Axis) -> Iterator[str]:
    if x.layout.visible is False:
        return
    foot = y.start
    yield element(
        "path", d=f"M{number(x.start, 1)} {number(foot, 1)}H{number(x.end, 1)}", stroke=style.MUTED
    )
    for place, label in x.ticks():
        yield text(label, place, foot + 16, font_size=_tick_size(x), fill=style.MUTED)
    if x.layout.title.text:
        middle = (x.start + x.end) / 2
        yield text(plain(x.layout.title.text), middle, foot + 34, fill=style.MUTED)


def _draw_y_axis(x: Axis, y: Axis) -> Iterator[str]:
    if y.layout.visible is False:
        return
    right = y.layout.side == "right"
    side, anchor = (x.end + 6, "start") if right else (x.start - 6, "end")
    ticks = y.ticks()
    for place, label in ticks:
        yield text(label, side, place + 4, anchor, font_size=_tick_size(y), fill=style.MUTED)
    if y.layout.title.text:
        longest = max([len(label) for _, label in ticks], default=0) * _LETTER
        at = side + (longest + 14 if right else -longest - 8), (y.start + y.end) / 2
        turn = f"rotate(-90 {number(at[0], 1)} {number(at[1], 1)})"
        yield text(plain(y.layout.title.text), *at, transform=turn, fill=style.MUTED)


def _tick_size(axis: Axis) -> Number:
    return axis.layout.tickfont.size or 11


def _draw_shapes(
    figure: Any, axes: dict[str, Axis], pair: tuple[str, str], box: Box, below: bool
) -> Iterator[str]:
    """Draw the lines and areas that mark a pair of axes."""
    for shape in figure.layout.shapes:
        refs = (shape.xref or "x").split()[0], (shape.yref or "y").split()[0]
        on_it = all(ref in ("paper", own) for ref, own in zip(refs, pair, strict=True))
        if not on_it or (shape.layer == "below") != below:
            continue
        x0, x1 = (_at(end, shape.xref or "x", axes, box, "x") for end in (shape.x0, shape.x1))
        y0, y1 = (_at(end, shape.yref or "y", axes, box, "y") for end in (shape.y0, shape.y1))
        if shape.type == "line":
            line = np.array([x0, x1]), np.array([y0, y1])
            yield line_path(line, shape.line, style.MUTED)
        else:
            side = {
                "x": min(x0, x1),
                "y": min(y0, y1),
                "width": abs(x1 - x0),
                "height": abs(y1 - y0),
            }
            width = 0 if shape.line.width is None else shape.line.width
            yield element(
                "rect",
                **side,
                fill=shape.fillcolor or "none",
                opacity=shape.opacity,
                stroke=(shape.line.color or style.MUTED) if width else None,
            )


def _at(
    value: Any, ref: str, axes: dict[str, Axis], box: Box, side: str, scaled: bool = False
) -> float:
    """Place what stands relative to an axis, to an axis's length, or to the paper."""
    name, _, domain = ref.partition(" ")
    if name == "paper" or name not in axes:
        return box.x(float(value)) if side == "x" else box.y(float(value))
    axis = axes[name]
    if domain:
        return float(axis.start + float(value) * (axis.end - axis.start))
    # Plotly says the place of a note on a logarithmic axis by its logarithm.
    return float(axis.at(float(value)) if scaled and axis.log else axis.place([value])[0])


def _draw_note(note: Any, axes: dict[str, Axis], box: Box) -> Iterator[str]:
    """Write an annotation, and its arrow if it has one."""
    if note.visible is False or not note.text:
        return
    x = _at(note.x, note.xref or "x", axes, box, "x", scaled=True)
    y = _at(note.y, note.yref or "y", axes, box, "y", scaled=True)
    pointed = note.showarrow is not False
    if pointed:
        tip = x + (-10 if note.ax is None else note.ax), y + (-30 if note.ay is None else note.ay)
        d = f"M{number(tip[0], 1)} {number(tip[1], 1)}L{number(x, 1)} {number(y, 1)}"
        yield element("path", d=d, stroke=note.arrowcolor or style.MUTED)
        x, y = tip
    x, y = x + (note.xshift or 0), y - (note.yshift or 0)
    lines = plain(note.text).split("\n")
    size = note.font.size or 12
    rise = {"top": 0.9, "bottom": -0.3 - 1.2 * (len(lines) - 1)}.get(
        "bottom" if pointed and (note.ay or -30) < 0 else note.yanchor or "middle",
        0.35 - 0.6 * (len(lines) - 1),
    )
    anchor = {"left": "start", "right": "end"}.get(note.xanchor or "", "middle")
    for k, line in enumerate(lines):
        place = y + size * (rise + 1.2 * k)
        yield text(line, x, place, anchor, font_size=size, fill=note.font.color)


# ------------------------------------------------------------------------- scenes and the legend


def _draw_scenes(figure: Any, marks: Sequence[Mark], box: Box) -> Iterator[str]:
    for name in dict.fromkeys(mark.trace.scene or "scene" for mark in marks):
        layout = figure.layout[name]
        (x0, x1), (y0, y1) = layout.domain.x or (0, 1), layout.domain.y or (0, 1)
        on_it = [mark for mark in marks if (mark.trace.scene or "scene") == name]
        room = box.x(x0), box.y(y1), box.x(x1), box.y(y0)
        yield from draw_space(space_of(layout, [m.trace for m in on_it], room), layout, on_it)
    if not any(trace.type in FLAT for trace in figure.data):
        for note in figure.layout.annotations:
            yield from _draw_note(note, {}, box)


def _legend_rows(figure: Any, marks: Sequence[Mark], width: int) -> list[list[tuple[float, Mark]]]:
    """Lay the legend out in rows: every entry and where it begins."""
    named, groups = [], set()
    for mark in marks:
        trace = mark.trace
        group = getattr(trace, "legendgroup", None)
        listed = trace.showlegend if trace.showlegend is not None else trace.type not in _UNLISTED
        if trace.name and listed and (group is None or group not in groups):
            named.append(mark)
            groups.add(group)
    shown = figure.layout.showlegend
    if not named or not (len(named) > 1 if shown is None else shown):
        return []
    rows, x = [[]], 68.0
    for mark in named:
        long = 34 + _LETTER * len(plain(mark.trace.name))
        if rows[-1] and x + long > width - 10:
            rows.append([])
            x = 68.0
        rows[-1].append((x, mark))
        x += long + 14
    return rows


def _draw_legend(rows: Sequence, height: int) -> Iterator[str]:
    for k, row in enumerate(rows):
        y = height - 8 - _LINE * (len(rows) - 1 - k)
        for x, mark in row:
            yield from _draw_sample(mark, x, y - 4)
            yield text(plain(mark.trace.name), x + 28, y, "start")


def _draw_sample(mark: Mark, x: Number, y: Number) -> Iterator[str]:
    """Draw what a trace looks like, beside its name."""
    trace = mark.trace
    if trace.type not in ("scatter", "scattergl", "scatter3d"):
        colour = "none" if mark.scale else spread(point_colours(mark), 1)[0]
        yield element("rect", x=x + 6, y=y - 5, width=10, height=10, fill=colour)
        return
    mode = trace.mode or "lines+markers"
    if "lines" in mode:
        ends = np.array([x, x + 22]), np.array([y, y])
        yield line_path(ends, trace.line, mark.colour)
    elif getattr(trace, "fill", None) not in (None, "none"):
        colour = trace.fillcolor or mark.colour
        yield element("rect", x=x, y=y - 5, width=22, height=10, fill=colour)
    if "markers" in mode:
        colour = mark.colour if mark.scale else spread(point_colours(mark), 1)[0]
        symbol = spread(trace.marker.symbol or "circle", 1)[0]
        yield points(symbol, 3.5, [(x + 11, y)], colour, trace.marker.line)
