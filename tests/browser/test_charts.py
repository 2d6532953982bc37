"""The charts that no other file opens, in one notebook: moved by keys, saved, opened again."""

from collections.abc import Mapping
from dataclasses import dataclass

import nbformat
import numpy as np
import pytest

from reformer_viz import explore_bucket_load, explore_bugs, explore_geometry, explore_leak
from reformer_viz.widgets.panel import Panel
from tests.browser.conftest import THEMES, tracebacks

pytestmark = pytest.mark.browser

NAME = "charts.ipynb"
LONG = 200_000  # ms: Torch and Plotly are imported, and five megabytes are sent three times
CURVES = """number => {
  const flat = values => [...(values ?? [])].flatMap(
    x => (typeof x !== 'string' && x?.length ? [...x] : [x]));
  const root = document.querySelectorAll('.rx-root')[number];
  return root.querySelector('.js-plotly-plot')._fullData.map(
    ({ name, x, y, z }) => ({ name: name ?? null, values: [x, y, z].map(flat) }));
}"""


def draws_every_trace(watched, panel: Panel, number: int = 0) -> None:
    """Every trace in the page has the numbers that the same panel has in this process."""
    drawn = watched.page.evaluate(CURVES, number)
    wanted = panel._view.plotly(panel.data, panel.place).data
    assert len(drawn) == len(wanted)
    for trace, meant in zip(drawn, wanted, strict=True):
        for found, axis in zip(trace["values"], "xyz", strict=True):
            values = getattr(meant, axis, None)
            _assert_same(found, [] if values is None else np.ravel(values).tolist())


def _assert_same(found: list, wanted: list) -> None:
    if any(isinstance(value, int | float) for value in wanted):
        numbers = [np.array(values, dtype=float) for values in (found, wanted)]
        np.testing.assert_allclose(*numbers, rtol=1e-6)
    else:
        assert found == wanted


@dataclass(frozen=True)
class Case:
    """An explorer, the cell that it stands in, and a control with the key that moves it."""

    explore: object
    number: int
    control: str
    key: str
    moved: Mapping

    def panel(self, **moved) -> Panel:
        panel = self.explore()
        panel.state = moved
        return panel


CASES = [
    Case(explore_geometry, 0, "buckets", "ArrowRight", {"n_buckets": 10}),
    Case(explore_bucket_load, 1, "rounds", "ArrowLeft", {"n_hashes": 3}),
    Case(explore_bugs, 2, "rounds", "ArrowRight", {"n_hashes": 3}),
    Case(explore_leak, 3, "cut", "ArrowRight", {"cut": 129}),
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.explore.__name__)


def wait_for_words(watched, words: str, number: int) -> None:
    watched.page.wait_for_function(
        """([words, number]) => document.querySelectorAll('.rx-root [role=status]')[number]
          ?.innerText.includes(words)""",
        arg=[words, number],
    )


@pytest.fixture(scope="module")
def live(watch, lab, folder):
    """The notebook, running, with all of its charts alive."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [
        nbformat.v4.new_code_cell(f"from reformer_viz import {name}\n{name}()")
        for name in (case.explore.__name__ for case in CASES)
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / NAME)
    watched = watch(viewport={"width": 1200, "height": 3000})
    watched.open_notebook(lab, NAME)
    watched.command("notebook:run-all-cells")
    for case in CASES:
        chart = f".rx-root >> nth={case.number} >> .js-plotly-plot .main-svg"
        watched.page.wait_for_selector(chart, state="attached", timeout=LONG)
    yield watched
    watched.context.close()


def test_charts_are_as_wide_as_their_room_also_when_it_changes(live):
    fills = """() => [...document.querySelectorAll('.rx-chart')].every(chart => {
      const widths = [chart, chart.querySelector('.main-svg')].map(
        each => each.getBoundingClientRect().width);
      return Math.abs(widths[0] - widths[1]) < 1.5;
    })"""
    live.page.wait_for_function(fills)
    before = live.page.locator(".rx-chart").first.bounding_box()["width"]
    live.page.keyboard.press("Control+B")  # the side bar
    live.page.wait_for_function(
        "width => Math.abs(document.querySelector('.rx-chart').offsetWidth - width) > 100",
        arg=before,
    )
    live.page.wait_for_function(fills)
    live.page.keyboard.press("Control+B")


@each
def test_a_control_moved_by_the_keyboard_changes_what_is_drawn_said_and_computed(live, case):
    start, moved = case.panel(), case.panel(**case.moved)
    assert repr(start) != repr(moved)
    wait_for_words(live, repr(start), case.number)
    draws_every_trace(live, start, case.number)
    root = live.page.locator(".rx-root").nth(case.number)
    root.get_by_role("slider", name=case.control, exact=True).focus()
    live.page.keyboard.press(case.key)
    wait_for_words(live, repr(moved), case.number)
    live.page.wait_for_timeout(500)
    draws_every_trace(live, moved, case.number)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_in_either_theme(live, theme):
    live.use_theme(theme)
    assert live.serious() == []


def test_a_sphere_is_drawn_in_no_more_pixels_than_the_page_has(live):
    scene = live.page.locator(".rx-root").first.locator(".gl-container canvas").first
    [drawn, shown] = scene.evaluate("canvas => [canvas.width, canvas.clientWidth]")
    assert abs(drawn - shown) <= 2


def test_saved_and_opened_without_a_kernel_it_shows_the_pictures(live, watch, lab, folder):
    live.save_and_leave(lab)
    assert (live.errors, live.foreign) == ([], [])
    again = watch(viewport={"width": 1200, "height": 3000})
    again.open_notebook(lab, NAME)
    again.shut_down_kernel()
    for case in CASES:
        words = repr(case.panel())
        wait_for_words(again, words, case.number)
        picture = again.page.locator(".rx-root").nth(case.number).locator(".rx-chart img")
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 100
        assert picture.get_attribute("alt") == words
    assert (again.errors, again.foreign) == ([], [])
    assert tracebacks(folder) == []
    again.context.close()
