"""The numbers behind a Plotly figure as a table: the chart for those who cannot see it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reformer_viz.figures.still_axes import plain, raw

MOST_ROWS = 400
"""Of more rows, only the first are listed, and the last says how many there are."""


def rows_of(figure: Any) -> list[list[str]]:
    """List every point of every trace that is shown, below a row with the columns' names."""
    traces = [trace for trace in figure.data if _is_listed(trace)]
    panels = {pair: _panel(figure, *pair) for pair in dict.fromkeys(map(_axes_of, traces))}
    deep = any(trace.type in ("scatter3d", "heatmap") for trace in traces)
    axes = ["x", "y", "z"][: 3 if deep else 2]
    titles = [_title(figure, traces, axis) for axis in axes]
    head = [*(["chart"] if len(panels) > 1 else []), "series", *titles]
    rows, total = [], 0
    for trace in traces:
        before = [panels[_axes_of(trace)]] if len(panels) > 1 else []
        name = plain(trace.name or "")
        for numbers in _points(trace):
            total += 1
            if total <= MOST_ROWS:
                rows.append(
                    [*before, name, *map(_written, numbers), *[""] * (len(axes) - len(numbers))]
                )
    if total > MOST_ROWS:
        rows.append(["…", f"{total:,} rows in all", *[""] * (len(head) - 2)])
    return [head, *rows]


def _is_listed(trace: Any) -> bool:
    """Say whether a trace holds something to read, not only the edge of a band or a surface."""
    invisible = getattr(trace, "mode", None) == "lines" and trace.line.width == 0
    return (
        trace.visible in (None, True) and trace.type not in ("surface", "mesh3d") and not invisible
    )


def _axes_of(trace: Any) -> tuple[str, ...]:
    """Name what a trace stands on: a pair of axes, or a scene."""
    if trace.type == "scatter3d":
        return (trace.scene or "scene",)
    return trace.xaxis or "x", trace.yaxis or "y"


def _panel(figure: Any, *axes: str) -> str:
    """Name a pair of axes by the title above it, where it has one."""
    if len(axes) == 1:
        return axes[0]
    (left, right), (_, top) = (
        figure.layout[f"{name[0]}axis{name[1:]}"].domain or (0, 1) for name in axes
    )
    for note in figure.layout.annotations:
        above = note.xref == note.yref == "paper" and abs((note.y or 0) - top) < 0.02
        if above and abs((note.x or 0) - (left + right) / 2) < 0.02:
            return plain(note.text)
    return "".join(axes)


def _title(figure: Any, traces: list, axis: str) -> str:
    """Return what an axis is called, where all of its kind are called the same."""
    titles = set()
    for trace in traces:
        own = getattr(trace, f"{axis}axis", None) or axis
        layout = getattr(figure.layout, f"{axis}axis{own[1:]}", None)
        if trace.type == "scatter3d":
            layout = figure.layout[trace.scene or "scene"][f"{axis}axis"]
        elif trace.type == "heatmap" and axis == "z":
            layout = trace.colorbar
        titles.add(plain(layout.title.text) if layout is not None and layout.title.text else "")
    titles.discard("")
    return titles.pop() if len(titles) == 1 else axis


def _points(trace: Any) -> Iterator[Sequence]:
    """Yield the coordinates of a trace's points; gaps are left out."""
    if trace.type == "heatmap":
        z = raw(trace.z)
        xs, ys = (
            range(size) if given is None else raw(given).tolist()
            for given, size in ((trace.x, z.shape[1]), (trace.y, z.shape[0]))
        )
        said = z if trace.text is None else raw(trace.text)
        for row, column in np.argwhere(z == z).tolist():  # a cell without a number is a gap
            yield [xs[column], ys[row], said[row, column]]
        return
    axes = [raw(trace[axis]) for axis in ("x", "y", "z") if axis != "z" or "z" in trace]
    length = max(len(values) for values in axes)
    columns = [values.tolist() if len(values) else range(length) for values in axes]
    for point in zip(*columns, strict=True):
        if not any(value is None or value != value for value in point):
            yield point


def _written(value: Any) -> str:
    if isinstance(value, str):
        return plain(value)
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.4g}"
