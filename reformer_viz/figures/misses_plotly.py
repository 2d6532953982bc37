"""The price of a miss for a live page: answers by position, and bits painted on a text."""

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from reformer_viz.figures.misses import OUTCOMES, rows_of_text
from reformer_viz.measure.misses import MissCost, Misses
from reformer_viz.style import INK, MUTED, PALETTE, PAPER, plotly_template

_MOST_ROWS = 40
"""Of more lines of a text, the ends are not kept."""

_WIDTH, _NARROWEST, _LETTER, _CELL = 704, 11, 8, 21
"""Pixels: a row's width, that of a cell and of a letter, and a row's height."""

_CLEAR = 8  # pixels between the painted text and the title above it
_LONGEST = 7  # letters of a token that are painted
_BELOW, _AROUND = 210, 150  # pixels of the charts below the text, and of all around them
_STRONGEST = 0.75  # of a colour in white: dark text stays readable on it


def plotly_misses(misses: Misses, n_hashes: int = 1) -> Any:
    """Draw how often needed keys were seen, and what became of the answers.

    Above: against the number of rounds; and with `n_hashes` rounds against how many heads saw the
    key. Below, every position: the outcomes stacked over all sequences, or, of one sequence, a
    point for every answer. Raises ValueError for more rounds than were measured.
    """
    from plotly.subplots import make_subplots  # slow to import, and print does without

    place = misses.place_of(n_hashes)
    rounds = _rounds(n_hashes)
    titles = ("Against rounds", f"Right, by who saw the key, {rounds}", f"Where, {rounds}")
    figure = make_subplots(
        2,
        2,
        specs=[[{}, {}], [{"colspan": 2}, None]],
        subplot_titles=titles,
        vertical_spacing=0.24,
        horizontal_spacing=0.1,
    )
    one = misses.n_sequences == 1
    for trace in _positions_of_one(misses, place) if one else _positions_of_all(misses, place):
        figure.add_trace(trace, row=2, col=1)
    for trace in _against_rounds(misses, place):
        figure.add_trace(trace, row=1, col=1)
    for trace in _against_heads(misses, place):
        figure.add_trace(trace, row=1, col=2)
    shares = {"tickformat": ".0%", "range": [0, 1.04]}
    figure.update_yaxes(**shares, row=1)
    figure.update_yaxes(**({"title": {"text": "heads that saw"}} if one else shares), row=2)
    figure.update_xaxes(title={"text": "rounds of hashing"}, row=1, col=1)
    figure.update_xaxes(title={"text": "heads that saw it"}, row=1, col=2)
    figure.update_xaxes(title={"text": "position in the sequence"}, row=2)
    figure.update_xaxes(showgrid=False)
    figure.update_layout(template=plotly_template(), barmode="stack", bargap=0, height=580)
    return figure


def plotly_miss_cost(cost: MissCost, n_hashes: int = 1) -> Any:
    """Paint on every token the bits that missed keys cost it, above its cost and what it missed.

    Orange lost, blue gained. Below, the cost against the place in the text, and against the weight
    that the prediction missed. Raises ValueError for more rounds than were measured.
    """
    from plotly.subplots import make_subplots  # slow to import, and print does without

    place = cost.place_of(n_hashes)
    rows = _text_rows(cost.labels)
    painted = _CELL * len(rows)
    figure = make_subplots(
        2,
        2,
        specs=[[{"colspan": 2}, None], [{}, {}]],
        subplot_titles=(
            f"What missed keys cost each token with {_rounds(n_hashes)}",
            "By place",
            "By the weight missed",
        ),
        row_heights=[painted, _BELOW],
        vertical_spacing=70 / (painted + _BELOW + 70),
        horizontal_spacing=0.1,
    )
    words = [_safe(cost.describe_token(token, n_hashes)) for token in range(cost.length)]
    for column, trace in enumerate(_costs(cost, place, words), 1):
        figure.add_trace(trace, row=2, col=column)
    for trace in _painted(cost, place, rows, words):
        figure.add_trace(trace, row=1, col=1)
    hidden = {"visible": False, "fixedrange": True, "showgrid": False}
    figure.update_xaxes(range=[-0.5, _columns(cost.labels) - 0.5], **hidden, row=1)
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], **hidden, row=1)
    figure.update_xaxes(title={"text": "token"}, showgrid=False, row=2, col=1)
    figure.update_xaxes(
        title={"text": "weight missed"}, tickformat=".0%", showgrid=False, row=2, col=2
    )
    figure.update_yaxes(title={"text": "bits"}, row=2)
    height = painted + _BELOW + _AROUND
    figure.update_layout(template=plotly_template(), showlegend=False, height=height)
    figure.layout.annotations[0].yshift = _CLEAR
    return figure


