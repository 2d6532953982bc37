"""Draw measured memory beside what the paper's Tables 1 and 3 count, to which nothing is fitted."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from reformer_viz.figures.memory import (
    AXES,
    COLOURS,
    MIB,
    SMALL,
    draw_line,
    name_kinds,
    plot_panels,
    plotly_curve,
    plotly_panels,
    quieten,
)
from reformer_viz.measure.attention_memory import AttentionMemory
from reformer_viz.measure.live_bytes import in_units
from reformer_viz.measure.memory import Memory
from reformer_viz.measure.step_kinds import Kind
from reformer_viz.style import INK, MUTED, PALETTE, RC, dress, new_figure

Term = tuple[str, np.ndarray, str, str]

_MOST_NAMES = 18
_TITLE = "Most activations at once, beside Tables 1 and 3"
_SHORT_TITLE = "At once, over Tables 1, 3"  # where panels are narrow
_DASHES = {"--": "dash", ":": "dot"}


def plot_memory_of_paper(memory: Memory) -> Figure:
    """Draw the most activations at once over what the paper's Tables 1 and 3 count.

    Solid lines are measured, dashed ones are Table 3's term for the kind of the same colour, and
    dotted ones both tables' attention terms. Nothing is fitted, and the tables count one tensor of
    many, so compare slopes: on these axes a power law is a straight line.
    """
    figure = new_figure(8.0, 4.8)
    _draw_beside_paper(figure.subplots(), memory)
    name_kinds(figure, memory)
    return figure


def plot_memory_with_paper(memory: Memory) -> Figure:
    """Draw `plot_memory` with `plot_memory_of_paper` as one more panel."""
    return plot_panels(memory, _draw_beside_paper)


def plotly_memory_with_paper(memory: Memory) -> Any:
    """Draw `plot_memory_with_paper` with Plotly."""
    figure, [at] = plotly_panels(memory, _SHORT_TITLE)
    for kind, step in memory.steps.items():
        words = [in_units(n_bytes) for n_bytes in step.activations]
        curve = plotly_curve(memory, kind, step.activations / MIB, words)
        figure.add_scatter(**curve, showlegend=False, **at)
    terms = list(_paper_terms(memory))
    for name, amounts, colour, line in terms:
        figure.add_scatter(
            x=memory.values,
            y=amounts,
            name=_in_plain(name),
            mode="lines",
            line=_plotly_line(colour, line),
            customdata=[in_units(amount * MIB) for amount in amounts],
            hovertemplate="%{customdata}",
            **at,
        )
    measured = [step.activations / MIB for step in memory.steps.values()]
    amounts = np.concatenate([*measured, *(of for _, of, _, _ in terms)])
    ticks = 4.0 ** np.arange(*(math.floor(math.log(n, 4)) for n in _ends(amounts)))
    values = memory.values.tolist()
    figure.update_xaxes(
        type="log", title={"text": AXES[memory.axis]}, tickvals=values, showgrid=False, **at
    )
    ticktext = [in_units(tick * MIB) for tick in ticks]
    figure.update_yaxes(type="log", tickvals=ticks.tolist(), ticktext=ticktext, **at)
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
            memory.lengths, amounts / MIB, color=colour, marker=marker, linewidth=2, label=label
        )
    terms = [
        ("$b\\,n_h\\,l\\,d_k$, what goes in", memory.heads / MIB, MUTED, ":"),
        ("$b\\,n_h\\,l^2$, full attention", memory.all_pairs / MIB, PALETTE[2], ":"),
        ("$b\\,n_h\\,l\\,n_r\\,c$, LSH as printed", memory.windows / MIB, PALETTE[0], ":"),
    ]
    for _, amounts, colour, line in terms:
        axes.plot(memory.lengths, amounts, line, color=colour, linewidth=1.4)
    dress(axes, "Most bytes of one attention, beside Table 1", AXES["lengths"])
    _scale_in_powers(axes, memory.lengths, terms)
    figure.legend(
        loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL, labelcolor=INK
    )
    return figure


def _draw_beside_paper(axes: Axes, memory: Memory) -> None:
    """Draw the most activations at once over the tables' terms."""
    for kind, step in memory.steps.items():
        draw_line(axes, memory, step.activations / MIB, kind)
    terms = list(_paper_terms(memory))
    for _, amounts, colour, line in terms:
        axes.plot(memory.values, amounts, line, color=colour, linewidth=1.3)
    dress(axes, _TITLE, AXES[memory.axis])
    _scale_in_powers(axes, memory.values, terms)


def _plotly_line(colour: str, line: str) -> dict:
    """Describe a term's line; the ink of print would vanish on a dark page, so dashes tell it."""
    looks = (MUTED, "dashdot") if colour == INK else (colour, _DASHES[line])
    return {**dict(zip(("color", "dash"), looks, strict=True)), "width": 1.6}


def _in_plain(formula: str) -> str:
    """Write a formula without the marks of its type setting."""
    return formula.translate(str.maketrans("", "", "${}")).replace("\\,", " ")


def _ends(amounts: np.ndarray) -> tuple[float, float]:
    """Return from where to where amounts reach, with a power of four to spare above."""
    return float(amounts.min()), float(amounts.max()) * 16


def _paper_terms(memory: Memory) -> Iterator[Term]:
    """Yield the tables' terms: formula, MiB, colour, kind of line."""
    formulas: dict[Kind, str] = {
        "standard": "$b\\,l\\,d_{ff}\\,n_l$",
        "reversible": "$b\\,l\\,d_{ff}$",
        "chunked": "$b\\,l\\,d_{model}$",
    }
    for kind, formula in formulas.items():
        if kind in memory.steps:
            yield formula, memory.paper.width[kind] / MIB, COLOURS[kind], "--"
    yield "$b\\,n_h\\,l^2$, full attention", memory.paper.all_pairs / MIB, MUTED, ":"
    yield "$b\\,n_h\\,l\\,n_r\\,c$, LSH as printed", memory.paper.windows / MIB, INK, ":"


def _scale_in_powers(axes: Axes, values: np.ndarray, terms: list[Term]) -> None:
    """Give axes logarithmic scales, bytes with their units, and every term its formula."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    _name_ends(axes, terms)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.yaxis.set_major_locator(LogLocator(base=4, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_units(value * MIB)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    quieten(axes)


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
