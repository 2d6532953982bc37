"""Draw vectors among the regions of the buckets: the plane whole, the sphere from both sides."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Wedge

from reformer_viz import style
from reformer_viz.figures.collisions import (
    ANGLE_AXIS,
    PROBABILITY_AXIS,
    curve_traces,
    draw_rounds,
    explain,
)
from reformer_viz.measure.collisions import Collisions
from reformer_viz.measure.geometry import Geometry

_TINT = 0.62  # of white in a region's colour, so that the vectors on it stand out
_STICK = 0.35  # of the sphere's radius: how far the longest direction stands out of it
_ON_SPHERE = 1.015  # where vectors lie on it, so that it does not swallow them
_WHY = {
    2: "A vector's bucket is the direction that reaches furthest along it: a corner of the hull.",
    3: "A vector's bucket is the direction (stick) that reaches furthest along it: long ones win.",
}


def plot_geometry(geometry: Geometry, collisions: Collisions | None = None) -> Figure:
    """Draw the vectors, coloured by bucket, on the regions that the buckets own.

    In the plane every direction of the rotation is an arrow of its true length, and vectors are
    dots at their own length, of which the median is 1. In space one sees the sphere of all
    directions from the two marked vectors' side and from behind. `collisions` are drawn beside.
    """
    sides = geometry.dimension - 1
    panels = sides + (collisions is not None)
    figure = style.new_figure(1.5 + 4.2 * panels, 5.0)
    every = np.ravel(figure.subplots(1, panels))
    if geometry.dimension == 2:
        _plot_plane(every[0], geometry)
    else:
        towards = _view_of_pair(geometry)
        _plot_side(every[0], geometry, towards)
        _plot_side(every[1], geometry, towards * [[-1], [1], [-1]])
    titles = _title(geometry), "The same sphere from behind"
    for axes, title in zip(every[:sides], titles, strict=False):
        style.dress(axes, title, frame=False)
        axes.set_aspect("equal")
    if collisions is not None:
        draw_rounds(every[-1], collisions)
    said = [] if geometry.directions is None else [_WHY[geometry.dimension]]
    said += [] if collisions is None else [f"On the right, {explain(collisions)}."]
    figure.supxlabel("\n".join(said), fontsize=style.RC["font.size"] - 1, color=style.INK)
    return figure


def _title(geometry: Geometry) -> str:
    fate = "share a bucket" if geometry.together else "fall into two buckets"
    return f"{geometry.n_buckets:,} buckets; two vectors {geometry.angle:g}° apart {fate}"


def _plot_plane(axes: Axes, geometry: Geometry) -> None:
    full, tints = _colours(geometry)
    reach = _reach(geometry)
    for bucket, first, last in _sectors(geometry):
        axes.add_patch(Wedge((0, 0), 3 * reach, first, last, facecolor=tints[bucket], linewidth=0))
    vectors = _at_median_length(geometry)
    colours = [full[bucket] for bucket in geometry.buckets]
    axes.scatter(*vectors.T, s=22, c=colours, edgecolors=style.INK, linewidths=0.4, zorder=4)
    if geometry.directions is not None:
        _plot_directions(axes, geometry, full)
    for vector in geometry.pair:
        axes.plot([0, vector[0]], [0, vector[1]], color=style.INK, linewidth=2.4, zorder=5)
        axes.plot(*vector, "o", color=style.INK, markersize=6, zorder=5)
    start = np.rad2deg(np.arctan2(*geometry.pair[0, ::-1]))
    arc = Arc((0, 0), 0.7, 0.7, theta1=start, theta2=start + geometry.angle, color=style.INK)
    arc.set(linewidth=1.6, zorder=5)
    axes.add_patch(arc)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))


def _plot_directions(axes: Axes, geometry: Geometry, full: list[str]) -> None:
    """Draw every direction as a numbered arrow, and the hull of those that win something."""
    for bucket, tip in enumerate(geometry.directions):
        axes.annotate(
            "",
            tip,
            (0, 0),
            arrowprops={"arrowstyle": "-|>", "color": full[bucket], "shrinkA": 0, "shrinkB": 0},
            zorder=3,
        )
        name = axes.text(*_beyond(tip), bucket, ha="center", va="center", fontsize=9, zorder=6)
        name.set_bbox({"boxstyle": "round,pad=0.15", "fc": style.PAPER, "ec": full[bucket]})
    axes.plot(*_hull(geometry).T, "--", color=style.MUTED, linewidth=1, zorder=2)


def _plot_side(axes: Axes, geometry: Geometry, view: np.ndarray) -> None:
    """Draw what is seen of the sphere from far along the last row of `view`; the first is right."""
    full, tints = _colours(geometry)
    corners = (geometry.corners @ view.T)[geometry.cells]
    in_front = corners[..., 2].mean(1) > 0
    regions = [tints[bucket] for bucket in geometry.cell_buckets[in_front]]
    if geometry.directions is not None:
        _plot_sticks(axes, geometry, view, full)
    axes.add_collection(
        PolyCollection(
            corners[in_front, :, :2],
            facecolors=regions,
            edgecolors=regions,
            linewidths=0.4,
            rasterized=True,
            zorder=2,
        )
    )
    turned = _on_sphere(geometry.vectors) @ view.T
    near = turned[:, 2] > 0
    colours = [full[bucket] for bucket in geometry.buckets[near]]
    places = turned[near, :2]
    axes.scatter(*places.T, s=22, c=colours, edgecolors=style.INK, linewidths=0.4, zorder=4)
    path = _arc_of_pair(geometry) @ view.T
    path = path[path[:, 2] > 0]
    axes.plot(path[:, 0], path[:, 1], color=style.INK, linewidth=2, zorder=5)
    ends = geometry.pair @ view.T
    ends = ends[ends[:, 2] > 0]
    axes.plot(ends[:, 0], ends[:, 1], "o", color=style.INK, markersize=6, zorder=5)
    axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))


def _plot_sticks(axes: Axes, geometry: Geometry, view: np.ndarray, full: list[str]) -> None:
    """Draw directions as sticks out of the sphere: those behind it below it, those before above."""
    feet, tips = (side @ view.T for side in _sticks(geometry))
    for bucket, (foot, tip) in enumerate(zip(feet, tips, strict=True)):
        order = 3 if tip[2] > 0 else 1
        stick = LineCollection([[foot[:2], tip[:2]]], color=full[bucket], linewidth=3, zorder=order)
        axes.add_collection(stick)
        name = axes.text(*tip[:2], bucket, ha="center", va="center", fontsize=9, zorder=order + 3)
        name.set_bbox({"boxstyle": "round,pad=0.15", "fc": style.PAPER, "ec": full[bucket]})
        name.set_visible(bool(tip[2] > 0))


def plotly_geometry(geometry: Geometry, collisions: Collisions | None = None):
    """Draw the same to be turned and pointed at: the plane, or the sphere of all directions.

    `collisions` are drawn beside, and where they were measured at the geometry's angle, marked.
    Raises ImportError where Plotly is not installed.
    """
    import plotly.graph_objects as go  # slow to import

    traces = _plane_traces(geometry) if geometry.dimension == 2 else _space_traces(geometry)
    for trace in traces:
        trace.update(showlegend=False)
    right = 1.0 if collisions is None else 0.56
    reach = _reach(geometry)
    hidden = {"visible": False, "range": [-reach, reach], "constrain": "domain"}
    layout = {
        "template": style.plotly_template(),
        "title": {"text": _title(geometry)},
        "height": 500,
        "margin": {"t": 50, "b": 60},
        "xaxis": {**hidden, "domain": [0, right]},
        "yaxis": {**hidden, "scaleanchor": "x"},
        "scene": _space(geometry, right) if geometry.dimension == 3 else {},
    }
    if collisions is not None:
        traces += _collision_traces(geometry, collisions)
        layout |= _collision_layout(right + 0.09)
    return go.Figure(traces, layout)  # at once: every update of a figure takes milliseconds


def _collision_traces(geometry: Geometry, collisions: Collisions) -> list:
    """Return the curves on axes of their own, and a line at the geometry's angle."""
    import plotly.graph_objects as go

    curves = [trace.update(xaxis="x2", yaxis="y2") for trace in curve_traces(collisions)]
    line = go.Scatter(
        x=[geometry.angle, geometry.angle],
        y=[0, 1],
        mode="lines",
        line={"color": style.MUTED, "width": 1.5, "dash": "dash"},
        name="the pair's angle",
        hoverinfo="skip",
        xaxis="x2",
        yaxis="y2",
    )
    return [*curves, line]


