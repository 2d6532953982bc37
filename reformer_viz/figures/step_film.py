"""Draw the film of a training step: piles that grow, saws, and what stays flat."""

import itertools
import re
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reformer_viz.figures.memory import COLOURS
from reformer_viz.measure.live_bytes import in_units
from reformer_viz.measure.step_film import StepFilm, StepFilms
from reformer_viz.measure.step_kinds import LABELS
from reformer_viz.style import (
    INK,
    MUTED,
    PALETTE,
    PAPER,
    RC,
    SHADE,
    dress,
    new_figure,
    plotly_template,
)

GRADIENTS, INTEGERS = "#A3A3A3", PALETTE[3]
_UP_TO_HERE = "up to here: %{y:.3g} MiB"
_MIB = 2**20
_SMALL = RC["font.size"] - 1
_LAYER = re.compile(r"layer (\d+)")
_ROOM = 1.36  # above the highest point, for names
_LIVE_ROOM = 1.55  # where there are more of them
_STRIPE = "rgba(128,128,128,0.16)"  # seen on light pages and on dark ones
_MOST_NUMBERS = 24  # of layers along a film
_LEFT = 0.75  # of a film, after which words stand left of their place


def plot_step_film(films: StepFilms) -> Figure:
    """Draw the bytes alive after every operation of a step, one panel for every way of remembering.

    From left to right the forward, up the layers, and the backward, down again; stripes are layers.
    From the bottom: gradients of the parameters, integers (buckets, plans and random states), and
    activations with working memory. The scales of all panels are the same.
    """
    rows, columns = (len(films.films) + 1) // 2, min(2, len(films.films))
    figure = new_figure(4.6 * columns + 0.6, 2.9 * rows + 0.6)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    top = max(film.peak for film in films.films) / _MIB * _ROOM
    for axes, film in itertools.zip_longest(panels, films.films):
        if film is None:
            axes.set_axis_off()
            continue
        _draw(axes, film, top)
    for axes in figure.axes[::columns]:
        axes.set_ylabel("MiB alive", fontsize=RC["font.size"], color=MUTED)
    _name_parts(figure, films)
    return figure


def plotly_step_film(films: StepFilms):
    """Draw `plot_step_film` with Plotly: point at an operation to read its name and place."""
    from plotly.subplots import make_subplots  # slow to import, and print does without

    n_films = len(films.films)
    rows, columns = (n_films + 1) // 2, min(2, n_films)
    titles = [LABELS[film.kind].capitalize() for film in films.films]
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=titles,
        shared_yaxes="all",
        horizontal_spacing=0.06,
        vertical_spacing=0.16,
    )
    for number, film in enumerate(films.films):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        for trace in _plotly_traces(film):
            figure.add_scatter(**trace, showlegend=number == 0, **place)
        figure.add_scatter(**_plotly_names(film), showlegend=False, **place)
    drawn = [_on_axes(film, number) for number, film in enumerate(films.films)]
    shapes = [shape for of_film, _ in drawn for shape in of_film]
    notes = [note for _, of_film in drawn for note in of_film]
    figure.update_layout(shapes=shapes, annotations=[*figure.layout.annotations, *notes])
    figure.update_xaxes(showgrid=False, rangemode="tozero", tickformat=",d", nticks=5)
    figure.update_xaxes(title={"text": "operation"}, row=rows)
    figure.update_yaxes(title={"text": "MiB alive"}, col=1)
    top = max(film.peak for film in films.films) / _MIB * _LIVE_ROOM
    figure.update_yaxes(range=[0, top])
    figure.update_layout(template=plotly_template(), height=170 + 260 * rows, hovermode="closest")
    return figure


