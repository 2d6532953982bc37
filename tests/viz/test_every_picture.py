"""What holds for every picture: it has an example, and it is written as PNG and as SVG."""

import io

import matplotlib
import pytest
from matplotlib.figure import Figure

import reformer_viz
from reformer_viz.figures.still import draw_still
from tools.gallery import Gallery

GALLERY = Gallery(steps=2)
FIGURES, CHARTS, EXPLORERS = GALLERY.figures(), GALLERY.charts(), GALLERY.explorers()


@pytest.mark.parametrize(
    ("start", "examples"), [("plot_", FIGURES), ("plotly_", CHARTS), ("explore_", EXPLORERS)]
)
def test_every_public_picture_has_an_example(start, examples):
    public = {name for name in reformer_viz.__all__ if name.startswith(start)}
    assert {name.partition(",")[0] for name in examples} == public


def test_the_example_of_a_leak_leaks_by_the_chunk_rule_and_by_that_alone():
    changed = {window: rule.changed.sum() for window, rule in GALLERY._leak.rules.items()}
    assert changed["chunks"] > 0
    assert changed["sliding"] == 0


def saved(figure: Figure, form: str) -> bytes:
    written = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "reformer"}):
        figure.savefig(written, format=form, metadata=metadata)
    return written.getvalue()


def assert_is_png(written: bytes, inches: tuple) -> None:
    """It is one, and as wide and high as the figure at 150 dots an inch."""
    assert written.startswith(b"\x89PNG\r\n\x1a\n")
    size = [int.from_bytes(written[at : at + 4], "big") for at in (16, 20)]
    assert size == pytest.approx([150 * side for side in inches], abs=1)


def assert_is_svg(written: bytes) -> None:
    assert b"<svg" in written[:600]
    assert written.rstrip().endswith(b"</svg>")
    assert b"http://" not in written.replace(b"http://www.w3.org", b"").replace(
        b"http://purl.org", b""
    ).replace(b"http://creativecommons.org", b"")


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_written_as_png_and_as_svg(name):
    figure = FIGURES[name]()
    assert_is_png(saved(figure, "png"), figure.get_size_inches())
    assert_is_svg(saved(figure, "svg"))


@pytest.mark.parametrize("name", CHARTS)
def test_every_plotly_figure_has_a_still_picture_as_svg(name):
    written = draw_still(CHARTS[name]())
    assert written.startswith("<svg")
    assert written == draw_still(CHARTS[name]())
    assert len(written) < 200_000


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_explorer_is_written_as_png_and_as_the_same_svg_every_time(name, tmp_path):
    panel = EXPLORERS[name]()
    assert_is_png(panel.save_png(tmp_path / "a.png").read_bytes(), panel.figure.get_size_inches())
    first = panel.save_svg(tmp_path / "a.svg").read_bytes()
    assert_is_svg(first)
    assert panel.save_svg(tmp_path / "b.svg").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("explore_bucketing", {"token": 9}),
        ("explore_bucketing", {"step": 1}),
        ("explore_bucketing", {"round": 1}),
        ("explore_sparsity", {"order": 1}),
        ("explore_sparsity", {"row": 9, "column": 3}),
        ("explore_training", {"snapshot": 0}),
        ("explore_training", {"token": 3}),
        ("explore_model", {"token": 3}),
    ],
)
def test_print_and_stored_picture_are_those_of_the_reader_s_place(name, place, tmp_path):
    panel = EXPLORERS[name]()
    pictures = []
    for where in ({}, place):
        panel.place = where
        stored = panel._picture().partition("src=")[2]  # without the words, which follow anyway
        pictures.append((panel.save_svg(tmp_path / "a.svg").read_bytes(), stored))
    for before, after in zip(*pictures, strict=True):
        assert before != after
    panel.close()