def _collision_layout(left: float | int) -> dict:
    return {
        "xaxis2": {**ANGLE_AXIS, "domain": [left, 1], "anchor": "y2"},
        "yaxis2": {**PROBABILITY_AXIS, "anchor": "x2"},
        "legend": {"x": 1, "xanchor": "right", "y": 1, "yanchor": "top", "orientation": "v"},
    }


def _space(geometry: Geometry, right: float | int) -> dict:
    """Return Plotly's settings of a sphere's scene: no axes, seen from the pair's first vector.

    That vector alone decides, so that the camera stays where it is while the angle changes.
    """
    axis = {"visible": False, "range": [-1.4, 1.4]}
    eye = dict(zip("xyz", (1.25 * geometry.pair[0]).tolist(), strict=True))
    return {
        **{f"{name}axis": axis for name in "xyz"},
        "aspectmode": "cube",
        "camera": {"eye": eye},
        "dragmode": "orbit",
        "domain": {"x": [0, right]},
    }


def _plane_traces(geometry: Geometry) -> list:
    import plotly.graph_objects as go

    full, tints = _colours(geometry)
    regions = [
        go.Scatter(
            **_outline(geometry, bucket),
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=tint,
            hoverinfo="skip",
            name=f"region of bucket {bucket}",
        )
        for bucket, tint in enumerate(tints)
    ]
    traces = _traces(geometry, go.Scatter, np.zeros((1, 2)), geometry.directions, full)
    if geometry.directions is not None:
        hull = dict(zip("xy", _hull(geometry).T, strict=True))
        line = {"color": style.MUTED, "dash": "dash", "width": 1}
        regions.append(go.Scatter(**hull, mode="lines", line=line, hoverinfo="skip", name="hull"))
    return [*regions, *traces]


