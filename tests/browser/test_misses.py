"""The price of a miss in a real JupyterLab: a painted text, and answers exported."""

import nbformat
import numpy as np
import pytest

from tests.browser.conftest import THEMES

pytestmark = pytest.mark.browser

NAME = "misses.ipynb"
CELL = """\
import torch
from reformer_core import ReformerConfig, ReformerLM
from reformer_core.tasks import Duplicate
from reformer_viz import explore_misses
torch.manual_seed(0)
model = ReformerLM(ReformerConfig(
    vocab_size=256, d_model=32, n_layers=2, n_heads=2, attention=("local", "lsh"),
    n_hashes=2, n_buckets=8, chunk_length=8, max_length=128))
panel = explore_misses(model, "<b>She</b> sells <img src=x onerror=document.title=1> shells")
panel"""
LIVE = ".rx-root .js-plotly-plot"
DRAWN = """name => [...document.querySelector('.rx-root .js-plotly-plot')._fullData.find(
  trace => trace.name === name).y]"""
WRITTEN = """() => [...document.querySelectorAll('.rx-root .textpoint text')].map(
  node => node.textContent).join('')"""


def like(**state):
    """Return an explorer in this process that shows the same."""
    names = {}
    exec(CELL, names)
    panel = names["panel"]
    panel.state = state
    return panel


@pytest.fixture(scope="module")
def live(watch, lab, folder):
    """The notebook, running, with its chart alive."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(CELL)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / NAME)
    watched = watch()
    watched.open_notebook(lab, NAME)
    watched.command("notebook:run-all-cells")
    watched.page.wait_for_selector(LIVE, state="attached")
    yield watched
    watched.context.close()


def assert_drawn_is_what_was_measured(watched, panel) -> None:
    cost = panel.data.of.cost[panel.data.n_hashes - 1]
    np.testing.assert_allclose(watched.page.evaluate(DRAWN, "cost, bits"), cost)


def test_a_text_is_painted_and_more_rounds_paint_it_anew(live):
    start, moved = like(), like(n_hashes=3)
    live.wait_for_status(repr(start))
    assert_drawn_is_what_was_measured(live, start)
    slider = live.page.locator(".rx-root").get_by_role("slider", name="rounds", exact=True)
    slider.focus()
    live.page.keyboard.press("ArrowRight")
    live.wait_for_status(repr(moved))
    live.page.wait_for_function(
        f"y => Math.abs(({DRAWN})('cost, bits')[0] - y) < 1e-9",
        arg=float(moved.data.of.cost[2, 0]),
    )
    assert_drawn_is_what_was_measured(live, moved)
    assert (live.errors, live.foreign) == ([], [])


def test_markup_in_a_text_is_written_out_and_not_obeyed(live):
    written = live.page.evaluate(WRITTEN).replace("\u00a0", " ")
    assert written == "".join(like().data.of.labels)
    assert live.page.title() != "1"
    assert live.page.locator(".rx-root img[src=x]").count() == 0


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_in_either_theme(live, theme):
    live.use_theme(theme)
    assert live.serious() == []


def test_exported_answers_are_drawn_from_disk_without_a_network(watch_alone, tmp_path):
    names = {}
    exec(CELL, names)
    panel = names["explore_misses"](names["model"], names["Duplicate"](vocab_size=9, length=16))
    path = panel.save_html(tmp_path / "misses.html")
    alone = watch_alone()
    alone.page.goto(path.as_uri())
    alone.page.wait_for_selector(LIVE, state="attached")
    alone.wait_for_status(repr(panel))
    shown = panel.data.of.counts[panel.data.n_hashes - 1, :, 1, 1] / panel.data.of.n_sequences
    np.testing.assert_allclose(alone.page.evaluate(DRAWN, "seen, right"), shown)
    assert (alone.errors, alone.foreign) == ([], [])
    alone.context.close()
