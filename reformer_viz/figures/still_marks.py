"""What a still chart draws between its axes: lines, points, bands, bars and coloured cells."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgba

from reformer_viz import style
from reformer_viz.figures.still_axes import Axis, as_numbers, plain, raw
from reformer_viz.figures.svg import Number, element, number, text

MOST_POINTS = 1500
"""Of a longer line, or of more points, only every so many-th is drawn."""

_MOST_CELLS = 128  # along a side of a heat map: of more, neighbours share one
_TONES = 48  # colours that a scale is cut into, so that equal neighbours are drawn as one
_DASHES = {"dash": "6 4", "dot": "1.5 3", "dashdot": "6 3 1.5 3", "longdash": "10 4"}
_CORNERS = {  # of a mark within one unit around its place
    "diamond": ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    "triangle-up": ((0, -1.15), (1.1, 0.8), (-1.1, 0.8)),
    "triangle-down": ((0, 1.15), (1.1, -0.8), (-1.1, -0.8)),
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "star": tuple(
        (r * np.sin(k * np.pi / 5), -r * np.cos(k * np.pi / 5))
        for k, r in enumerate((1.3, 0.55) * 5)
    ),
}
_STROKES = {  # marks without an inside, as the lines they are made of
    "x": (((-0.8, -0.8), (0.8, 0.8)), ((-0.8, 0.8), (0.8, -0.8))),
    "cross": (((-1, 0), (1, 0)), ((0, -1), (0, 1))),
    "line-ns": (((0, -1), (0, 1)),),
    "line-ew": (((-1, 0), (1, 0)),),
}
_RING = tuple((np.sin(a), -np.cos(a)) for a in np.linspace(0, 2 * np.pi, 17)[:-1])


# ------------------------------------------------------------------------------------- colours


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How numbers become colours, and Plotly's description of that."""

    described: Any
    low: float
    high: float

    def paint(self, numbers: Iterable) -> list[str]:
        """Return the colour of every number; "none" for a gap."""
        share = (as_numbers(numbers) - self.low) / ((self.high - self.low) or 1)
        tones = np.round(np.clip(share, 0, 1) * _TONES) / _TONES
        colours = {tone: self.tone(tone) for tone in set(tones[np.isfinite(tones)].tolist())}
        return [colours.get(tone, "none") for tone in tones.tolist()]

    def tone(self, share: Number) -> str:
        """Return the colour at a share of the scale, from 0 to 1."""
        return tone(1 - share if self.described.reversescale else share, self.described.colorscale)


def scale_of(described: Any, values: np.ndarray) -> Scale:
    """Read a colour scale; where it does not say its ends, they are the values'."""
    names = ("zmin", "zmax") if "zmin" in described else ("cmin", "cmax")
    there = values[np.isfinite(values)]
    auto = (float(there.min()), float(there.max())) if there.size else (0.0, 1.0)
    said = (described[name] for name in names)
    low, high = (a if given is None else float(given) for given, a in zip(said, auto, strict=True))
    return Scale(described=described, low=low, high=high)


def tone(share: Number, stops: Sequence | None = None) -> str:
    """Return the colour at a share, from 0 to 1, of a scale; the house's if none is given."""
    if stops is None:
        return to_hex(matplotlib.colormaps[style.SEQUENTIAL](float(share)))
    places = [place for place, _ in stops]
    colours = np.array([rgba(colour) for _, colour in stops])
    return to_hex([np.interp(share, places, channel) for channel in colours.T[:3]])


