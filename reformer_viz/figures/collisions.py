"""Draw how likely two vectors share a bucket against the angle between them."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reformer_viz.measure.collisions import Collisions, in_buckets
from reformer_viz.style import INK, PALETTE, RC, SHADE, dress, new_figure, plotly_template

_X, _Y = "angle between two vectors, degrees", "probability of sharing a bucket"
_TICKS = list(range(0, 181, 30))
ANGLE_AXIS = {"title": {"text": _X}, "tickvals": _TICKS, "range": [-3, 183]}
PROBABILITY_AXIS = {"title": {"text": _Y}, "range": [-0.02, 1.02]}
"""Plotly's settings of both axes."""

_MOST_LINES = len(PALETTE)


def plot_collisions(collisions: Collisions, row: int | None = None) -> Figure:
    """Draw what was measured, with its standard errors, on the lines of theory.

    Left one round for every number of buckets, right every number of rounds for one: that in row
    `row` of the measurement, or else the middle one.
    """
    row = _middle(collisions) if row is None else row
    _check(collisions, row)
    figure = new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2, sharey=True)
    rounds = collisions.n_hashes[0]
    for k in range(len(collisions.n_buckets)):
        _draw(left, collisions, k, 0, PALETTE[k], in_buckets(collisions.n_buckets[k]))
    _dress(left, f"In {_rounds(rounds)}")
    draw_rounds(right, collisions, row)
    right.label_outer()
    figure.supxlabel(explain(collisions), fontsize=RC["font.size"] - 1, color=INK)
    return figure


def draw_rounds(axes: Axes, collisions: Collisions, row: int = 0) -> None:
    """Draw one number of buckets in every number of rounds."""
    for column, n in enumerate(collisions.n_hashes):
        _draw(axes, collisions, row, column, PALETTE[column], _rounds(n))
    several = len(collisions.n_hashes) > 1
    rounds = "any of several rounds" if several else _rounds(collisions.n_hashes[0])
    _dress(axes, f"In {rounds}, {in_buckets(collisions.n_buckets[row])}")


def _dress(axes: Axes, title: str) -> None:
    dress(axes, title, _X, _Y)
    axes.set(xlim=(-3, 183), ylim=(-0.02, 1.02), xticks=_TICKS)
    axes.grid(color=SHADE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=RC["font.size"] - 1, labelcolor=INK)


def _draw(
    axes: Axes, collisions: Collisions, row: int, column: int, colour: str, label: str
) -> None:
    """Draw one line of theory, if there is one, and the points measured for it."""
    if collisions.curve is not None:
        axes.plot(
            collisions.curve_angles, collisions.curve[row, column], color=colour, linewidth=1.4
        )
    axes.errorbar(
        collisions.angles,
        collisions.share[row, column],
        collisions.error[row, column],
        fmt="o",
        markersize=4,
        color=colour,
        elinewidth=1.4,
        capsize=2.5,
        label=label,
    )


def plotly_collisions(collisions: Collisions, row: int | None = None):
    """Draw every number of rounds for one number of buckets, to be read off by pointing.

    Raises ImportError where Plotly is not installed.
    """
    import plotly.graph_objects as go  # slow to import, and only curves need it

    row = _middle(collisions) if row is None else row
    _check(collisions, row)
    figure = go.Figure(curve_traces(collisions, row))
    figure.update_layout(
        template=plotly_template(),
        title={
            "text": f"{in_buckets(collisions.n_buckets[row])}: {explain(collisions)}",
            "font": {"size": 13},
        },
        xaxis=ANGLE_AXIS,
        yaxis=PROBABILITY_AXIS,
    )
    return figure


def curve_traces(collisions: Collisions, row: int = 0) -> list:
    """Return Plotly's traces of one number of buckets: a line and points for every n_hashes."""
    import plotly.graph_objects as go

    traces = []
    for column, n in enumerate(collisions.n_hashes):
        colour, name = PALETTE[column], _rounds(n)
        if collisions.curve is not None:
            traces.append(
                go.Scatter(
                    x=collisions.curve_angles,
                    y=collisions.curve[row, column],
                    mode="lines",
                    line={"color": colour, "width": 1.5},
                    name=f"{name}, theory",
                    showlegend=False,
                    hovertemplate="%{x:.1f}°: theory %{y:.3f}",
                )
            )
        traces.append(
            go.Scatter(
                x=collisions.angles,
                y=collisions.share[row, column],
                error_y={"array": collisions.error[row, column], "thickness": 1.5, "width": 3},
                mode="markers",
                marker={"color": colour, "size": 7},
                name=name,
                hovertemplate="%{x:.1f}°: measured %{y:.3f} ± %{error_y.array:.3f}",
            )
        )
    return traces


def _middle(collisions: Collisions) -> int:
    return (len(collisions.n_buckets) - 1) // 2


def _check(collisions: Collisions, row: int) -> None:
    if not 0 <= row < len(collisions.n_buckets):
        raise ValueError(
            f"row must be in 0..{len(collisions.n_buckets) - 1}, got {row}: "
            f"{len(collisions.n_buckets)} numbers of buckets were measured"
        )
    most = max(len(collisions.n_buckets), len(collisions.n_hashes))
    if most > _MOST_LINES:
        raise ValueError(
            f"at most {_MOST_LINES} lines can be told apart, got {most}: measure fewer numbers of "
            f"buckets or rounds"
        )


def _rounds(n_hashes: int) -> str:
    return "1 round" if n_hashes == 1 else f"{n_hashes:,} rounds"


def explain(collisions: Collisions) -> str:
    """Say what lines and points are."""
    lines = "" if collisions.curve is None else "lines: theory; "
    return f"{lines}points: {collisions.n_pairs:,} random pairs, ± one standard error"
