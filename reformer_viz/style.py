"""Looks, decided once: colours that colour-blind readers can tell apart, sizes, and axes."""

import io
from functools import cache
from math import ceil

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#666666",
)
"""Okabe and Ito's eight colours; their black is a grey here, which shows on dark pages too."""

SEQUENTIAL = "cividis"
"""The scale for quantities, and for more categories than hue can carry."""

INK = "#1F2328"
"""Text and frames on a white page. On a live page the host's own text colour takes its place."""

MUTED = "#59636E"
"""Less important text: axis labels, captions."""

PAPER = "#FFFFFF"
SHADE = "#E3E6EA"
"""Areas: what a window covers, whether or not anything in it is seen."""

ELSEWHERE = "#CBD1D8"
"""What another round adds to the round that is shown."""

RC = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.linewidth": 0.8,
    "figure.dpi": 150.0,
    "savefig.facecolor": PAPER,
}
"""Matplotlib's own names for the sizes below. Applied to each figure: nothing global changes."""

# The dark end of the scale would vanish on a dark page.
_SCALE_START = 0.3


def bucket_colours(n_buckets: int) -> list[str]:
    """Return one colour a bucket: distinct hues up to eight, then a scale in bucket order.

    More than eight buckets are never told apart by colour alone: pictures add the bucket's number,
    and hatch every second bucket.
    """
    if n_buckets <= len(PALETTE):
        return list(PALETTE[:n_buckets])
    scale = matplotlib.colormaps[SEQUENTIAL]
    step = (1 - _SCALE_START) / (n_buckets - 1)
    return [to_hex(scale(_SCALE_START + step * bucket)).upper() for bucket in range(n_buckets)]


def scale_colours(n_levels: int) -> list[str]:
    """Return the scale for quantities in so many steps, at least two."""
    scale = matplotlib.colormaps[SEQUENTIAL]
    return [to_hex(scale(level / (n_levels - 1))).upper() for level in range(n_levels)]


def needs_hatching(n_buckets: int) -> bool:
    """Say whether so many buckets need more than a colour to be told apart."""
    return n_buckets > len(PALETTE)


def luminance(colour: str) -> float:
    """Return the relative luminance of "#RRGGBB", as the accessibility guidelines define it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(
        weight * channel for weight, channel in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


def contrast(one: str, other: str) -> float:
    """Return how well one colour is read on the other: 1 (not at all) to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_on(colour: str) -> str:
    """Return black or white, whichever is read better on a colour."""
    return max("#000000", "#FFFFFF", key=lambda text: contrast(text, colour))


class NotebookFigure(Figure):
    """A figure that a notebook shows as a picture, although no pyplot has been imported."""

    def _repr_png_(self) -> bytes:
        """Draw it as PNG."""
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def new_figure(width: float | int, height: float | int) -> Figure:
    """Make an empty figure of a size in inches, without pyplot."""
    return NotebookFigure(
        figsize=(width, height),
        dpi=RC["figure.dpi"],
        facecolor=RC["savefig.facecolor"],
        layout="constrained",
    )


def dress(axes: Axes, title: str = "", x: str = "", y: str = "", frame: bool = True) -> None:
    """Give axes the house's title, labels, tick and frame; without a frame only the title stays."""
    size = RC["font.size"]
    axes.set_title(title, loc="left", fontsize=RC["axes.titlesize"], color=INK)
    axes.set_xlabel(x, fontsize=size, color=MUTED)
    axes.set_ylabel(y, fontsize=size, color=MUTED)
    axes.tick_params(labelsize=size - 1, labelcolor=MUTED, color=MUTED, width=RC["axes.linewidth"])
    for spine in axes.spines.values():
        spine.set(linewidth=RC["axes.linewidth"], color=MUTED)
    if not frame:
        axes.set_axis_off()


def add_key(figure: Figure, handles: list[Artist], rows: int = 1) -> None:
    """Put the key of a figure's colours below it, in one row or in several."""
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=ceil(len(handles) / rows),
        handlelength=1.2,
        frameon=False,
        fontsize=RC["font.size"] - 0.5,
        labelcolor=INK,
    )


def plotly_steps(colours: list[str]) -> list:
    """Return a scale of Plotly's that goes from colour to colour in equal steps."""
    n = len(colours)
    return [[(k + end) / n, colour] for k, colour in enumerate(colours) for end in (0, 1)]


@cache
def plotly_template(dark: bool = False):
    """Return a Plotly template with the same colours; transparent, so that the page shows through.

    Always the same one: a figure takes a copy. Raises ImportError where Plotly is not installed.
    """
    import plotly.graph_objects as go  # slow to import, and only curves need it

    text, grid = ("#E6EDF3", "#3D444D") if dark else (INK, "#D1D9E0")
    axis = {"gridcolor": grid, "linecolor": text, "ticks": "outside", "zeroline": False}
    axis["automargin"] = True  # room for long tick labels
    space = {"gridcolor": grid, "backgroundcolor": "rgba(0,0,0,0)", "zerolinecolor": grid}
    matplotlib_scale = matplotlib.colormaps[SEQUENTIAL]
    scale = [[i / 10, to_hex(matplotlib_scale(i / 10))] for i in range(11)]
    return go.layout.Template(
        data={"heatmap": [{"colorscale": scale}], "surface": [{"colorscale": scale}]},
        layout={
            "colorway": list(PALETTE),
            "colorscale": {"sequential": scale},
            "font": {"color": text, "size": 12},
            "title": {"x": 0.01, "xanchor": "left", "font": {"size": 15}},
            "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
            "margin": {"l": 68, "r": 22, "t": 52, "b": 46},
            "scene": {"xaxis": space, "yaxis": space, "zaxis": space},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
        },
    )
