"""Draw what a training step keeps, needs and takes, in several ways of remembering."""

import math
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from reformer_viz.measure.attention_memory import AttentionMemory
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
Term = tuple[str, np.ndarray, str, str]

AXES = {"depths": "layers", "lengths": "tokens", "n_hashes": "rounds"}

_MIB = 2**20
_MOST_TICKS = 16
_MOST_NAMES = 18
_SMALL = RC["font.size"] - 1


def plot_memory(memory: Memory) -> Figure:
    """Draw what waits for the backward, and a step's peak, against layers, tokens or rounds.

    First what is kept: a standard stack's grows with depth, a reversible one's does not, but for
    the buckets and random states that make its replay exact. Then the peak of the whole step over
    what grows in every network: the gradients of the parameters. Then what grows in the last kind,
    in parts, with the parameters and the optimiser. And, where it was timed, what a step takes.
    """
    n_panels = 4 if memory.timed else 3
    figure = new_figure(*((8.6, 6.4) if n_panels == 4 else (10.4, 3.9)))
    panels = figure.subplots(*((2, 2) if n_panels == 4 else (1, 3))).flat
    draw = (_draw_kept, _draw_peak, _draw_parts, _draw_times)[:n_panels]
    for axes, draw_on in zip(panels, draw, strict=True):
        draw_on(axes, memory)
        axes.set_xlim(0, memory.values[-1] * 1.03)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(FixedLocator(_ticks(memory.values)))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        _quiet(axes)
    _name_kinds(figure, memory)
    return figure


def plot_memory_of_paper(memory: Memory) -> Figure:
    """Draw the most activations at once over what the paper's Tables 1 and 3 count.

    Solid lines are measured, dashed ones are Table 3's term for the kind of the same colour, and
    dotted ones both tables' attention terms. Nothing is fitted, and the tables count one tensor of
    many, so compare slopes: on these axes a power law is a straight line.
    """
    figure = new_figure(8.0, 4.8)
    axes = figure.subplots()
    for kind, step in memory.steps.items():
        _line(axes, memory, step.activations / _MIB, kind)
    terms = list(_paper_terms(memory))
    for _, amounts, colour, line in terms:
        axes.plot(memory.values, amounts, line, color=colour, linewidth=1.3)
    dress(axes, "Most activations at once, beside Tables 1 and 3", AXES[memory.axis])
    _scale_in_powers(axes, memory.values, terms)
    _name_kinds(figure, memory)
    return figure


def plot_attention_memory(memory: AttentionMemory) -> Figure:
    """Draw what one attention needs, LSH's and full, over what the paper's Table 1 counts.

    Solid lines are measured, dotted ones are the table's terms, to which nothing is fitted. On
    these axes memory proportional to the length has slope one, and to its square slope two.
    """
    figure = new_figure(8.0, 4.6)
    axes = figure.subplots()
    measured = (
        (memory.full, PALETTE[2], "^", "full attention"),
        (memory.lsh, PALETTE[0], "o", f"LSH attention, {memory.n_hashes} rounds"),
    )
    for amounts, colour, marker, label in measured:
        axes.plot(
            memory.lengths, amounts / _MIB, color=colour, marker=marker, linewidth=2, label=label
        )
    terms = [
        ("$b\\,n_h\\,l\\,d_k$, what goes in", memory.heads / _MIB, MUTED, ":"),
        ("$b\\,n_h\\,l^2$, full attention", memory.all_pairs / _MIB, PALETTE[2], ":"),
        ("$b\\,n_h\\,l\\,n_r\\,c$, LSH as printed", memory.windows / _MIB, PALETTE[0], ":"),
    ]
    for _, amounts, colour, line in terms:
        axes.plot(memory.lengths, amounts, line, color=colour, linewidth=1.4)
    dress(axes, "Most bytes of one attention, beside Table 1", AXES["lengths"])
    _scale_in_powers(axes, memory.lengths, terms)
    figure.legend(
        loc="outside lower center", ncols=2, frameon=False, fontsize=_SMALL, labelcolor=INK
    )
    return figure