def _outline(geometry: Geometry, bucket: int) -> dict:
    """Return the outline of a bucket's sectors, with gaps between them."""
    reach, parts = 3 * _reach(geometry), [np.empty((0, 2))]
    for owner, first, last in _sectors(geometry):
        if owner == bucket:
            turns = np.deg2rad(np.linspace(first, last, 2 + int(last - first) // 4))
            rim = reach * np.stack([np.cos(turns), np.sin(turns)], axis=1)
            parts += [np.zeros((1, 2)), rim, np.zeros((1, 2)), np.full((1, 2), np.nan)]
    return dict(zip("xy", np.concatenate(parts)[:-1].T, strict=True))


def _space_traces(geometry: Geometry) -> list:
    import plotly.graph_objects as go

    full, tints = _colours(geometry)
    regions = go.Mesh3d(
        **dict(zip("xyz", geometry.corners.T, strict=True)),
        **dict(zip("ijk", geometry.cells.T, strict=True)),
        facecolor=np.array(tints)[geometry.cell_buckets],  # Plotly checks a list word by word
        lighting={"ambient": 0.95, "diffuse": 0.12, "specular": 0.0},
        hoverinfo="skip",
        name="regions",
    )
    feet, tips = (None, None) if geometry.directions is None else _sticks(geometry)
    return [regions, *_traces(geometry, go.Scatter3d, feet, tips, full)]


def _traces(
    geometry: Geometry,
    kind: type,
    feet: np.ndarray | None,
    tips: np.ndarray | None,
    full: list[str],
) -> list:
    """Return the traces that plane and space share: vectors, the marked pair, directions."""
    names = "xy" if geometry.dimension == 2 else "xyz"

    def at(places: np.ndarray) -> dict:
        return dict(zip(names, np.asarray(places).T, strict=True))

    plane = geometry.dimension == 2
    vectors = _at_median_length(geometry) if plane else _ON_SPHERE * _on_sphere(geometry.vectors)
    angle = [f"{k} of the pair: bucket {b}" for k, b in enumerate(geometry.pair_buckets)]
    traces = [
        kind(
            **at(vectors),
            mode="markers",
            marker={
                "size": 8 if plane else 5,
                "color": [full[bucket] for bucket in geometry.buckets],
                "line": {"color": style.INK, "width": 0.5},
            },
            customdata=geometry.buckets,
            name="vectors",
            hovertemplate="vector %{pointNumber}: bucket %{customdata}<extra></extra>",
        ),
        kind(
            **at(np.insert(geometry.pair, 1, 0, axis=0) if plane else _arc_of_pair(geometry)),
            mode="lines",
            line={"color": style.INK, "width": 3 if plane else 6},
            name="the pair's arc",
            hoverinfo="skip",
        ),
        kind(
            **at(geometry.pair if plane else _ON_SPHERE * geometry.pair),
            mode="markers",
            marker={"size": 11 if plane else 7, "color": style.INK},
            text=angle,
            name="the pair",
            hovertemplate="vector %{text}<extra></extra>",
        ),
    ]
    if tips is None:
        return traces
    gaps = np.full_like(tips, np.nan)
    lines = np.stack([np.broadcast_to(feet, tips.shape), tips, gaps], axis=1).reshape(
        -1, len(names)
    )
    return [
        *traces,
        kind(
            **at(lines),
            mode="lines",
            line={"color": style.MUTED, "width": 2 if plane else 5},
            name="directions",
            hoverinfo="skip",
        ),
        kind(
            **at(_beyond(tips) if plane else tips),
            mode="markers+text",
            marker={
                "size": 20 if plane else 15,
                "color": style.PAPER,
                "line": {"color": full, "width": 2.5},
            },
            text=[str(bucket) for bucket in range(len(tips))],
            textposition="middle center",
            textfont={"color": style.INK, "size": 12},
            customdata=geometry.shares[: len(tips)],
            name="tips of directions",
            hovertemplate="bucket %{text} owns %{customdata:.1%}<extra></extra>",
        ),
    ]


def _colours(geometry: Geometry) -> tuple[list[str], list[str]]:
    """Return every bucket's colour, and the lighter one of its region."""
    full = style.bucket_colours(geometry.n_buckets)
    tints = [to_hex(_TINT + (1 - _TINT) * np.array(to_rgb(colour))) for colour in full]
    return full, tints


def _reach(geometry: Geometry) -> float:
    """Return how far the plane's picture goes: past every arrow and its name."""
    tips = geometry.pair if geometry.directions is None else geometry.directions
    vectors = _at_median_length(geometry)
    return 0.3 + float(max(np.linalg.norm(tips, axis=1).max(), abs(vectors).max(), 1.0))


def _at_median_length(geometry: Geometry) -> np.ndarray:
    """Scale the vectors so that the median one has length 1, like the marked two."""
    return geometry.vectors / np.median(np.linalg.norm(geometry.vectors, axis=1))


def _sectors(geometry: Geometry) -> list[tuple[int, float, float]]:
    """Join neighbouring arcs of one bucket: bucket, first and last angle in degrees."""
    buckets, degrees = geometry.cell_buckets, 360 / len(geometry.cell_buckets)
    starts = np.flatnonzero(np.diff(buckets, prepend=-1))
    ends = np.append(starts[1:], len(buckets))
    return [(int(buckets[a]), a * degrees, b * degrees) for a, b in zip(starts, ends, strict=True)]


def _hull(geometry: Geometry) -> np.ndarray:
    """Return the tips of the directions that win something, once around and closed."""
    tips = geometry.directions[geometry.shares > 0]
    around = tips[np.argsort(np.arctan2(tips[:, 1], tips[:, 0]))]
    return np.concatenate([around, around[:1]])


def _beyond(tips: np.ndarray) -> np.ndarray:
    """Return places a little beyond the tips of arrows."""
    return tips * (1 + 0.13 / np.linalg.norm(tips, axis=-1, keepdims=True))


def _on_sphere(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _sticks(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return where the directions' sticks leave the sphere and where they end."""
    lengths = np.linalg.norm(geometry.directions, axis=1, keepdims=True)
    feet = geometry.directions / lengths
    return feet, feet * (1 + _STICK * lengths / lengths.max())


def _arc_of_pair(geometry: Geometry) -> np.ndarray:
    """Return points along the shortest way on the sphere between the two marked vectors."""
    one, other = geometry.pair
    across = np.linalg.svd(geometry.pair)[2][1] if geometry.angle in (0, 180) else other - one
    across = across - one * (across @ one)
    turns = np.deg2rad(np.linspace(0, geometry.angle, 40))[:, None]
    return _ON_SPHERE * (np.cos(turns) * one + np.sin(turns) * across / np.linalg.norm(across))


def _view_of_pair(geometry: Geometry) -> np.ndarray:
    """Return the axes of a reader who faces the two marked vectors: right, up, towards him."""
    middle = geometry.pair.sum(0) if geometry.angle < 175 else geometry.pair[0]
    towards = middle / np.linalg.norm(middle)
    right = np.cross([0.0, 0.0, 1.0] if abs(towards[2]) < 0.95 else [0.0, 1.0, 0.0], towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])