def _rounds(n_hashes: int) -> str:
    return f"{n_hashes} round{'s' * (n_hashes != 1)}"


def _positions_of_all(misses: Misses, place: int) -> Iterator[dict]:
    """Stack the shares of the four outcomes at every position."""
    for seen, right, name, colour in OUTCOMES:
        number = misses.counts[place, :, seen, right]
        yield {
            "type": "bar",
            "x": misses.positions,
            "y": number / misses.n_sequences,
            "name": name,
            "marker": {"color": colour, "line": {"width": 0}},
            "customdata": [f"{name}: {n} of {misses.n_sequences}" for n in number],
            "hovertemplate": "position %{x}<br>%{customdata}<extra></extra>",
        }


def _positions_of_one(misses: Misses, place: int) -> Iterator[dict]:
    """Set a point for every answer, as high as the number of heads that saw its key."""
    heads, right = misses.heads[place, 0], misses.right[place, 0]
    for seen, is_right, name, colour in OUTCOMES:
        there = ((heads > 0) == seen) & (right == is_right)
        positions = misses.positions[there]
        yield {
            "type": "scatter",
            "x": positions,
            "y": heads[there],
            "name": name,
            "mode": "markers",
            "marker": {"color": colour, "size": 8, "symbol": "circle" if is_right else "x"},
            "customdata": [misses.describe_answer(int(p), place + 1) for p in positions],
            "hovertemplate": "%{customdata}<extra></extra>",
        }


def _against_rounds(misses: Misses, place: int) -> Iterator[dict]:
    """Draw the shares of keys seen and of answers right, and mark the rounds that are shown."""
    ends = misses.n_hashes[[0, -1]]
    full, shown = [misses.accuracy_in_full] * 2, [place + 1] * 2
    for name, x, y, looks in (
        ("key seen by a head", misses.n_hashes, misses.seen, {"color": PALETTE[7], "dash": "dot"}),
        ("right", misses.n_hashes, misses.accuracy, {"color": PALETTE[0]}),
        ("right, full attention", ends, full, {"color": PALETTE[2], "dash": "dash"}),
        ("shown", shown, [0, 1], {"color": MUTED, "width": 1}),
    ):
        yield {
            "type": "scatter",
            "x": x,
            "y": y,
            "name": name,
            "mode": "lines+markers" if len(x) == len(misses.n_hashes) > 2 else "lines",
            "line": {"width": 2} | looks,
            "showlegend": name != "shown",
            "hovertemplate": "%{x} rounds: %{y:.1%}" if name != "shown" else "%{x} rounds",
        }


