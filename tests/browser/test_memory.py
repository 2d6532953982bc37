"""The film of a training step in a real JupyterLab: live and moved by keys, and exported."""

import nbformat
import numpy as np
import pytest

from reformer_core import ReformerConfig
from reformer_viz import explore_memory
from reformer_viz.widgets.panel import Panel
from tests.browser.conftest import THEMES

pytestmark = pytest.mark.browser

NAME = "memory.ipynb"
SIZES = {"vocab_size": 11, "d_model": 16, "n_heads": 2, "chunk_length": 8, "max_length": 64}
START = {"kind": "reversible", "n_layers": 1, "length": 32, "n_hashes": 1}
CELL = f"""\
from reformer_core import ReformerConfig
from reformer_viz import explore_memory
panel = explore_memory(ReformerConfig(**{SIZES}), **{START})
panel"""
LIVE = ".rx-root .js-plotly-plot"
DRAWN = "() => document.querySelector('.rx-root .js-plotly-plot')._fullData.map(({ y }) => [...y])"


def like(**moved) -> Panel:
    return explore_memory(ReformerConfig(**SIZES), **START | moved)


def assert_drawn_is_what_core_computes(watched, panel: Panel) -> None:
    """The outline is the live bytes at the operations that are drawn, the marks kept and peak."""
    film = panel.data.films[0]
    *_, outline, marks = watched.page.evaluate(DRAWN)
    shown = panel._view.plotly(panel.data, {}).data[2].x
    np.testing.assert_allclose(outline, film.live[np.array(shown)] / 2**20)
    np.testing.assert_allclose(marks, [film.kept / 2**20, film.peak / 2**20])


@pytest.fixture(scope="module")
def live(watch, lab, folder):
    """The notebook, running, with its film alive."""
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


def test_a_size_moved_by_the_keyboard_films_another_step(live):
    live.wait_for_status(repr(like()))
    assert_drawn_is_what_core_computes(live, like())
    slider = live.page.locator(".rx-root").get_by_role("slider", name="layers", exact=True)
    slider.focus()
    live.page.keyboard.press("ArrowRight")
    moved = like(n_layers=2)
    live.wait_for_status(repr(moved))
    live.page.wait_for_function(
        "n => document.querySelector('.rx-root .js-plotly-plot').data.at(-1).x[1] === n",
        arg=moved.data.films[0].peak_at,
    )
    assert_drawn_is_what_core_computes(live, moved)
    assert (live.errors, live.foreign) == ([], [])


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_in_either_theme(live, theme):
    live.use_theme(theme)
    assert live.serious() == []


def test_an_exported_film_is_drawn_from_disk_without_a_network(watch, tmp_path):
    path = like().save_html(tmp_path / "film.html")
    alone = watch(offline=True)
    alone.page.goto(path.as_uri())
    alone.page.wait_for_selector(LIVE, state="attached")
    alone.wait_for_status(repr(like()))
    assert_drawn_is_what_core_computes(alone, like())
    assert alone.errors == []
    assert [url for url in alone.requests if not url.startswith(("data:", "blob:"))] == [
        path.as_uri()
    ]
    alone.context.close()
