"""Draw what later tokens change in earlier rows, under the chunk rule and the sliding rule."""

from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reformer_viz import style
from reformer_viz.figures.sparsity import count_positions, extent_of
from reformer_viz.measure.leak import Leak, LeakOfRule
from reformer_viz.measure.words import count

# What becomes of a pair, and its colour; a change is drawn above what stays.
_KINDS = {
    "kept": ("seen before and after", style.ELSEWHERE),
    "lost": ("seen only before", style.PALETTE[5]),
    "gained": ("seen only after", style.PALETTE[0]),
}
_RULE_NAMES = {"chunks": "Chunk rule", "sliding": "Sliding rule"}
_EXACT, _MOST_CELLS = 128, 96  # a side in a page: each position, else so many cells; all have texts
_SIDES = ((0.0, 0.46), (0.54, 1.0))


def plot_leak(leak: Leak) -> Figure:
    """Draw what later tokens change in earlier rows, under the chunk rule and the sliding rule."""
    figure = style.new_figure(9.0, 5.2)
    for axes, (window, rule) in zip(figure.subplots(1, 2), leak.rules.items(), strict=True):
        image = np.ones((*rule.kept.shape, 3))
        for kind, (_, colour) in _KINDS.items():
            image[getattr(rule, kind) > 0] = to_rgb(colour)
        axes.imshow(image, interpolation="nearest", extent=extent_of(leak.grid))
        style.dress(axes, _title(window, rule), "position of the key")
        count_positions(axes)
    figure.axes[0].set_ylabel("position of the query", size=style.RC["font.size"])
    figure.axes[0].yaxis.label.set_color(style.MUTED)
    figure.legend(
        handles=[Patch(color=colour, label=words) for words, colour in _KINDS.values()],
        title=_later(leak),
        loc="outside lower center",
        ncols=3,
        handlelength=1.2,
        frameon=False,
        fontsize=style.RC["font.size"] - 0.5,
        title_fontsize=style.RC["font.size"] - 0.5,
        labelcolor=style.INK,
    )
    return figure


def plotly_leak(leak: Leak) -> Any:
    """Draw `plot_leak` with Plotly; neighbours share a cell, of which the pointer tells the counts.

    Raises ImportError where Plotly is not installed.
    """
    import plotly.graph_objects as go  # slow to import

    figure = go.Figure()
    for number, (window, rule) in enumerate(leak.rules.items(), start=1):
        per_cell, counts = _shared(leak, rule)
        kinds = np.full(counts["kept"].shape, np.nan)
        for kind, name in enumerate(_KINDS):
            kinds[counts[name] > 0] = kind
        middles = np.arange(len(kinds)) * per_cell + (per_cell - 1) / 2
        figure.add_heatmap(
            z=kinds,
            x=middles,
            y=middles,
            zmin=-0.5,
            zmax=2.5,
            colorscale=style.plotly_steps([colour for _, colour in _KINDS.values()]),
            showscale=False,
            colorbar={"title": {"text": "pairs"}},  # what the table calls the cells
            text=_texts(counts, per_cell),
            hovertemplate=_hover(per_cell),
            hoverongaps=False,
            xaxis=f"x{number}",
            yaxis=f"y{number}",
            name=_RULE_NAMES[window],
        )
    for words, colour in _KINDS.values():
        marker = {"symbol": "square", "size": 11, "color": colour}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=words)
    return _laid_out(figure, leak)


def _laid_out(figure: Any, leak: Leak) -> Any:
    ends = [-0.5, leak.cut - 0.5]
    bare = {"showgrid": False, "zeroline": False}
    key, query = ({**bare, "title": {"text": f"position of the {who}"}} for who in ("key", "query"))
    figure.update_layout(
        template=style.plotly_template(),
        height=460,
        xaxis={**key, "range": ends, "domain": _SIDES[0]},
        yaxis={**query, "range": ends[::-1]},
        xaxis2={**key, "range": ends, "domain": _SIDES[1]},
        yaxis2={**bare, "range": ends[::-1], "anchor": "x2"},
        legend={"traceorder": "normal"},
    )
    for (window, rule), (left, _) in zip(leak.rules.items(), _SIDES, strict=True):
        looks = {"showarrow": False, "xanchor": "left", "yanchor": "bottom", "font": {"size": 13}}
        text = _title(window, rule)
        figure.add_annotation(text=text, x=left, y=1.02, xref="paper", yref="paper", **looks)
    return figure


def _shared(leak: Leak, rule: LeakOfRule) -> tuple[int, dict[str, np.ndarray]]:
    """Let neighbours share a cell where there are too many; return its side and the counts."""
    n_cells = leak.grid.n_cells
    share = 1 if n_cells <= _EXACT else -(-n_cells // _MOST_CELLS)
    starts = np.arange(0, n_cells, share)
    counts = {kind: getattr(rule, kind) for kind in _KINDS}
    for axis in (0, 1):
        counts = {kind: np.add.reduceat(n, starts, axis) for kind, n in counts.items()}
    return share * leak.grid.per_cell, counts


def _texts(counts: dict[str, np.ndarray], per_cell: int) -> np.ndarray:
    """Say of every cell in which somebody is seen what becomes of its pairs."""
    pairs = np.stack(list(counts.values()))
    known, which = np.unique(pairs.reshape(len(pairs), -1), axis=1, return_inverse=True)
    texts = [
        "<br>".join(
            words if per_cell == 1 else f"{count(n, 'pair')} {words}"
            for n, (words, _) in zip(numbers, _KINDS.values(), strict=True)
            if n
        )
        for numbers in known.T.tolist()
    ]
    return np.array(texts)[which].reshape(pairs.shape[1:])


def _hover(per_cell: int) -> str:
    """Say which cell the pointer is on, and what its text says."""
    where = "query %{y}, key %{x}"
    if per_cell > 1:
        where = f"{per_cell:,} queries around %{{y}}, {per_cell:,} keys around %{{x}}"
    return f"{where}<br>%{{text}}<extra></extra>"


def _title(window: str, rule: LeakOfRule) -> str:
    changed = f"{int(rule.changed.sum()):,} of {len(rule.changed):,} rows change"
    return f"{_RULE_NAMES[window]}: {changed}"


def _later(leak: Leak) -> str:
    return f"other tokens from position {leak.cut:,} on"