def _on_axes(film: StepFilm, number: int) -> tuple[list[dict], list[dict]]:
    """Describe what stands behind and above a film: layers, the turn, and what is kept there."""
    axes = {"xref": f"x{number + 1 if number else ''}", "yref": f"y{number + 1 if number else ''}"}
    above = {**axes, "yref": f"{axes['yref']} domain", "showarrow": False, "font": {"size": 11}}
    axes["yref"] = above["yref"]
    turn = {"x0": film.n_forward, "x1": film.n_forward, "line": {"color": MUTED, "width": 1}}
    shapes, notes = [{"type": "line", "y0": 0, "y1": 1, **turn, **axes}], []
    for layer, start, stop in layer_spans(film):
        if layer % 2:
            looks = {"fillcolor": _STRIPE, "line": {"width": 0}, "layer": "below"}
            ends = {"x0": start, "x1": stop, "y0": 0, "y1": 1}
            shapes.append({"type": "rect", **ends, **looks, **axes})
        if stop - start > len(film.live) / _MOST_NUMBERS:
            place = {"x": (start + stop) / 2, "y": 0.85, "yanchor": "top"}
            notes.append({"text": str(layer), **place, **above})
    kept = f"forward, keeps<br>{in_units(film.kept)}"
    for words, align in ((kept, "right"), ("backward", "left")):
        place = {"x": film.n_forward, "y": 1, "xanchor": align, "yanchor": "top", "align": align}
        shift = 4 if align == "left" else -4
        notes.append({"text": words, "xshift": shift, **place, **above})
    return shapes, notes


def _plotly_traces(film: StepFilm) -> Iterator[dict]:
    """Describe the parts of a film, each filled down to the one below it."""
    shown = thinned(film)
    base = np.zeros(len(shown))
    parts = (
        ("gradients of the parameters", film.gradients, GRADIENTS),
        ("buckets, plans, random states", film.integers, INTEGERS),
        ("activations, working memory", film.activations, COLOURS[film.kind]),
    )
    for place, (name, part, colour) in enumerate(parts):
        base = base + part[shown]
        yield {
            "x": shown,
            "y": base / _MIB,
            "name": name,
            "legendgroup": name,
            "mode": "lines",
            "line": {"color": colour, "width": 1, "shape": "hv"},
            "fill": "tonexty" if place else "tozeroy",
            # The uppermost line says where one is, once; the page would be twice as long.
            "customdata": _words(film, shown) if colour == COLOURS[film.kind] else None,
            "hovertemplate": "%{customdata}" if colour == COLOURS[film.kind] else _UP_TO_HERE,
        }


def _plotly_names(film: StepFilm) -> dict:
    """Describe the marks of what is kept, whose name stands above, and of the peak."""
    at = [film.n_forward - 1, film.peak_at]
    kept, peak = f"kept {in_units(film.kept)}", f"peak {in_units(film.peak)}"
    left = film.peak_at > _LEFT * len(film.live)
    return {
        "x": at,
        "y": film.live[at] / _MIB,
        "name": f"kept and peak, {LABELS[film.kind]}",
        "mode": "markers+text",
        "marker": {"color": MUTED, "size": 7, "symbol": ["circle", "triangle-down"]},
        "text": ["", peak],
        "textposition": f"top {'left' if left else 'right'}",
        "customdata": [kept, peak],
        "hovertemplate": "%{customdata}",
    }


def _words(film: StepFilm, shown: np.ndarray) -> list[str]:
    """Say of every operation where it is, what it is, and what lives after it."""
    return [
        f"{film.phase_of(at)}, {film.places[film.place[at]]}<br>"
        f"{film.operations[at].partition('.')[0] or 'end of the pass'}: {in_units(film.live[at])}"
        for at in shown
    ]


