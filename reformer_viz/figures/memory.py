"""Draw what a training step keeps, needs and takes, in several ways of remembering."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from reformer_viz.measure.live_bytes import in_units
from reformer_viz.measure.memory import Memory
from reformer_viz.measure.step_kinds import LABELS, Kind
from reformer_viz.style import INK, MUTED, PALETTE, RC, SHADE, dress, new_figure, plotly_template

COLOURS: dict[Kind, str] = {
    "standard": PALETTE[5],
    "checkpointed": PALETTE[1],
    "reversible": PALETTE[0],
    "chunked": PALETTE[2],
}
MARKERS: dict[Kind, str] = {
    "standard": "s",
    "checkpointed": "^",
    "reversible": "o",
    "chunked": "D",
}
_SYMBOLS: dict[Kind, str] = {
    "standard": "square",
    "checkpointed": "triangle-up",
    "reversible": "circle",
    "chunked": "diamond",
}
WIDTHS: dict[Kind, tuple[float, float]] = {
    "standard": (2.2, 6.5),
    "checkpointed": (2.2, 6.0),
    "reversible": (4.5, 8.5),
    "chunked": (1.8, 4.5),
}
"""Of lines and of their marks. Reversing with and without pieces may need exactly the same: the
second is drawn upon the first, as a thin line on a broad one."""

AXES = {"depths": "layers", "lengths": "tokens", "n_hashes": "rounds"}

MIB = 2**20
SMALL = RC["font.size"] - 1
_MOST_TICKS = 16
_PIXELS = 4 / 3  # of a point, in which Matplotlib measures lines
_GRADIENTS = "gradients of the parameters"


def plot_memory(memory: Memory) -> Figure:
    """Draw what waits for the backward, and a step's peak, against layers, tokens or rounds.

    First what is kept: a standard stack's grows with depth, a reversible one's does not, but for
    the buckets and random states that make its replay exact. Then the peak of the whole step over
    what grows in every network: the gradients of the parameters. Then what grows in the last kind,
    in parts, with the parameters and the optimiser. And, where it was timed, what a step takes.
    """
    return plot_panels(memory)


def plot_panels(memory: Memory, *more: Callable[[Axes, Memory], None]) -> Figure:
    """Draw the panels of `plot_memory`, and whatever more draws on axes of its own."""
    drawn = (_draw_kept, _draw_peak, _draw_parts, _draw_times)[: 4 if memory.timed else 3]
    n_panels = len(drawn) + len(more)
    shape = (1, 3) if n_panels == 3 else (2, -(-n_panels // 2))
    figure = new_figure(*((10.4, 3.9) if n_panels == 3 else (4.3 * shape[1], 6.4)))
    panels = figure.subplots(*shape, squeeze=False).flat
    for axes, draw_on in zip(panels, drawn, strict=False):
        draw_on(axes, memory)
        axes.set_xlim(0, memory.values[-1] * 1.03)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(FixedLocator(_ticks(memory.values)))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        quieten(axes)
    for axes, draw_on in zip(panels[len(drawn) :], more, strict=False):
        draw_on(axes, memory)
    for axes in panels[n_panels:]:
        axes.remove()
    name_kinds(figure, memory)
    return figure


def plotly_memory(memory: Memory) -> Any:
    """Draw `plot_memory` with Plotly; what grows in the last kind is a pile of parts a point."""
    return plotly_panels(memory)[0]


def plotly_panels(memory: Memory, *more: str) -> tuple[Any, list[dict]]:
    """Draw the panels of `plotly_memory` and leave room for more, which have these titles.

    Returns the figure and the places of those.
    """
    *_, last = memory.steps
    titles = ["Kept for the backward, MiB", "Peak of one training step, MiB"]
    titles += [f"In parts: {LABELS[last]}, MiB"]
    titles += ["Time of one training step"] if memory.timed else []
    figure, (kept, peak, parts, *others) = _in_panels([*titles, *more])
    timed = others[: int(memory.timed)]
    figure.add_scatter(**_plotly_gradients(memory), **peak)
    for kind, step in memory.steps.items():
        for of, place in ((step.kept, kept), (step.peak, peak)):
            words = [in_units(n_bytes) for n_bytes in of]
            curve = plotly_curve(memory, kind, of / MIB, words)
            figure.add_scatter(**curve, showlegend=place == kept, **place)
        for place in timed:
            times = memory.relative_seconds(kind)
            words = [f"{time:.2f} times the first kind's" for time in times]
            figure.add_scatter(
                **plotly_curve(memory, kind, times, words), showlegend=False, **place
            )
    for bar in _plotly_parts(memory):
        figure.add_bar(**bar, **parts)
    figure.update_xaxes(title={"text": AXES[memory.axis]}, showgrid=False)
    for place in (kept, peak, *timed):
        _scale_from_zero(figure, memory, place)
    first, *_ = memory.steps
    for place in timed:
        figure.update_yaxes(title={"text": f"times the {LABELS[first]} step"}, **place)
    figure.update_xaxes(type="category", **parts)
    return figure, others[len(timed) :]


def _in_panels(titles: list[str]) -> tuple[Any, list[dict]]:
    """Make an empty figure with so many panels, and name their places."""
    from plotly.subplots import make_subplots  # slow to import, and print does without

    n_columns = 2 if len(titles) == 4 else 3
    n_rows = -(-len(titles) // n_columns)
    spacing = {"horizontal_spacing": 0.08, "vertical_spacing": 0.2}
    figure = make_subplots(n_rows, n_columns, subplot_titles=titles, **spacing)
    figure.update_layout(
        template=plotly_template(),
        barmode="stack",
        height=150 + 290 * n_rows,
        margin={"b": 130},
        legend={"yref": "container", "y": 0.01, "yanchor": "bottom"},
    )
    figure.update_annotations(font_size=14)
    return figure, [
        {"row": place // n_columns + 1, "col": place % n_columns + 1}
        for place in range(len(titles))
    ]


def _scale_from_zero(figure: Any, memory: Memory, place: dict) -> None:
    """Let both axes of a panel begin at 0, with ticks where something was measured."""
    ticks = _ticks(memory.values)
    figure.update_xaxes(
        tickvals=ticks,
        ticktext=[f"{tick:,}" for tick in ticks],
        range=[0, float(memory.values[-1] * 1.05)],
        **place,
    )
    figure.update_yaxes(rangemode="tozero", **place)


def _plotly_parts(memory: Memory) -> Iterator[dict]:
    """Describe what a step of the last kind has at once: a pile at every point, part by part."""
    for name, part, colour in _parts(memory):
        amounts = np.broadcast_to(part, memory.values.shape)
        yield {
            "x": [f"{value:,}" for value in memory.values],
            "y": amounts / MIB,
            "name": name,
            "legendgroup": name,
            "showlegend": name != _GRADIENTS,  # which the panel of peaks names
            "marker": {"color": colour},
            "customdata": [in_units(n_bytes) for n_bytes in amounts],
            "hovertemplate": f"%{{x}} {AXES[memory.axis]}: %{{customdata}}",
        }


def _plotly_gradients(memory: Memory) -> dict:
    """Describe the area of the gradients of the parameters."""
    return {
        "x": memory.values,
        "y": memory.parameters / MIB,
        "name": _GRADIENTS,
        "legendgroup": _GRADIENTS,
        "mode": "lines",
        "fill": "tozeroy",
        "line": {"color": PALETTE[7], "width": 1},
        "fillcolor": "rgba(102,102,102,0.25)",
        "customdata": [in_units(n_bytes) for n_bytes in memory.parameters],
        "hovertemplate": f"%{{x:,}} {AXES[memory.axis]}: %{{customdata}}",
    }


def plotly_curve(memory: Memory, kind: Kind, amounts: np.ndarray, words: list[str]) -> dict:
    """Describe one kind's line."""
    width, size = WIDTHS[kind]
    return {
        "x": memory.values,
        "y": amounts,
        "name": LABELS[kind],
        "legendgroup": kind,
        "mode": "lines+markers",
        "line": {"color": COLOURS[kind], "width": _PIXELS * width},
        "marker": {"color": COLOURS[kind], "symbol": _SYMBOLS[kind], "size": _PIXELS * size},
        "customdata": words,
        "hovertemplate": f"%{{x:,}} {AXES[memory.axis]}: %{{customdata}}",
    }


