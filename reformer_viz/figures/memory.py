"""Draw the bytes of a training step against depth."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reformer_viz.measure.memory import Memory, in_units
from reformer_viz.style import INK, MUTED, PALETTE, SHADE, dress, new_figure

_MIB = 2**20
_STANDARD, _REVERSIBLE = PALETTE[5], PALETTE[0]


def plot_memory(memory: Memory) -> Figure:
    """Draw what waits for the backward, and a step's peak, against the number of layers.

    Left, activations: a standard stack's grow with depth, a reversible one's do not; what still
    grows in it, the integers that make the replay exact, is an area of its own. Right, the peak of
    the whole step over what grows in every network: the parameters' gradients.
    """
    figure = new_figure(8.0, 3.4)
    left, right = figure.subplots(1, 2)
    _draw_kept(left, memory)
    _draw_peak(right, memory)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, memory.depths[-1] * 1.02)
        axes.set_xticks(memory.depths)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _draw_kept(axes: Axes, memory: Memory) -> None:
    """Draw the bytes between forward and backward."""
    floats = memory.reversible.floats / _MIB
    grown = in_units(memory.reversible.integers[-1])
    both = floats + memory.reversible.integers / _MIB
    axes.plot(
        memory.depths,
        (memory.standard.floats + memory.standard.integers) / _MIB,
        "s-",
        color=_STANDARD,
        label="standard",
    )
    axes.plot(memory.depths, both, "o-", color=_REVERSIBLE, label="reversible")
    axes.fill_between(
        memory.depths,
        floats,
        both,
        color=_REVERSIBLE,
        alpha=0.3,
        linewidth=0,
        label=f"what grows in it: {grown}\nof buckets, random states",
    )
    tokens = f"{memory.batch_size} x {memory.length:,} tokens"
    dress(axes, f"Kept for the backward, {tokens}", "layers", "MiB")


def _draw_peak(axes: Axes, memory: Memory) -> None:
    """Draw the highest point of the step."""
    axes.fill_between(
        memory.depths,
        memory.parameters / _MIB,
        color=SHADE,
        edgecolor=MUTED,
        linewidth=0.8,
        label="of which gradients of the parameters",
    )
    for peak, style, colour, label in (
        (memory.standard.peak, "s-", _STANDARD, "standard"),
        (memory.reversible.peak, "o-", _REVERSIBLE, "reversible"),
    ):
        axes.plot(memory.depths, peak / _MIB, style, color=colour, label=label)
    dress(axes, "Peak of one training step", "layers", "MiB")
