"""Colours that everybody can tell apart, words that everybody can read, and no global state."""

import itertools

import matplotlib
import numpy as np
import pytest

from reformer_viz import style

# Machado, Oliveira and Fernandes 2009: what linear RGB looks like at full severity.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
FROM_RGB = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
PAGES = {"light": "#FFFFFF", "JupyterLab's dark": "#111111"}


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    t = FROM_RGB @ rgb / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def smallest_distance(colours, vision: str) -> float:
    seen = [lab(np.clip(np.array(VISION[vision]) @ linear(c), 0, 1)) for c in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
def test_no_two_bucket_colours_look_alike_to_anybody(vision):
    assert smallest_distance(style.PALETTE, vision) >= 15


def test_the_distance_finds_a_palette_that_fails():
    plotly_default = ("#636EFA", "#EF553B", "#00CC96", "#AB63FA", "#FFA15A", "#19D3F3")
    assert smallest_distance(plotly_default, "protanopia") < 15


@pytest.mark.parametrize("n_buckets", [1, 2, 8, 9, 16, 64])
def test_every_bucket_has_a_colour_of_its_own(n_buckets):
    assert len(set(style.bucket_colours(n_buckets))) == n_buckets


def test_hundreds_of_buckets_share_the_scale_s_colours_and_each_has_one():
    assert len(style.bucket_colours(512)) == 512


def test_more_than_eight_buckets_are_a_scale_from_dark_to_bright_and_ask_for_hatching():
    brightness = [style.luminance(colour) for colour in style.bucket_colours(16)]
    assert brightness == sorted(brightness)
    assert not style.needs_hatching(8)
    assert style.needs_hatching(10)


@pytest.mark.parametrize("n_buckets", [8, 16, 256])
def test_text_on_every_bucket_is_readable(n_buckets):
    for colour in style.bucket_colours(n_buckets):
        assert style.contrast(style.text_on(colour), colour) >= 4.5


@pytest.mark.parametrize("text", [style.INK, style.MUTED])
@pytest.mark.parametrize("paper", [style.PAPER, style.SHADE])
def test_text_on_the_page_is_readable(text, paper):
    assert style.contrast(text, paper) >= 4.5


@pytest.mark.parametrize("n_buckets", [8, 32])
def test_no_bucket_vanishes_into_a_dark_page(n_buckets):
    dark = PAGES["JupyterLab's dark"]
    assert min(style.contrast(c, dark) for c in style.bucket_colours(n_buckets)) >= 2.4


def test_contrast_is_the_guidelines_ratio():
    assert style.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert style.contrast("#777777", "#777777") == pytest.approx(1)
    assert style.contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.01)


def test_making_a_figure_changes_nothing_for_other_figures():
    before = dict(matplotlib.rcParams)
    figure = style.new_figure(3, 2)
    axes = figure.subplots()
    style.dress(axes, "title", "x in tokens", "y in bytes")
    figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before
    assert figure.get_size_inches().tolist() == [3, 2]
    assert axes.get_title(loc="left") == "title"
    assert axes.xaxis.label.get_fontsize() == style.RC["font.size"]


@pytest.mark.parametrize("dark", [False, True])
def test_plotly_s_template_has_the_same_colours_and_readable_text(dark):
    layout = style.plotly_template(dark).layout
    assert layout.colorway == style.PALETTE
    assert style.contrast(layout.font.color, PAGES["JupyterLab's dark" if dark else "light"]) >= 4.5
    assert layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_a_notebook_shows_a_figure_as_a_picture_without_pyplot():
    figure = style.new_figure(2, 1)
    assert figure._repr_png_().startswith(b"\x89PNG")