def _draw_kept(axes: Axes, memory: Memory) -> None:
    """Draw the bytes between forward and backward."""
    for kind, step in memory.steps.items():
        draw_line(axes, memory, step.kept / MIB, kind)
    dress(axes, "Kept for the backward", AXES[memory.axis], "MiB")


def _draw_peak(axes: Axes, memory: Memory) -> None:
    """Draw the highest point of the step."""
    axes.fill_between(
        _wide(memory),
        memory.parameters / MIB,
        color=SHADE,
        edgecolor=MUTED,
        linewidth=0.8,
    )
    for kind, step in memory.steps.items():
        draw_line(axes, memory, step.peak / MIB, kind)
    axes.annotate(
        _GRADIENTS,
        (memory.values[-1], memory.parameters[-1] / MIB),
        (-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize=SMALL,
        color=MUTED,
    )
    dress(axes, "Peak of one training step", AXES[memory.axis], "MiB")


def _draw_parts(axes: Axes, memory: Memory) -> None:
    """Stack what lives at the highest point of the last kind's step."""
    parts = list(_parts(memory))
    places = _wide(memory)
    drawn = axes.stackplot(
        places,
        *(np.broadcast_to(part / MIB, places.shape) for _, part, _ in parts),
        colors=[colour for _, _, colour in parts],
        edgecolor="white",
        linewidth=0.6,
    )
    axes.legend(
        handles=drawn[::-1],
        labels=[f"{name}, {in_units(part[-1])}" for name, part, _ in parts][::-1],
        loc="upper left",
        frameon=False,
        fontsize=SMALL - 0.5,
        labelcolor=INK,
        labelspacing=0.2,
    )
    *_, kind = memory.steps
    axes.set_ylim(0, sum(part[-1] for _, part, _ in parts) / MIB * 1.7)  # room for the names
    dress(axes, f"In parts: {LABELS[kind]}", AXES[memory.axis], "MiB")


def _wide(memory: Memory) -> np.ndarray:
    """Return where areas begin and end: a single point has some width too."""
    values = memory.values
    return values if len(values) > 1 else values * np.array([0.98, 1.02])


def _parts(memory: Memory) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield what a step of the last kind has at once, from the bottom: name, bytes, colour."""
    *_, kind = memory.steps
    step = memory.steps[kind]
    yield "parameters", memory.parameters, PALETTE[7]
    yield "AdamW's memory", memory.optimizer, "#A3A3A3"
    yield _GRADIENTS, memory.parameters, SHADE
    yield "buckets, random states", step.integers, PALETTE[3]
    yield "activations, at most", step.activations, COLOURS[kind]


def _draw_times(axes: Axes, memory: Memory) -> None:
    """Draw the time of a step against that of the first kind."""
    for kind in memory.steps:
        draw_line(axes, memory, memory.relative_seconds(kind), kind)
    first, *_ = memory.steps
    dress(axes, "Time of one training step", AXES[memory.axis], f"times the {LABELS[first]} step")


def draw_line(
    axes: Axes, memory: Memory, amounts: np.ndarray, kind: Kind, linestyle: str = "-"
) -> None:
    """Draw one kind's line, the later on the earlier."""
    width, size = WIDTHS[kind]
    axes.plot(
        memory.values,
        amounts,
        marker=MARKERS[kind],
        linestyle=linestyle,
        color=COLOURS[kind],
        linewidth=width,
        markersize=size,
        label=LABELS[kind],
        zorder=3 + 0.1 * list(memory.steps).index(kind),
    )


def _ticks(values: np.ndarray) -> list[int]:
    """Keep those of the measured values whose names do not run into each other."""
    kept = [int(values[-1])]
    for value in values[-2::-1]:
        if kept[-1] - value >= values[-1] / _MOST_TICKS:
            kept.append(int(value))
    return kept


def quieten(axes: Axes) -> None:
    """Write whole numbers along x, and keep lines back that are no data."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", color=SHADE, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def name_kinds(figure: Figure, memory: Memory) -> None:
    """Write one legend of the kinds below all panels, with what all points have in common."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
        fontsize=RC["font.size"],
        labelcolor=INK,
        title=memory.fixed(),
        title_fontproperties={"size": SMALL},
    )