def _scale_in_powers(axes: Axes, values: np.ndarray, terms: list[Term]) -> None:
    """Give axes logarithmic scales, bytes with their units, and every term its formula."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    _name_ends(axes, terms)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.yaxis.set_major_locator(LogLocator(base=4, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_units(value * _MIB)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    _quiet(axes)


_SYMBOLS: dict[Kind, str] = {
    "standard": "square",
    "checkpointed": "triangle-up",
    "reversible": "circle",
    "chunked": "diamond",
}


def plotly_memory(memory: Memory):
    """Draw `plot_memory` with Plotly: what is kept, the peak over the gradients, and the times."""
    from plotly.subplots import make_subplots  # slow to import, and print does without

    titles = ["Kept for the backward, MiB", "Peak of one training step, MiB", "Time of one step"]
    n_panels = 3 if memory.timed else 2
    figure = make_subplots(1, n_panels, subplot_titles=titles[:n_panels], horizontal_spacing=0.08)
    figure.add_scatter(
        x=memory.values,
        y=memory.parameters / _MIB,
        name="gradients of the parameters",
        mode="lines",
        fill="tozeroy",
        line={"color": PALETTE[7], "width": 1},
        fillcolor="rgba(102,102,102,0.25)",
        customdata=[in_units(n_bytes) for n_bytes in memory.parameters],
        hovertemplate=f"%{{x:,}} {AXES[memory.axis]}: %{{customdata}}",
        row=1,
        col=2,
    )
    for kind, step in memory.steps.items():
        relative = memory.relative_seconds(kind)
        for column, (amounts, words) in enumerate(
            (
                (step.kept / _MIB, [in_units(n_bytes) for n_bytes in step.kept]),
                (step.peak / _MIB, [in_units(n_bytes) for n_bytes in step.peak]),
                (relative, [f"{times:.2f} times the first kind's" for times in relative]),
            )[:n_panels]
        ):
            curve = _plotly_curve(memory, kind, amounts, words)
            figure.add_scatter(**curve, showlegend=column == 0, row=1, col=column + 1)
    ticks = _ticks(memory.values)
    figure.update_xaxes(
        title={"text": AXES[memory.axis]},
        tickvals=ticks,
        ticktext=[f"{tick:,}" for tick in ticks],
        showgrid=False,
        range=[0, float(memory.values[-1] * 1.05)],
    )
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(template=plotly_template(), height=420)
    return figure


def _plotly_curve(memory: Memory, kind: Kind, amounts: np.ndarray, words: list[str]) -> dict:
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


def _paper_terms(memory: Memory) -> Iterator[Term]:
    """Yield the tables' terms: formula, MiB, colour, kind of line."""
    formulas: dict[Kind, str] = {
        "standard": "$b\\,l\\,d_{ff}\\,n_l$",
        "reversible": "$b\\,l\\,d_{ff}$",
        "chunked": "$b\\,l\\,d_{model}$",
    }
    for kind, formula in formulas.items():
        if kind in memory.steps:
            yield formula, memory.paper.width[kind] / _MIB, COLOURS[kind], "--"
    yield "$b\\,n_h\\,l^2$, full attention", memory.paper.all_pairs / _MIB, MUTED, ":"
    yield "$b\\,n_h\\,l\\,n_r\\,c$, LSH as printed", memory.paper.windows / _MIB, INK, ":"


def _name_ends(axes: Axes, terms: list[Term]) -> None:
    """Write the formulas beside the ends of their lines, apart from each other."""
    low, high = (math.log2(edge) for edge in axes.get_ylim())
    lowest = low
    for name, amounts, colour, _ in sorted(terms, key=lambda term: term[1][-1]):
        height = max(lowest, math.log2(amounts[-1]))
        lowest = height + (high - low) / _MOST_NAMES
        axes.annotate(
            name,
            (1.02, (height - low) / (high - low)),
            xycoords="axes fraction",
            va="center",
            fontsize=RC["font.size"],
            color=colour,
            annotation_clip=False,
        )


def _draw_kept(axes: Axes, memory: Memory) -> None:
    """Draw the bytes between forward and backward."""
    for kind, step in memory.steps.items():
        _line(axes, memory, step.kept / _MIB, kind)
    dress(axes, "Kept for the backward", AXES[memory.axis], "MiB")


def _draw_peak(axes: Axes, memory: Memory) -> None:
    """Draw the highest point of the step."""
    axes.fill_between(
        memory.values,
        memory.parameters / _MIB,
        color=SHADE,
        edgecolor=MUTED,
        linewidth=0.8,
    )
    for kind, step in memory.steps.items():
        _line(axes, memory, step.peak / _MIB, kind)
    axes.annotate(
        "gradients of the parameters",
        (memory.values[-1], memory.parameters[-1] / _MIB),
        (-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize=_SMALL,
        color=MUTED,
    )
    dress(axes, "Peak of one training step", AXES[memory.axis], "MiB")


def _draw_parts(axes: Axes, memory: Memory) -> None:
    """Stack what lives at the highest point of the last kind's step."""
    parts = list(_parts(memory))
    drawn = axes.stackplot(
        memory.values,
        *(part / _MIB for _, part, _ in parts),
        colors=[colour for _, _, colour in parts],
        edgecolor="white",
        linewidth=0.6,
    )
    axes.legend(
        handles=drawn[::-1],
        labels=[f"{name}, {in_units(part[-1])}" for name, part, _ in parts][::-1],
        loc="upper left",
        frameon=False,
        fontsize=_SMALL - 0.5,
        labelcolor=INK,
        labelspacing=0.2,
    )
    *_, kind = memory.steps
    axes.set_ylim(0, sum(part[-1] for _, part, _ in parts) / _MIB * 1.7)  # room for the names
    dress(axes, f"In parts: {LABELS[kind]}", AXES[memory.axis], "MiB")


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
        _line(axes, memory, memory.relative_seconds(kind), kind)
    first, *_ = memory.steps
    dress(axes, "Time of one training step", AXES[memory.axis], f"times the {LABELS[first]} step")


def _line(
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


def _quiet(axes: Axes) -> None:
    """Write whole numbers along x, and keep lines back that are no data."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", color=SHADE, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _name_kinds(figure: Figure, memory: Memory) -> None:
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
        title_fontproperties={"size": _SMALL},
    )
