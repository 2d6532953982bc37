"""Draw the price of a miss: answers by whether their key was seen, and bits painted on a text."""

from collections.abc import Iterator
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reformer_viz.measure.misses import MissCost, Misses
from reformer_viz.style import INK, MUTED, PALETTE, PAPER, RC, SHADE, dress, new_figure, text_on

_SMALL = RC["font.size"] - 1
_TINY = RC["font.size"] - 2.5
_MOST_LINES = 4

OUTCOMES = (
    (1, 1, "seen, right", PALETTE[0]),
    (0, 1, "missed, right", PALETTE[4]),
    (1, 0, "seen, wrong", PALETTE[1]),
    (0, 0, "missed, wrong", PALETTE[5]),
)
"""Whether the key was seen, whether the answer was right: in the order of being stacked."""

_COSTS = LinearSegmentedColormap.from_list("costs", [PALETTE[0], PAPER, PALETTE[5]])
_COLUMNS = 80
_COLUMN, _ROW = 0.1, 0.23  # inches that a painted token takes
_STRONGEST = 0.75  # a colour's opacity on a page: text stays readable on light and dark


def plot_misses(misses: Misses, n_hashes: int = 1) -> Figure:
    """Draw how often needed keys were seen, and what became of the answers.

    Above: against the number of rounds; against how many heads saw the key; and the four outcomes
    with `n_hashes` rounds. Below, the same outcomes at every position. Raises ValueError for more
    rounds than were measured.
    """
    place = misses.place_of(n_hashes)
    figure = new_figure(9.6, 5.2)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.25, 1))
    _draw_rounds(figure.add_subplot(grid[0, 0]), misses)
    _draw_heads(figure.add_subplot(grid[0, 1]), misses)
    _draw_table(figure.add_subplot(grid[0, 2]), misses, place)
    _draw_positions(figure.add_subplot(grid[1, :]), misses, place)
    return figure


def plot_miss_cost(cost: MissCost, n_hashes: int = 1) -> Figure:
    """Paint on every token the bits that missed keys cost it: orange lost, blue gained.

    A row has 80 tokens, or fewer where the text breaks its line. Raises ValueError for more rounds
    than were measured.
    """
    place = cost.place_of(n_hashes)
    rows = list(rows_of_text(cost.labels, _COLUMNS))
    height = _ROW * len(rows)
    figure = new_figure(_COLUMN * _COLUMNS + 0.4, height + 1.0)
    axes = figure.add_subplot()
    axes.set(xlim=(0, _COLUMNS), ylim=(len(rows), 0))
    colours = ScalarMappable(Normalize(-cost.scale, cost.scale), _COSTS)
    for row, tokens in enumerate(rows):
        for column, token in enumerate(tokens):
            colour = PAPER if token == 0 else to_hex(colours.to_rgba(cost.cost[place, token - 1]))
            _paint(axes, column, row, cost.labels[token], colour)
    rounds = f"{place + 1} round{'s' if place else ''}"
    dress(axes, f"What missed keys cost each token with {rounds}", frame=False)
    bar = figure.colorbar(colours, ax=axes, orientation="horizontal", shrink=0.5, aspect=40, pad=0)
    bar.set_label("bits a token: LSH minus full attention, same weights", size=_SMALL, color=MUTED)
    bar.ax.tick_params(labelsize=_SMALL, labelcolor=MUTED, color=MUTED)
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value:+.2g}" if value else "0")
    return figure


def write_miss_cost(cost: MissCost, n_hashes: int = 1) -> str:
    """Write the same as HTML that needs nothing else: point at a token to read its numbers.

    Text stays text, whatever is in it, and takes its colour from the page. The numbers stand below
    as a table as well. Raises ValueError for more rounds than were measured.
    """
    place = cost.place_of(n_hashes)
    painted = "".join(_painted(cost, token, place) for token in range(cost.length))
    rows = "".join(_table_row(cost, token, place) for token in range(1, cost.length))
    return (
        f'<figure style="margin:0"><figcaption>{escape(cost.describe(place + 1))}</figcaption>'
        f'<pre style="white-space:pre-wrap;line-height:1.7">{painted}</pre>'
        f"<p>Orange: missed keys cost bits. Blue: the prediction is better without them. Full "
        f"colour: {cost.scale:.2f} bits or more.</p>"
        "<details><summary>Show the numbers</summary><table><thead><tr><th>token</th>"
        "<th>text</th><th>cost, bits</th><th>full attention, bits</th><th>weight missed</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></details></figure>"
    )