def rgba(colour: str) -> tuple[float, ...]:
    """Read a colour as CSS writes it."""
    if colour.startswith("rgb"):
        parts = [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")]
        return (*(part / 255 for part in parts[:3]), parts[3] if len(parts) > 3 else 1.0)
    return to_rgba(colour)


def _bounds(described: Any, values: np.ndarray) -> tuple[float, float]:
    names = ("zmin", "zmax") if "zmin" in described else ("cmin", "cmax")
    there = values[np.isfinite(values)]
    auto = (float(there.min()), float(there.max())) if there.size else (0.0, 1.0)
    said = (described[name] for name in names)
    low, high = (a if given is None else float(given) for given, a in zip(said, auto, strict=True))
    return low, high


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A trace and what it is drawn with."""

    trace: Any
    colour: str
    """Where the trace names none."""
    scale: Scale | None = None
    x: Axis | None = None
    y: Axis | None = None
    base: np.ndarray | float = 0.0
    """Where bars begin, and below, as shares of one step, how they stand beside each other."""
    shift: float = 0.0
    width: float = 0.8


# --------------------------------------------------------------------------- lines and points


def draw_scatter(mark: Mark) -> Iterator[str]:
    """Draw a line, its points and their texts, whichever the trace has."""
    trace = mark.trace
    x, y = places_of(mark)
    mode = trace.mode or ("lines" if len(x) > 20 else "lines+markers")
    yield from _error_bars(mark, x)
    if "lines" in mode:
        yield line_path(stepped(x, y, trace.line.shape), trace.line, mark.colour)
    if "markers" in mode:
        yield from draw_points(mark, x, y)
    if "text" in mode and trace.text is not None:
        yield from _texts(trace, x, y)


def places_of(mark: Mark) -> tuple[np.ndarray, np.ndarray]:
    """Place a trace's points; where x is not given, Plotly counts from 0."""
    x, y = raw(mark.trace.x), raw(mark.trace.y)
    x = np.arange(len(y)) if not len(x) else x
    y = np.arange(len(x)) if not len(y) else y
    return mark.x.place(x), mark.y.place(y)


def line_path(points: tuple[np.ndarray, np.ndarray], line: Any, colour: str) -> str:
    """Draw a line through places, which ends at every gap."""
    if line.width == 0:
        return ""
    return element(
        "path",
        d=path_of(*points),
        fill="none",
        stroke=line.color if isinstance(line.color, str) else colour,
        stroke_width=line.width or 2,
        stroke_dasharray=_DASHES.get(line.dash),
        stroke_linejoin="round",
    )


def path_of(x: np.ndarray, y: np.ndarray) -> str:
    """Write a way through places, in parts where there are gaps."""
    every = ceil(len(x) / MOST_POINTS) or 1
    keep = np.arange(len(x)) % every == 0
    keep[-1:] = True
    parts, pen_down = [], False
    for a, b in zip(x[keep], y[keep], strict=True):
        there = np.isfinite(a) and np.isfinite(b)
        if there:
            parts.append(f"{'L' if pen_down else 'M'}{number(a, 1)} {number(b, 1)}")
        pen_down = bool(there)
    return "".join(parts)


def stepped(x: np.ndarray, y: np.ndarray, shape: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Turn a line into stairs, if it is drawn as such."""
    if shape not in ("hv", "vh"):
        return x, y
    twice_x, twice_y = np.repeat(x, 2), np.repeat(y, 2)
    return (twice_x[1:], twice_y[:-1]) if shape == "hv" else (twice_x[:-1], twice_y[1:])


def draw_points(mark: Mark, x: np.ndarray, y: np.ndarray) -> Iterator[str]:
    """Draw a mark at every place, those that look alike together."""
    looks = mark.trace.marker
    opacity = number(looks.opacity) if isinstance(looks.opacity, Number) else None
    every = ceil(len(x) / MOST_POINTS) or 1
    colours, sizes, symbols = (
        spread(values, len(x))
        for values in (point_colours(mark), _or(looks.size, 6), _or(looks.symbol, "circle"))
    )
    alike: dict[tuple, list[tuple]] = {}
    for k in range(0, len(x), every):
        if np.isfinite(x[k]) and np.isfinite(y[k]):
            key = colours[k], float(sizes[k]), str(symbols[k])
            alike.setdefault(key, []).append((x[k], y[k]))
    for (colour, size, symbol), places in alike.items():
        yield points(symbol, size / 2, places, colour, looks.line, opacity)


def points(
    symbol: str,
    radius: Number,
    places: Sequence[tuple],
    colour: str,
    edge: Any = None,
    opacity: str | None = None,
) -> str:
    """Draw one kind of mark at many places."""
    name, hollow = symbol.removesuffix("-open"), symbol.endswith("-open")
    width = (edge.width if edge is not None else None) or 0
    rim = edge.color if width and isinstance(edge.color, str) else None
    if name == "circle" and not hollow and not rim:
        # A round pen that is put down and lifted: a few characters a point.
        d = "".join(f"M{number(a, 1)} {number(b, 1)}h0" for a, b in places)
        width, rim = 2 * radius, colour
        return _path(d, "none", rim, width, opacity, stroke_linecap="round")
    if name in _STROKES:
        d = "".join(_outline(line, *at, radius) for at in places for line in _STROKES[name])
        return _path(d, "none", colour, 1.5, opacity)
    d = "".join(_outline(_CORNERS.get(name, _RING), *at, radius) + "z" for at in places)
    return _path(d, *(("none", colour) if hollow else (colour, rim)), width or 1.5, opacity)


def _outline(corners: Sequence, x: Number, y: Number, radius: Number) -> str:
    ends = (f"{number(x + a * radius, 1)} {number(y + b * radius, 1)}" for a, b in corners)
    return "M" + "L".join(ends)


def _path(
    d: str, fill: str, stroke: str | None, width: Number, opacity: str | None, **more: str
) -> str:
    width = width if stroke else None
    return element(
        "path", d=d, fill=fill, stroke=stroke, stroke_width=width, opacity=opacity, **more
    )


def point_colours(mark: Mark) -> object:
    """Return the colour of every point, or the one colour of all."""
    colour = mark.trace.marker.color
    if colour is None:
        line = getattr(mark.trace, "line", None)
        return line.color if line is not None and isinstance(line.color, str) else mark.colour
    if isinstance(colour, str):
        return colour
    colours = raw(colour)
    return colours.tolist() if colours.dtype.kind in "US" else mark.scale.paint(colours)


def spread(values: object, length: int) -> Sequence:
    """Give every point its own value."""
    if values is None or isinstance(values, str | Number):
        return [values] * length
    return list(values)


def _or(value: object, default: object) -> object:
    return default if value is None else value


def _error_bars(mark: Mark, x: np.ndarray) -> Iterator[str]:
    """Draw how far points may be off, up and down."""
    error = mark.trace.error_y
    if error.array is None or error.visible is False:
        return
    values, up = as_numbers(mark.trace.y), as_numbers(error.array)
    down = as_numbers(error.arrayminus) if error.arrayminus is not None else up
    top, bottom = mark.y.place(values + up), mark.y.place(values - down)
    d = "".join(
        f"M{number(a, 1)} {number(b, 1)}V{number(c, 1)}"
        for a, b, c in zip(x, bottom, top, strict=True)
        if np.isfinite([a, b, c]).all()
    )
    colour = point_colours(mark)
    colour = error.color or (colour if isinstance(colour, str) else mark.colour)
    yield _path(d, "none", colour, error.thickness or 1.5, None)


def _texts(trace: Any, x: np.ndarray, y: np.ndarray) -> Iterator[str]:
    """Write beside points what their trace says."""
    where = trace.textposition if isinstance(trace.textposition, str) else "middle center"
    rise = {"top": -8, "bottom": 16}.get(where.split()[0], 4)
    side, anchor = {"left": (-7, "end"), "right": (7, "start")}.get(
        where.split()[-1], (0, "middle")
    )
    font = trace.textfont
    looks = (spread(values, len(x)) for values in (trace.text, font.color, font.size))
    for words, colour, size, a, b in zip(*looks, x, y, strict=True):
        if words and np.isfinite([a, b]).all():
            yield text(plain(words), a + side, b + rise, anchor, fill=colour, font_size=size)


def draw_band(mark: Mark, before: Mark | None) -> Iterator[str]:
    """Fill below a line, or between it and the line before it."""
    trace = mark.trace
    if trace.fill in (None, "none"):
        return
    x, y = places_of(mark)
    x, y = (part[np.isfinite(x) & np.isfinite(y)] for part in (x, y))
    if not len(x):
        return
    if trace.fill == "tonexty" and before is not None:
        other_x, other_y = places_of(before)
        there = np.isfinite(other_x) & np.isfinite(other_y)
        x = np.concatenate([x, other_x[there][::-1]])
        y = np.concatenate([y, other_y[there][::-1]])
    elif trace.fill != "toself":
        ground = mark.y.start if mark.y.log else float(mark.y.at(0.0))
        x, y = np.concatenate([x, x[-1:], x[:1]]), np.concatenate([y, [ground, ground]])
    colour = trace.fillcolor or trace.line.color or mark.colour
    opacity = None if trace.fillcolor else 0.25
    yield element("path", d=path_of(x, y) + "z", fill=colour, opacity=opacity)


# ------------------------------------------------------------------------------ bars and cells


def draw_bars(mark: Mark) -> Iterator[str]:
    """Draw a bar for every value."""
    trace = mark.trace
    along, across = (mark.y, mark.x) if trace.orientation == "h" else (mark.x, mark.y)
    names, heights = bars_of(trace)
    at = along.scaled(names)
    step = bar_step(at)
    own = as_numbers(trace.width) if trace.width is not None else None
    half = (own if own is not None else mark.width * step) / 2
    middle = at + mark.shift * step
    sides = np.sort(np.stack([along.at(middle - half), along.at(middle + half)]), 0)
    lower = np.full(len(at), across.start) if across.log else across.at(mark.base + 0 * at)
    ends = np.sort(np.stack([lower, across.place(mark.base + heights)]), 0)
    colours = spread(point_colours(mark), len(at))
    opacity = trace.marker.opacity if trace.marker.opacity is not None else trace.opacity
    for k in np.flatnonzero(np.isfinite(ends).all(0) & np.isfinite(at)):
        (x0, x1), (y0, y1) = sides[:, k], ends[:, k]
        if trace.orientation == "h":
            (x0, x1), (y0, y1) = (y0, y1), (x0, x1)
        box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
        yield element("rect", **box, fill=colours[k], opacity=opacity)


def bars_of(trace: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return where a trace's bars stand and how long they are."""
    names, heights = (trace.y, trace.x) if trace.orientation == "h" else (trace.x, trace.y)
    heights = as_numbers(heights)
    names = raw(names)
    return (names if len(names) else np.arange(len(heights))), heights


def bar_step(at: np.ndarray) -> float:
    """Return the least distance between bars."""
    steps = np.diff(np.unique(at[np.isfinite(at)]))
    return float(steps.min()) if len(steps) else 1.0


def draw_cells(mark: Mark) -> Iterator[str]:
    """Draw a heat map, neighbours of one colour in a row together."""
    z = _binned(as_numbers(mark.trace.z))
    rows, columns = z.shape
    xs = _edges(mark.trace.x, columns, mark.x, raw(mark.trace.z).shape[1])
    ys = _edges(mark.trace.y, rows, mark.y, raw(mark.trace.z).shape[0])
    by_colour: dict[str, list[str]] = {}
    for row in range(rows):
        colours = mark.scale.paint(z[row])
        start = 0
        for column in range(1, columns + 1):
            if column < columns and colours[column] == colours[start]:
                continue
            (x0, x1), (y0, y1) = (xs[start], xs[column]), (ys[row], ys[row + 1])
            run = (
                f"M{number(x0, 1)} {number(y0, 1)}H{number(x1, 1)}V{number(y1, 1)}H{number(x0, 1)}z"
            )
            by_colour.setdefault(colours[start], []).append(run)
            start = column
    for colour, runs in by_colour.items():
        if colour != "none":
            yield element("path", d="".join(runs), fill=colour, shape_rendering="crispEdges")


def _binned(z: np.ndarray) -> np.ndarray:
    """Let neighbours share a cell when there are too many: it shows their mean."""
    for axis in (0, 1):
        share = ceil(z.shape[axis] / _MOST_CELLS) or 1
        if share > 1:
            parts = np.split(z, np.arange(share, z.shape[axis], share), axis)
            z = np.stack([_mean(part, axis) for part in parts], axis)
    return z


def _mean(part: np.ndarray, axis: int) -> np.ndarray:
    there = np.isfinite(part).sum(axis)
    total = np.where(np.isfinite(part), part, 0).sum(axis)
    return np.where(there, total / np.maximum(there, 1), np.nan)


def _edges(given: Iterable | None, cells: int, axis: Axis, length: int) -> np.ndarray:
    """Place the edges of cells, half way between their centres."""
    edges = cell_edges(axis.scaled(raw(given)) if given is not None else np.arange(length))
    return np.interp(np.linspace(0, length, cells + 1), np.arange(length + 1), axis.at(edges))


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """Return the edges around the centres of neighbouring cells."""
    centres = np.asarray(centres, dtype=np.float64)
    half = np.diff(centres) / 2 if len(centres) > 1 else np.array([0.5])
    inner = centres[:-1] + half if len(centres) > 1 else np.zeros(0)
    return np.concatenate([[centres[0] - half[0]], inner, [centres[-1] + half[-1]]])
