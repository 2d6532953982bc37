"""Draw how a run went: its curves, and a strip in which a probe's buckets organise themselves."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from reformer_viz.figures.still_axes import decades
from reformer_viz.measure.recording import NOBODY, Recording
from reformer_viz.measure.training import Training
from reformer_viz.style import (
    INK,
    MUTED,
    PALETTE,
    RC,
    SHADE,
    bucket_colours,
    dress,
    new_figure,
    plotly_template,
)

_LINE, _MARK = PALETTE[0], PALETTE[5]
_SMALL = RC["font.size"] - 1
_MOST_NAMES = 16
_LOSS = "Loss"
_GRADIENT = "Gradient norm, before clipping"
_MASS = "Full attention's weight found"
_BALANCE = "Largest bucket"
_SOUGHT = "Pairs that the last snapshot seeks"
_LINES = {"solid": "seen by some round", "dot": "in one bucket, by round"}
"""What becomes of the sought pairs, by the line that shows it."""


def plot_training(
    training: Training,
    layer: int = 0,
    head: int = 0,
    round: int = 0,
    snapshot: int | None = None,
    token: int | None = None,
) -> Figure:
    """Draw a run's curves and, where a probe was recorded, what its buckets did.

    Below the curves every row is a snapshot and every column a token of the probe, coloured by its
    bucket in one round: on the left in reading order, on the right in the order in which the last
    snapshot sorts them. `layer` counts the layers that were recorded. A `snapshot` is framed, and
    marked in the curves; so are a `token` and, dashed, the one that it seeks at last.
    """
    if training.recording is None:
        figure = new_figure(9.6, 2.7)
        curves = [*figure.subplots(1, 3)]
    else:
        figure = new_figure(9.6, 8.0)
        grid = figure.add_gridspec(3, 6, height_ratios=[1, 1, 1.6])
        places = [(row, slice(at, at + 2)) for row in (0, 1) for at in (0, 2, 4)]
        curves = [figure.add_subplot(grid[place]) for place in places]
        strips = [figure.add_subplot(grid[2, at : at + 3]) for at in (0, 3)]
        _draw_probe(curves[3:], training)
        _draw_strips(strips, training, layer, head, round)
        training.recording.check_place(layer, head, round, snapshot=snapshot or 0, token=token)
        columns = (
            np.arange(len(training.recording.tokens)),
            (training.recording.last_order(layer, head, round)),
        )
        for axes, order in zip(strips, columns, strict=True):
            _mark_place(axes, training.recording, (layer, head), order, snapshot, token)
    _draw_run(curves[:3], training)
    for axes in curves:
        _quiet(axes, training)
        if training.recording is not None and snapshot is not None:
            axes.axvline(training.recording.steps[snapshot], color=INK, linewidth=0.9)
    return figure


def _draw_run(panels: list[Axes], training: Training) -> None:
    """Draw loss, measure and gradient norm."""
    loss, measure, gradient = panels
    loss.plot(training.steps, training.loss, color=_LINE, linewidth=1, label="training")
    loss.plot(
        training.evaluation_steps,
        training.evaluation_loss,
        "o-",
        color=_MARK,
        markersize=3,
        linewidth=1,
        label="held out",
    )
    loss.set_ylim(bottom=0)
    _name_lines(loss)
    dress(loss, _LOSS, "step", "nats")
    measure.plot(training.evaluation_steps, training.measure, "o-", color=_MARK, markersize=3)
    measure.margins(y=0.08)
    measure.set_ylim(bottom=0)
    if training.measure_name == "accuracy":
        _in_percent(measure)
    dress(measure, f"Held-out {training.words()}", "step", _unit(training))
    gradient.plot(training.steps, training.gradient_norm, color=_LINE, linewidth=1)
    gradient.set_yscale("log")
    ticks = _ticks(training.gradient_norm)
    gradient.set_yticks(ticks)
    gradient.set_ylim(ticks[0], ticks[-1])
    gradient.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    gradient.yaxis.set_minor_locator(NullLocator())
    dress(gradient, _GRADIENT, "step", "length of the gradient")


def _draw_probe(panels: list[Axes], training: Training) -> None:
    """Draw what was found, how even the buckets are, and what became of the sought pairs."""
    mass, balance, sought = panels
    recording, organisation = training.recording, training.organisation
    even = 1 / recording.rule["n_buckets"]
    _draw_layers(mass, training, recording.mass_found)
    _draw_layers(balance, training, organisation.largest_share.mean(-1))
    balance.axhline(even, color=MUTED, linestyle="--", linewidth=1, label="even")
    for place, (_, colour) in enumerate(_layers(training)):
        shares = organisation.sought_seen, organisation.sought_together
        for share, line, what in zip(shares, ("-", ":"), _LINES.values(), strict=True):
            name = None if place else what  # of the first layer: colours are named beside
            sought.plot(recording.steps, share[:, place], line, color=colour, label=name)
    sought.axhline(even, color=MUTED, linestyle="--", linewidth=1, label="one bucket by chance")
    dress(mass, _MASS, "step", "share of the weight")
    dress(balance, _BALANCE, "step", "share of the tokens")
    dress(sought, _SOUGHT, "step", "share of the pairs")
    for axes in panels:
        _in_percent(axes)
        _name_lines(axes)
    balance.set_ylim(0, 1.5 * organisation.largest_share.mean(-1).max())
    sought.set_ylim(0, 1.5)  # its names stand above 100 %
    sought.set_yticks(np.linspace(0, 1, 6))


def _draw_layers(axes: Axes, training: Training, shares: np.ndarray) -> None:
    """Draw one line a layer, the mean over its heads, in the area that the heads cover."""
    steps = training.recording.steps
    for place, (name, colour) in enumerate(_layers(training)):
        of_layer = shares[:, place]
        area = of_layer.min(-1), of_layer.max(-1)
        axes.fill_between(steps, *area, color=colour, alpha=0.2, linewidth=0)
        axes.plot(steps, of_layer.mean(-1), color=colour, label=name)


def _layers(training: Training) -> list[tuple[str, str]]:
    """Name and colour the layers that were recorded."""
    layers = training.recording.layers
    return [
        (f"layer {layer}", colour)
        for layer, colour in zip(layers, bucket_colours(len(layers)), strict=True)
    ]


def _draw_strips(panels: list[Axes], training: Training, layer: int, head: int, round: int) -> None:
    """Draw the snapshots' buckets, once in reading order and once in the last one's order."""
    recording = training.recording
    recording.check_place(layer, head, round)
    buckets = recording.buckets[:, layer, head, round]
    n_buckets = recording.rule["n_buckets"]
    colours = ListedColormap(bucket_colours(n_buckets))
    order = recording.last_order(layer, head, round)
    for axes, columns in zip(panels, (np.arange(len(order)), order), strict=True):
        axes.imshow(
            buckets[:, columns],
            cmap=colours,
            vmin=-0.5,
            vmax=n_buckets - 0.5,
            aspect="auto",
            interpolation="nearest",
        )
        rows = np.arange(0, len(buckets), -(-len(buckets) // _MOST_NAMES))
        axes.set_yticks(rows, [f"{step:,}" for step in recording.steps[rows]])
    dress(
        panels[0],
        f"The probe's buckets: layer {recording.layers[layer]}, head {head}, round {round}",
        "token, in reading order",
        "snapshot after step",
    )
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(panels[1], "The same, sorted as in the last snapshot", "bucket in the last snapshot")
    _name_buckets(panels[1], buckets[-1, order])


def _mark_place(
    axes: Axes,
    recording: Recording,
    layer_and_head: tuple[int, int],
    order: np.ndarray,
    snapshot: int | None,
    token: int | None,
) -> None:
    """Frame a snapshot's row, a token's column and, dashed, that of the token which it seeks."""
    n_rows, length = len(recording.steps), len(order)
    if snapshot is not None:
        _frame(axes, (-0.5, snapshot - 0.5), length, 1, "-")
    if token is None:
        return
    for column, line in ((token, "-"), (recording.sought[-1, *layer_and_head, token], "--")):
        if column != NOBODY:
            at = int(np.flatnonzero(order == column)[0])
            _frame(axes, (at - 0.5, -0.5), 1, n_rows, line)


def _frame(axes: Axes, corner: tuple[float, float], width: int, height: int, line: str) -> None:
    frame = Rectangle(corner, width, height, fill=False, edgecolor=INK, clip_on=False, zorder=4)
    frame.set(linestyle=line, linewidth=1.4)
    axes.add_patch(frame)


def _name_buckets(axes: Axes, in_order: np.ndarray) -> None:
    """Write the number of every bucket under its tokens, and of many buckets those of some."""
    names = np.unique(in_order)
    names = names[:: -(-len(names) // _MOST_NAMES)]
    axes.set_xticks([np.flatnonzero(in_order == name).mean() for name in names], names)


def _name_lines(axes: Axes) -> None:
    """Say what the lines are, where there is more than one."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="best", frameon=False, fontsize=_SMALL, labelcolor=INK)