def _draw_rounds(axes: Axes, misses: Misses) -> None:
    """Draw the share of keys seen and of answers right against the number of rounds."""
    axes.axhline(
        misses.accuracy_in_full,
        color=INK,
        linestyle="--",
        linewidth=1,
        label="right, full attention",
    )
    for values, style, colour, label in (
        (misses.seen, "o--", PALETTE[7], "key seen by a head"),
        (misses.accuracy, "o-", PALETTE[0], "right"),
    ):
        axes.plot(misses.n_hashes, values, style, color=colour, markersize=4, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _in_per_cent(axes)
    axes.legend(loc="lower right", frameon=False, fontsize=_SMALL, labelcolor=INK)
    dress(axes, f"{misses.n_answers:,} answers", "rounds of hashing")


def _draw_heads(axes: Axes, misses: Misses) -> None:
    """Draw the accuracy against the number of heads that saw the key; dots grow with the count."""
    heads = np.arange(misses.by_heads.shape[2])
    axes.axhline(misses.chance, color=MUTED, linestyle=":", linewidth=1, label="guessing")
    for place, colour in zip(range(min(_MOST_LINES, len(misses.n_hashes))), PALETTE, strict=False):
        answers = misses.by_heads[place].sum((0, 2))
        label = f"{place + 1} round{'s' if place else ''}"
        accuracy = misses.accuracy_by_heads[place]
        axes.plot(heads, accuracy, color=colour, linewidth=1.2, label=label)
        axes.scatter(heads, accuracy, 10 + 90 * answers / misses.n_answers, color=colour)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _in_per_cent(axes)
    axes.legend(loc="lower right", frameon=False, fontsize=_SMALL, labelcolor=INK)
    dress(axes, "Right, by who saw the key", "heads that saw it (larger dot: more answers)")


def _draw_table(axes: Axes, misses: Misses, place: int) -> None:
    """Write the four outcomes as a table, each cell in its colour."""
    counts = misses.counts[place].sum(0)
    for seen, right, _, colour in OUTCOMES:
        axes.add_patch(Rectangle((right, 1 - seen), 0.96, 0.94, color=colour, linewidth=0))
        number = counts[seen, right]
        text = f"{number:,}\n{number / misses.n_answers:.1%}"
        middle = right + 0.48, 1 - seen + 0.47
        axes.text(*middle, text, ha="center", va="center", color=text_on(colour), size=9)
    axes.set(xlim=(0, 2), ylim=(2, 0))
    axes.set_xticks([0.48, 1.48], ["wrong", "right"])
    axes.set_yticks([0.47, 1.47], ["key seen", "missed"], rotation=90, va="center")
    dress(axes, f"With {place + 1} round{'s' if place else ''}", "answer")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _draw_positions(axes: Axes, misses: Misses, place: int) -> None:
    """Stack the outcomes at every position."""
    bottom = np.zeros(len(misses.positions))
    for seen, right, label, colour in OUTCOMES:
        share = misses.counts[place, :, seen, right] / misses.n_sequences
        axes.bar(misses.positions, share, 1, bottom, color=colour, label=label, linewidth=0)
        bottom = bottom + share
    axes.set_xlim(misses.positions[0] - 0.5, misses.positions[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(16, integer=True))
    _in_per_cent(axes)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.42, 1.0),
        ncols=4,
        frameon=False,
        fontsize=_SMALL,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.2,
    )
    dress(axes, f"Where, with {place + 1} round{'s' if place else ''}", "position in the sequence")


def _in_per_cent(axes: Axes) -> None:
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.grid(axis="y", color=SHADE, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def rows_of_text(labels: tuple[str, ...], columns: int) -> Iterator[list[int]]:
    """Break a text into rows of tokens: after so many, and after a line's end."""
    row: list[int] = []
    for token, label in enumerate(labels):
        row.append(token)
        if label == "\n" or len(row) == columns:
            yield row
            row = []
    if row:
        yield row


def _paint(axes: Axes, column: int, row: int, label: str, colour: str) -> None:
    """Paint one token."""
    axes.add_patch(Rectangle((column, row), 1, 0.92, facecolor=colour, linewidth=0))
    text = "↵" if label == "\n" else label
    axes.text(
        column + 0.5,
        row + 0.47,
        text.replace("$", r"\$"),
        ha="center",
        va="center",
        family="monospace",
        color=text_on(colour),
        size=RC["font.size"] if len(text) == 1 else _TINY * min(1, 3 / len(text)),
    )


def _painted(cost: MissCost, token: int, place: int) -> str:
    """Write one token as HTML: its colour is its cost, its title says the numbers."""
    label = cost.labels[token]
    text = "↵\n" if label == "\n" else escape(label) if len(label) == 1 else f"{escape(label)} "
    title = escape(cost.describe_token(token, place + 1).replace("\n", "↵"))
    if token == 0:
        return f'<span title="{title}">{text}</span>'
    share = cost.cost[place, token - 1] / cost.scale
    opacity = round(_STRONGEST * min(1.0, abs(float(share))), 2)
    red, green, blue = (
        int((PALETTE[5] if share > 0 else PALETTE[0])[i : i + 2], 16) for i in (1, 3, 5)
    )
    style = f"background:rgba({red},{green},{blue},{opacity})"
    return f'<span style="{style}" title="{title}">{text}</span>'


def _table_row(cost: MissCost, token: int, place: int) -> str:
    """Write one token's numbers as a row of the table."""
    label, at = cost.labels[token].replace("\n", "↵"), token - 1
    numbers = (
        f"{cost.cost[place, at]:+.3f}",
        f"{cost.loss_in_full[at]:.3f}",
        f"{cost.mass_missed[place, at]:.0%}",
    )
    cells = "".join(f"<td>{number}</td>" for number in numbers)
    return f"<tr><th>{token}</th><td>{escape(label)}</td>{cells}</tr>"
