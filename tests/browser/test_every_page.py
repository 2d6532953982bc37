"""What holds for every explorer's page: from disk, by keyboard, by names, in light and dark."""

import numpy as np
import pytest
from playwright.sync_api import Locator

from tools.gallery import Gallery

pytestmark = pytest.mark.browser

EXPLORERS = Gallery(steps=2).explorers()
DRAWN = """() => (document.querySelector('.rx-chart .js-plotly-plot')?._fullData ?? []).map(
  ({ name, x, y, z }) => ({ name, x: [...(x ?? [])], y: [...(y ?? [])], z: [...(z ?? [])] }))"""
# Everything that a key can move, with the name that a screen reader says.
HANDLES = """() => [...document.querySelectorAll(
  '.rx-root [role=slider], .rx-root input, .rx-root select, .rx-root canvas[tabindex]')].map(node =>
    node.ariaLabel ?? [...(node.labels ?? [])].map(label => label.textContent).join(' '))"""
SLIDERS = ".rx-root [role=slider], .rx-root input[type=range]"
VALUE = "node => node.getAttribute('aria-valuetext') ?? node.ariaValueNow ?? node.value"
FOCUSED = "node => node === document.activeElement"


@pytest.fixture(params=EXPLORERS)
def opened(request, watch_alone, tmp_path):
    """An explorer, and its page, which was exported and opened from disk."""
    panel = EXPLORERS[request.param]()
    path = panel.save_html(tmp_path / "page.html")
    alone = watch_alone(viewport={"width": 800, "height": 1000})
    alone.page.goto(path.as_uri())
    alone.wait_for_status(repr(panel))
    if panel._chart is not None:
        alone.page.wait_for_selector(".rx-chart .main-svg", state="attached")
    yield panel, alone
    assert (alone.errors, alone.complaints) == ([], [])
    own = [url for url in alone.requests if not url.startswith(("data:", "blob:"))]
    assert own == [path.as_uri()]
    alone.context.close()


def assert_same_numbers(drawn: list, wanted: object) -> None:
    """None in the page is a gap here."""
    wanted = [] if wanted is None else np.asarray(wanted).ravel().tolist()
    if any(isinstance(value, str) for value in wanted):
        assert drawn == wanted
    else:
        np.testing.assert_allclose(
            np.array(drawn, dtype=float), np.array(wanted, dtype=float), rtol=1e-6, atol=1e-9
        )


def test_every_page_says_draws_and_lists_the_same_and_can_be_used_by_everybody(opened):
    panel, alone = opened
    assert alone.page.evaluate("() => document.documentElement.scrollWidth") <= 800
    assert all(name.strip() for name in alone.page.evaluate(HANDLES))
    if panel._chart is not None:
        assert_a_chart_is_drawn(panel, alone)
    assert_keys_move_and_focus_stays(alone)
    alone.page.locator(".rx-root summary").click()
    alone.page.wait_for_selector(".rx-table td")
    rows = alone.page.locator(".rx-table tr").count()
    assert rows == len(panel._link.data["rows"]) if panel._chart is not None else rows > 1
    for scheme in ("light", "dark"):
        alone.page.emulate_media(color_scheme=scheme)
        alone.page.wait_for_timeout(100)
        assert alone.serious() == [], scheme


def assert_a_chart_is_drawn(panel, alone) -> None:
    wanted = panel._view.plotly(panel.data, panel.place).data
    drawn = alone.page.evaluate(DRAWN)
    assert [curve["name"] for curve in drawn] == [trace.name for trace in wanted]
    for curve, trace in zip(drawn, wanted, strict=True):
        for axis in "xyz":
            assert_same_numbers(curve[axis], getattr(trace, axis, None))


def assert_keys_move_and_focus_stays(alone) -> None:
    """Every slider has another value after an arrow key, up or down, and keeps the focus."""
    for handle in filter(Locator.is_visible, alone.page.locator(SLIDERS).all()):
        handle.focus()
        seen = set()
        for key in ("ArrowLeft", "ArrowRight", "ArrowRight", "ArrowUp", "ArrowDown"):
            seen.add(handle.evaluate(VALUE))
            alone.page.keyboard.press(key)
            assert handle.evaluate(FOCUSED)
        assert len({*seen, handle.evaluate(VALUE)}) > 1