def thinned(film: StepFilm, most: int = 320) -> np.ndarray:
    """Choose operations to draw, so that no height is missed: of every stretch its extremes."""
    n_operations = len(film.live)
    edges = np.linspace(0, n_operations, min(n_operations, most // 2) + 1).astype(int)
    chosen = {0, film.n_forward - 1, film.peak_at, n_operations - 1}
    for start, stop in itertools.pairwise(edges):
        stretch = film.live[start:stop]
        chosen |= {start + int(stretch.argmin()), start + int(stretch.argmax())}
    return np.array(sorted(chosen))


def _draw(axes: Axes, film: StepFilm, top: float) -> None:
    """Draw one film."""
    dress(axes, LABELS[film.kind].capitalize(), "operation")
    axes.set_ylim(0, top)
    axes.set_xlim(0, len(film.live))
    _stripe_layers(axes, film, top)
    _stack(axes, film)
    _mark(axes, film, top)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)


def _stack(axes: Axes, film: StepFilm) -> None:
    """Draw the parts on top of each other, and the outline of all."""
    operations = np.arange(len(film.live))
    parts = (film.gradients, film.integers, film.activations)
    heights = np.cumsum([np.zeros_like(film.live), *parts], axis=0) / _MIB
    colours = (GRADIENTS, INTEGERS, COLOURS[film.kind])
    for low, high, colour in zip(heights, heights[1:], colours, strict=False):
        axes.fill_between(
            operations, low, high, step="post", color=colour, alpha=0.55, linewidth=0, zorder=2
        )
    axes.plot(
        operations,
        film.live / _MIB,
        drawstyle="steps-post",
        color=COLOURS[film.kind],
        linewidth=0.8,
        zorder=3,
    )


def _mark(axes: Axes, film: StepFilm, top: float) -> None:
    """Name the turn from forward to backward, what waits there, and the peak."""
    turn = film.n_forward
    axes.axvline(turn, color=INK, linewidth=0.9, zorder=4)
    for x, name, align in ((turn, "forward ", "right"), (turn, " backward", "left")):
        axes.text(x, top * 0.985, name, ha=align, va="top", fontsize=_SMALL, color=MUTED)
    axes.plot(turn, film.kept / _MIB, "o", color=INK, markersize=4, zorder=5)
    axes.plot(film.peak_at, film.peak / _MIB, "v", color=INK, markersize=5, zorder=5)
    left = film.peak_at > len(film.live) / 2
    _write(axes, film.peak_at, film.peak, f"peak {in_units(film.peak)}", left, above=True)
    _write(axes, turn, film.kept, f"kept {in_units(film.kept)}", left=True, above=False)


def _write(axes: Axes, operation: int, n_bytes: int, words: str, left: bool, above: bool) -> None:
    """Write words beside a point, readable over whatever is drawn there."""
    axes.annotate(
        words,
        (operation, n_bytes / _MIB),
        (-7 if left else 7, 5 if above else 3),
        textcoords="offset points",
        ha="right" if left else "left",
        fontsize=_SMALL,
        color=INK,
        zorder=6,
        path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
    )


def _stripe_layers(axes: Axes, film: StepFilm, top: float) -> None:
    """Shade every second layer, and number them where there is room."""
    spans = list(layer_spans(film))
    widest = len(film.live) / _MOST_NUMBERS
    for layer, start, stop in spans:
        if layer % 2:
            axes.axvspan(start, stop, color=SHADE, alpha=0.55, linewidth=0, zorder=0)
        if stop - start > widest:
            axes.text(
                (start + stop) / 2,
                top * 0.915,
                str(layer),
                ha="center",
                va="top",
                fontsize=_SMALL - 1,
                color=MUTED,
            )


def layer_spans(film: StepFilm) -> Iterator[tuple[int, int, int]]:
    """Yield a layer, its first operation and the one after its last, in each pass."""
    numbers = [int(found[1]) if (found := _LAYER.match(name)) else -1 for name in film.places]
    layers = np.array(numbers)[film.place]
    start = 0
    for (layer, _), run in itertools.groupby(
        zip(layers, np.arange(len(layers)) < film.n_forward, strict=True)
    ):
        stop = start + len(list(run))
        if layer >= 0:
            yield int(layer), start, stop
        start = stop


def _name_parts(figure: Figure, films: StepFilms) -> None:
    """Write what the colours are below all panels, and what lives beside the film."""
    kinds = [COLOURS[film.kind] for film in films.films]
    handles = [
        Patch(color=kinds[-1], alpha=0.7, label="activations, working memory (each in its colour)"),
        Patch(color=INTEGERS, alpha=0.55, label="buckets, plans, random states"),
        Patch(color=GRADIENTS, alpha=0.55, label="gradients of the parameters"),
    ]
    film = films.films[-1]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=_SMALL,
        labelcolor=INK,
        title=(
            f"{films.in_words()}; beside it live "
            f"{in_units(film.parameters)} of parameters and {in_units(film.optimizer)} of "
            "AdamW's memory"
        ),
        title_fontproperties={"size": _SMALL},
    )
