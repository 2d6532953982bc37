"""A still picture of a Plotly scene: three dimensions seen from its camera, without perspective."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reformer_viz import style
from reformer_viz.figures.still_axes import as_numbers, plain
from reformer_viz.figures.still_marks import Mark, path_of, point_colours, points, spread, tone
from reformer_viz.figures.svg import Number, element, number, text

_MOST_FACES = 900
_FAINT = 0.4  # of what lies in the rear half
_CORNERS = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])
_EDGES = [(i, j) for i in range(8) for j in range(i) if (_CORNERS[i] != _CORNERS[j]).sum() == 1]


@dataclass(frozen=True, kw_only=True)
class Space:
    """A scene's cube, the camera's directions, and where it is drawn."""

    centre: np.ndarray
    half: np.ndarray
    """Half the extent of the data that the cube's sides hold."""
    right: np.ndarray
    up: np.ndarray
    toward: np.ndarray
    middle: tuple[float, float]
    radius: float

    def place(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Place points: two coordinates on paper, and how near they are."""
        cube = (xyz - self.centre) / self.half
        x = self.middle[0] + self.radius * cube @ self.right
        y = self.middle[1] - self.radius * cube @ self.up
        return x, y, cube @ self.toward


def space_of(layout: Any, traces: Sequence, box: tuple[float, float, float, float]) -> Space:
    """Look at the traces of one scene as its camera does, within a box on paper."""
    all_points = [points_of(trace) for trace in traces]
    xyz = np.concatenate([part[np.isfinite(part).all(1)] for part in all_points])
    low, high = (xyz.min(0), xyz.max(0)) if len(xyz) else (-np.ones(3), np.ones(3))
    for k, axis in enumerate((layout.xaxis, layout.yaxis, layout.zaxis)):
        if axis.range is not None:
            low[k], high[k] = axis.range
    half = np.maximum((high - low) / 2, 1e-9)
    if layout.aspectmode == "data" or (
        layout.aspectmode == "auto" and np.ptp(half) < half.max() / 4
    ):
        half = np.full(3, half.max())
    eye, above = (
        np.array(
            [axis if axis is not None else default for axis, default in zip(*said, strict=True)]
        )
        for said in (
            (_vector(layout.camera.eye), (1.25, 1.25, 1.25)),
            (_vector(layout.camera.up), (0, 0, 1)),
        )
    )
    toward = eye / np.linalg.norm(eye)
    right = np.cross(above, toward)
    right = right / np.linalg.norm(right)
    x0, y0, x1, y1 = box
    return Space(
        centre=(low + high) / 2,
        half=half,
        right=right,
        up=np.cross(toward, right),
        toward=toward,
        middle=((x0 + x1) / 2, (y0 + y1) / 2),
        radius=min(x1 - x0, y1 - y0) / 2 / np.sqrt(3) * 1.25,
    )


def draw_space(space: Space, layout: Any, marks: Sequence[Mark]) -> Iterator[str]:
    """Draw what lies behind faintly, then surfaces, then what lies in front."""
    if layout.xaxis.visible is not False:
        yield from _draw_cube(space, layout)
    lines = [mark for mark in marks if mark.trace.type == "scatter3d"]
    for mark in lines:
        yield element("g", "".join(_draw_half(space, mark, front=False)), opacity=_FAINT)
    for mark in marks:
        if mark.trace.type != "scatter3d":
            yield from _draw_faces(space, mark)
    for mark in lines:
        yield element("g", "".join(_draw_half(space, mark, front=True)))


def points_of(trace: Any) -> np.ndarray:
    """Return a trace's points, one a row."""
    x, y, z = (as_numbers(part) for part in (trace.x, trace.y, trace.z))
    if z.ndim == 2 and x.ndim < 2:
        x, y = np.meshgrid(
            x if x.size else np.arange(z.shape[1]), y if y.size else np.arange(z.shape[0])
        )
    return np.stack([x.ravel(), y.ravel(), z.ravel()], 1)


def _vector(said: Any) -> tuple:
    return said.x, said.y, said.z


def _draw_cube(space: Space, layout: Any) -> Iterator[str]:
    corners = space.centre + space.half * _CORNERS
    x, y, near = space.place(corners)
    rear = near.argmin()
    d = "".join(
        f"M{number(x[i], 1)} {number(y[i], 1)}L{number(x[j], 1)} {number(y[j], 1)}"
        for i, j in _EDGES
        if rear in (i, j)
    )
    yield element("path", d=d, fill="none", stroke=style.SHADE)
    for k, axis in enumerate((layout.xaxis, layout.yaxis, layout.zaxis)):
        tip = corners[rear].copy()
        tip[k] = space.centre[k]
        a, b, _ = space.place(tip[None])
        if axis.title.text:
            yield text(plain(axis.title.text), a[0], b[0] + 4, fill=style.MUTED)


def _draw_half(space: Space, mark: Mark, front: bool) -> Iterator[str]:
    """Draw the part of a line and its points that lies in front, or the part behind."""
    trace = mark.trace
    x, y, near = space.place(points_of(trace))
    mode = trace.mode or "lines+markers"
    mine = (near >= 0) == front
    if "lines" in mode and len(x):
        a, b = _half_of_line(x, y, near, front)
        colour = trace.line.color if isinstance(trace.line.color, str) else mark.colour
        width = min(trace.line.width or 2, 4)
        yield element("path", d=path_of(a, b), fill="none", stroke=colour, stroke_width=width)
    if "markers" in mode:
        yield from _draw_points(mark, x, y, mine)
    if "text" in mode and trace.text is not None:
        for words, k in zip(spread(trace.text, len(x)), range(len(x)), strict=True):
            if words and mine[k]:
                rise = 4 if trace.textposition == "middle center" else -8
                yield text(plain(words), x[k], y[k] + rise)


def _half_of_line(
    x: np.ndarray, y: np.ndarray, near: np.ndarray, front: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a line where it passes from one half to the other; of the other half only gaps stay."""
    at = np.flatnonzero(near[:-1] * near[1:] < 0)
    cuts = at + near[at] / (near[at] - near[at + 1])
    steps = np.arange(len(near))
    every = np.sort(np.concatenate([steps, cuts]))
    x, y, near = (np.interp(every, steps, part) for part in (x, y, near))
    mine = near >= -1e-9 if front else near <= 1e-9
    return np.where(mine, x, np.nan), np.where(mine, y, np.nan)


def _draw_points(mark: Mark, x: np.ndarray, y: np.ndarray, mine: np.ndarray) -> Iterator[str]:
    looks = mark.trace.marker
    colours = spread(point_colours(mark), len(x))
    sizes = spread(8 if looks.size is None else looks.size, len(x))
    symbols = spread(looks.symbol or "circle", len(x))
    alike: dict[tuple, list] = {}
    for k in np.flatnonzero(mine & np.isfinite(x)):
        alike.setdefault((colours[k], float(sizes[k]), symbols[k]), []).append((x[k], y[k]))
    for (colour, size, symbol), places in alike.items():
        yield points(symbol, size / 2, places, colour)


def _draw_faces(space: Space, mark: Mark) -> Iterator[str]:
    """Draw a surface's faces from the rear to the front."""
    trace = mark.trace
    if trace.type == "mesh3d" and trace.facecolor is not None:
        yield from _draw_patches(space, trace)
        return
    x, y, near = space.place(points_of(trace))
    faces = _faces_of(trace)
    faces = faces[:: max(1, len(faces) // _MOST_FACES)] if trace.type == "mesh3d" else faces
    colours = _face_colours(mark, faces)
    opacity = 1 if trace.opacity is None else trace.opacity
    for k in np.argsort(near[faces].mean(1), kind="stable"):
        d = "M" + "L".join(f"{number(x[i], 1)} {number(y[i], 1)}" for i in faces[k]) + "z"
        yield element("path", d=d, fill=colours[k], opacity=opacity)


def _draw_patches(space: Space, trace: Any) -> Iterator[str]:
    """Draw the front of a closed surface whose faces have colours of their own, as one a colour."""
    x, y, near = space.place(points_of(trace))
    faces = _faces_of(trace)
    colours = np.array(trace.facecolor)
    for colour in np.unique(colours):
        chosen = faces[(colours == colour) & (near[faces].mean(1) > 0)]
        ways = ("L".join(f"{number(x[i], 1)} {number(y[i], 1)}" for i in face) for face in chosen)
        d = "".join(f"M{way}z" for way in ways)
        # The stroke covers the hairlines that a browser leaves between neighbours.
        if d:
            yield element("path", d=d, fill=colour, stroke=colour, stroke_width=0.5)


def _faces_of(trace: Any) -> np.ndarray:
    """Return the corners of every face."""
    if trace.type == "mesh3d":
        return np.stack([as_numbers(part).astype(int) for part in (trace.i, trace.j, trace.k)], 1)
    rows, columns = as_numbers(trace.z).shape
    share = max(1, int(np.ceil(np.sqrt(rows * columns / _MOST_FACES))))
    at = np.arange(rows * columns).reshape(rows, columns)
    at = at[_every(rows, share)][:, _every(columns, share)]
    corners = at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]
    return np.stack([corner.ravel() for corner in corners], 1)


def _every(length: int, share: int) -> np.ndarray:
    return np.unique([*range(0, length, share), length - 1])


def _face_colours(mark: Mark, faces: np.ndarray) -> list[str]:
    trace = mark.trace
    if trace.type == "mesh3d" and isinstance(trace.color, str):
        return [trace.color] * len(faces)
    values = trace.intensity if trace.type == "mesh3d" else trace.surfacecolor
    values = as_numbers(values if values is not None else trace.z).ravel()
    there = values[np.isfinite(values)]
    low, high = (there.min(), there.max()) if there.size else (0.0, 1.0)
    share = (values[faces].mean(1) - low) / ((high - low) or 1)
    return [tone(_rounded(s), trace.colorscale) for s in share]


def _rounded(share: Number) -> float:
    return float(np.round(np.nan_to_num(share), 2))