def _against_heads(misses: Misses, place: int) -> Iterator[dict]:
    """Draw the accuracy against the number of heads that saw the key, beside guessing."""
    accuracy = misses.accuracy_by_heads[place]
    heads = np.flatnonzero(np.isfinite(accuracy))
    answers = misses.by_heads[place].sum((0, 2))[heads]
    looks = {"type": "scatter", "showlegend": False}
    yield {
        **looks,
        "x": heads,
        "y": accuracy[heads],
        "name": "right, by heads",
        "mode": "lines+markers",
        "line": {"color": PALETTE[0], "width": 2},
        "customdata": [
            f"{right:.1%} of {n:,}" for right, n in zip(accuracy[heads], answers, strict=True)
        ],
        "hovertemplate": "%{x} heads: %{customdata}",
    }
    yield {
        **looks,
        "x": [0, misses.n_heads],
        "y": [misses.chance] * 2,
        "name": "guessing",
        "mode": "lines",
        "line": {"color": MUTED, "width": 1, "dash": "dot"},
        "hovertemplate": "%{y:.1%}",
    }


def _costs(cost: MissCost, place: int, words: list[str]) -> Iterator[dict]:
    """Draw the cost of every token against its place, and against what its prediction missed."""
    bits = cost.cost[place]
    colours = np.where(bits > 0, PALETTE[5], PALETTE[0]).tolist()
    looks = {"y": bits, "customdata": words[1:], "hovertemplate": "%{customdata}<extra></extra>"}
    yield {
        "type": "bar",
        "x": np.arange(1, cost.length),
        "name": "cost, bits",
        "marker": {"color": colours, "line": {"width": 0}},
        **looks,
    }
    yield {
        "type": "scatter",
        "x": cost.mass_missed[place],
        "name": "cost by weight missed",
        "mode": "markers",
        "marker": {"color": colours, "size": 6, "opacity": 0.6},
        **looks,
    }


def _painted(cost: MissCost, place: int, rows: list[list[int]], words: list[str]) -> Iterator[dict]:
    """Paint a cell for every token, and write the token into it."""
    bits = np.full((len(rows), _columns(cost.labels)), np.nan)
    said = np.full(bits.shape, "", dtype=object)
    ys, xs = np.array([(y, x) for y, row in enumerate(rows) for x in range(len(row))]).T
    bits[ys, xs] = np.concatenate([[0.0], cost.cost[place]])
    said[ys, xs] = words
    yield {
        "type": "heatmap",
        "z": bits,
        "zmin": -cost.scale,
        "zmax": cost.scale,
        "colorscale": [[0, _pale(PALETTE[0])], [0.5, PAPER], [1, _pale(PALETTE[5])]],
        "colorbar": {"title": {"text": "bits"}, "thickness": 12},
        "name": "painted tokens",
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
        "hoverongaps": False,
    }
    yield {
        "type": "scatter",
        "x": xs,
        "y": ys,
        "name": "tokens",
        "mode": "text",
        "text": [_shown(label) for label in cost.labels],
        "textfont": {"color": INK, "size": 13, "family": "monospace"},
        "hoverinfo": "skip",
    }


def _text_rows(labels: tuple[str, ...]) -> list[list[int]]:
    """Break a text into rows, at its own line ends if that does not take too many."""
    columns = _columns(labels)
    rows = list(rows_of_text(labels, columns))
    if len(rows) <= _MOST_ROWS:
        return rows
    return [
        list(range(start, min(start + columns, len(labels))))
        for start in range(0, len(labels), columns)
    ]


def _columns(labels: tuple[str, ...]) -> int:
    """Choose how many tokens stand in a row: fewer where they have longer names."""
    longest = min(_LONGEST, max(map(len, labels)))
    return min(len(labels), max(1, _WIDTH // max(_NARROWEST, _LETTER * longest + 3)))


def _shown(label: str) -> str:
    """Write a token as Plotly will show it: what looks like its markup stays text."""
    return _safe(label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…")


def _safe(words: str) -> str:
    return escape(words.replace("\n", "↵"), quote=False)


def _pale(colour: str) -> str:
    """Mix a colour with white, so that dark text stays readable on it."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    mixed = (round(255 - _STRONGEST * (255 - part)) for part in parts)
    return "#" + "".join(f"{part:02X}" for part in mixed)
