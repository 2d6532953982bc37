"""The explorer of recall in a real JupyterLab: live and moved by keys, and exported."""

import nbformat
import numpy as np
import pytest

from reformer_viz import explore_recall
from reformer_viz.widgets.panel import Panel
from tests.browser.conftest import THEMES

pytestmark = pytest.mark.browser

NAME = "recall.ipynb"
START = {"n_buckets": 8, "top_k": 4, "n_hashes": (1, 2)}
CELL = f"""\
from reformer_viz import explore_recall
panel = explore_recall(**{START})
panel"""
LIVE = ".rx-root .js-plotly-plot"
DRAWN = """name => [...document.querySelector('.rx-root .js-plotly-plot')._fullData.find(
  trace => trace.name?.startsWith(name)).y]"""
CURVES = {"found": "found", "in the query’s bucket": "same_bucket", "weight": "mass_found"}


def assert_drawn_is_what_was_measured(watched, panel: Panel) -> None:
    for name, quantity in CURVES.items():
        drawn = watched.page.evaluate(DRAWN, name)
        np.testing.assert_allclose(drawn, panel.data.curve(quantity).mean)


@pytest.fixture(scope="module")
def live(watch, lab, folder):
    """The notebook, running, with its curves alive."""
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


def test_rotations_moved_by_the_keyboard_hash_again(live):
    start, moved = explore_recall(**START), explore_recall(**START, rotations=1)
    live.wait_for_status(repr(start))
    assert_drawn_is_what_was_measured(live, start)
    slider = live.page.locator(".rx-root").get_by_role("slider", name="rotations", exact=True)
    slider.focus()
    live.page.keyboard.press("ArrowRight")
    live.wait_for_status(repr(moved))
    live.page.wait_for_function(
        f"([name, y]) => Math.abs(({DRAWN})(name)[0] - y) < 1e-9",
        arg=["found", float(moved.data.curve("found").mean[0])],
    )
    assert_drawn_is_what_was_measured(live, moved)
    assert (live.errors, live.foreign) == ([], [])


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_in_either_theme(live, theme):
    live.use_theme(theme)
    assert live.serious() == []


def test_exported_curves_are_drawn_from_disk_without_a_network(watch, tmp_path):
    panel = explore_recall(**START)
    path = panel.save_html(tmp_path / "recall.html")
    alone = watch(offline=True)
    alone.page.goto(path.as_uri())
    alone.page.wait_for_selector(LIVE, state="attached")
    alone.wait_for_status(repr(panel))
    assert_drawn_is_what_was_measured(alone, panel)
    assert alone.errors == []
    assert [url for url in alone.requests if not url.startswith(("data:", "blob:"))] == [
        path.as_uri()
    ]
    alone.context.close()


@pytest.mark.parametrize("width", [600, 800, 1200])
def test_curves_are_no_wider_than_their_page(watch, tmp_path, width):
    path = explore_recall(**START).save_html(tmp_path / "recall.html")
    alone = watch(offline=True, viewport={"width": width, "height": 900})
    alone.page.goto(path.as_uri())
    alone.page.wait_for_selector(LIVE, state="attached")
    assert alone.page.evaluate("document.documentElement.scrollWidth") <= width
    alone.context.close()
