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
AXES = {"depths": "layers", "lengths": "tokens", "n_hashes": "rounds"}

MIB = 2**20
SMALL = RC["font.size"] - 1
_MOST_TICKS = 16


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
    """Draw `plot_memory` with Plotly: what is kept, the peak over the gradients, and the times."""
    return plotly_panels(memory)


def plotly_panels(memory: Memory, *more: str) -> Any:
    """Draw the panels of `plotly_memory`, and leave room for more, which have these titles."""
    from plotly.subplots import make_subplots  # slow to import, and print does without

    titles = ["Kept for the backward, MiB", "Peak of one training step, MiB", "Time of one step"]
    n_panels = 3 if memory.timed else 2
    titles = [*titles[:n_panels], *more]
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.08)
    figure.add_scatter(**_plotly_gradients(memory), row=1, col=2)
    for kind, step in memory.steps.items():
        panels = [
            (of / MIB, [in_units(n_bytes) for n_bytes in of]) for of in (step.kept, step.peak)
        ]
        times = memory.relative_seconds(kind)
        panels.append((times, [f"{time:.2f} times the first kind's" for time in times]))
        for column, (amounts, words) in enumerate(panels[:n_panels], 1):
            curve = plotly_curve(memory, kind, amounts, words)
            figure.add_scatter(**curve, showlegend=column == 1, row=1, col=column)
    ticks = _ticks(memory.values)
    for column in range(1, n_panels + 1):
        figure.update_xaxes(
            title={"text": AXES[memory.axis]},
            tickvals=ticks,
            ticktext=[f"{tick:,}" for tick in ticks],
            showgrid=False,
            range=[0, float(memory.values[-1] * 1.05)],
            col=column,
        )
        figure.update_yaxes(rangemode="tozero", col=column)
    figure.update_layout(template=plotly_template(), height=420)
    return figure


def _plotly_gradients(memory: Memory) -> dict:
    """Describe the area of the gradients of the parameters."""
    return {
        "x": memory.values,
        "y": memory.parameters / MIB,
        "name": "gradients of the parameters",
        "mode": "lines",
        "fill": "tozeroy",
        "line": {"color": PALETTE[7], "width": 1},
        "fillcolor": "rgba(102,102,102,0.25)",
        "customdata": [in_units(n_bytes) for n_bytes in memory.parameters],
        "hovertemplate": f"%{{x:,}} {AXES[memory.axis]}: %{{customdata}}",
    }


def plotly_curve(memory: Memory, kind: Kind, amounts: np.ndarray, words: list[str]) -> dict:
    """Describe one kind's line."""
    return {
        "x": memory.values,
        "y": amounts,
        "name": LABELS[kind],
        "legendgroup": kind,
        "mode": "lines+markers",
        "line": {"color": COLOURS[kind], "width": 2.5},
        "marker": {"color": COLOURS[kind], "symbol": _SYMBOLS[kind], "size": 8},
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
        "gradients of the parameters",
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
    yield "gradients", memory.parameters, SHADE
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
    """Draw one kind's line, the thinner the later, so that none hides behind another."""
    place = list(memory.steps).index(kind)
    axes.plot(
        memory.values,
        amounts,
        marker=MARKERS[kind],
        linestyle=linestyle,
        color=COLOURS[kind],
        linewidth=2.6 - 0.4 * place,
        markersize=6.5 - 0.8 * place,
        label=LABELS[kind],
        zorder=3 + 0.1 * place,
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