def _ticks(lengths: np.ndarray) -> list[float]:
    """Return logarithmic ticks from just below the least length to just above the greatest."""
    there = lengths[np.isfinite(lengths) & (lengths > 0)]
    low, high = (there.min(), there.max()) if there.size else (1.0, 1.0)
    ticks = np.array(decades(np.log10(low), np.log10(high)))
    first, last = ticks.searchsorted(low, "right") - 1, ticks.searchsorted(high)
    return ticks[first : max(last, first + 1) + 1].tolist()


def _in_percent(axes: Axes) -> None:
    """Give axes the whole range of a share."""
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _quiet(axes: Axes, training: Training) -> None:
    """Give axes the run's whole length and a quiet grid."""
    axes.set_xlim(0, training.steps[-1])
    axes.grid(axis="y", color=SHADE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _unit(training: Training) -> str:
    """Return the unit of the measure."""
    return "share of the predictions" if training.measure_name == "accuracy" else training.words()


def plotly_training(training: Training, dark: bool = False):
    """Draw the curves with Plotly: hover says step and value, of every layer.

    The legend names every line; a click on a layer there hides it in every panel.
    Raises ImportError where Plotly is not installed.
    """
    from plotly.subplots import make_subplots  # slow to import, and only this needs it

    titles = [_LOSS, f"Held-out {training.words()}", _GRADIENT]
    titles += [] if training.recording is None else [_MASS, _BALANCE, _SOUGHT]
    n_rows = len(titles) // 3
    spacing = {"horizontal_spacing": 0.1, "vertical_spacing": 0.22}
    figure = make_subplots(rows=n_rows, cols=3, subplot_titles=titles, **spacing)
    places = [{"row": place // 3 + 1, "col": place % 3 + 1} for place in range(len(titles))]
    for panel, (name, x, y, line) in _all_curves(training):
        words = {"name": name, "hovertemplate": "step %{x}: %{y:.3g}", **_listing(panel, name)}
        figure.add_scatter(x=x, y=y, line=line, mode="lines", **words, **places[panel])
    for dash, name in [] if training.recording is None else _LINES.items():
        line = {"color": MUTED, "dash": dash}
        figure.add_scatter(x=[None], y=[None], line=line, mode="lines", name=f"pairs {name}")
    figure.update_layout(
        template=plotly_template(dark),
        legend={"yref": "container", "y": 0.01, "yanchor": "bottom"},
        height=60 + 250 * n_rows,
        margin={"l": 50, "r": 10, "t": 40, "b": 100},
    )
    figure.update_annotations(font_size=13)
    figure.update_xaxes(title_text="step", title_standoff=4, range=[0, training.steps[-1]])
    for place, unit in zip(places, _units(training), strict=False):
        shape = {"tickformat": ".0%"} if unit.startswith("share") else {}
        figure.update_yaxes(title_text=unit, rangemode="tozero", **shape, **place)
    figure.update_yaxes(title_standoff=4, title_font_size=11)
    ticks = _ticks(training.gradient_norm)
    names, ends = [f"{tick:g}" for tick in ticks], np.log10([ticks[0], ticks[-1]]).tolist()
    figure.update_yaxes(type="log", range=ends, tickvals=ticks, ticktext=names, row=1, col=3)
    return figure


def _listing(panel: int, name: str) -> dict:
    """Say whether the legend names a curve: both losses, and every layer once for its panels."""
    if panel < 3:
        return {"showlegend": panel == 0}
    return {"showlegend": panel == 3, "legendgroup": name.partition(",")[0]}


def _units(training: Training) -> list[str]:
    """Return what is on the vertical axes, panel by panel."""
    of_probe = ["share of the weight", "share of the tokens", "share of the pairs"]
    return ["nats", _unit(training), "length of the gradient", *of_probe]


def _all_curves(training: Training) -> list[tuple[int, tuple]]:
    """List every curve as the panel it is in, its name, its points, and how it looks."""
    steps, held_out = training.steps, training.evaluation_steps
    line, mark = {"color": _LINE}, {"color": _MARK}
    curves = [
        (0, ("training", steps, training.loss, line)),
        (0, ("held out", held_out, training.evaluation_loss, mark)),
        (1, (f"held-out {training.words()}", held_out, training.measure, mark)),
        (2, ("gradient norm", steps, training.gradient_norm, line)),
    ]
    if training.recording is None:
        return curves
    steps, organisation = training.recording.steps, training.organisation
    for place, (name, colour) in enumerate(_layers(training)):
        look, dotted = {"color": colour}, {"color": colour, "dash": "dot"}
        mass, largest, seen, together = (
            of_layers[:, place]
            for of_layers in (
                training.recording.mass_found.mean(-1),
                organisation.largest_share.mean((-1, -2)),
                organisation.sought_seen,
                organisation.sought_together,
            )
        )
        curves += [
            (3, (name, steps, mass, look)),
            (4, (name, steps, largest, look)),
            (5, (f"{name}, {_LINES['solid']}", steps, seen, look)),
            (5, (f"{name}, {_LINES['dot']}", steps, together, dotted)),
        ]
    return curves
