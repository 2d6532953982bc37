"""The sparsity explorer in JupyterLab, saved, and exported: drawn, said and computed alike."""

import json
import urllib.request

import nbformat
import numpy as np
import pytest

from reformer_viz import explore_sparsity, style
from tests.browser.conftest import THEMES

pytestmark = pytest.mark.browser

SOURCE = "from reformer_viz import explore_sparsity\npanel = explore_sparsity()\npanel"
# The colour in the middle of every cell of the left square: [row][column] = [r, g, b, a].
MIDDLES = """() => {
  const root = document.querySelector('.rx-root'), canvas = root.querySelector('canvas');
  const { size, xs } = root.__rx.view.squares(), n = 64, all = [...Array(n).keys()];
  const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const middle = k => Math.floor(((k + 0.5) * size) / n);
  return all.map(row => all.map(column => {
    const at = 4 * ((22 + middle(row)) * canvas.width + xs[0] + middle(column));
    return [...image.data.slice(at, at + 4)];
  }));
}"""
PICTURE = "() => document.querySelector('.rx-root canvas').toDataURL()"


def keys(watched, *names):
    for name in names:
        watched.page.keyboard.press(name)


def slider(watched, name):
    return watched.page.locator(".rx-root").get_by_role("slider", name=name, exact=True)


def like(place: dict, **controls):
    """Return an explorer in this process that stands where a page does."""
    panel = explore_sparsity()
    for name, value in controls.items():
        panel.controls[name].value = value
    panel.place = place
    return panel


def assert_drawn_is_what_core_computes(watched, panel):
    """Every cell has the colour of the first round that sees it, and of no round elsewhere."""
    place = panel.place
    rule = place["window"] or "chunks", place["chunk_length"] or 8
    counts = panel.data.cells(*rule, place["order"])[: place["rounds"]]
    drawn = np.array(watched.page.evaluate(MIDDLES))
    for counted, colour in zip(counts, style.PALETTE, strict=False):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.array_equal((drawn == [*rgb, 255]).all(-1), counted == 1)
    faint = drawn[~counts.any(0)][:, 3]
    assert faint.max() < 60


@pytest.fixture(scope="module")
def live(watch, lab, folder):
    cells = [nbformat.v4.new_code_cell(source) for source in (SOURCE, "print(panel)")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "sparsity.ipynb")
    watched = watch()
    watched.open_notebook(lab, "sparsity.ipynb")
    watched.command("notebook:run-all-cells")
    watched.page.wait_for_selector('.rx-root[data-link="on"] .rx-controls .widget-button')
    yield watched
    watched.context.close()


def test_a_control_moved_by_the_keyboard_changes_what_is_drawn_said_and_computed(live):
    live.wait_for_status(repr(like({})))
    before = live.page.evaluate(PICTURE)
    slider(live, "buckets").focus()
    keys(live, "ArrowLeft", "ArrowLeft")
    panel = like({}, n_buckets=4)
    live.wait_for_status(repr(panel))
    assert live.page.evaluate(PICTURE) != before
    assert_drawn_is_what_core_computes(live, panel)
    live.page.get_by_role("button", name="New rotations").click()
    live.wait_for_status(repr(like({}, n_buckets=4, rotations=1)))


def test_arrow_keys_read_out_a_pair_and_leave_the_notebook_where_it_is(live):
    slider(live, "pair").focus()
    keys(live, "ArrowDown", "Shift+ArrowDown", "ArrowRight")
    panel = like({"row": 17, "column": 1}, n_buckets=4, rotations=1)
    live.wait_for_status(repr(panel))
    assert slider(live, "pair").get_attribute("aria-valuetext") == repr(panel)
    keys(live, "d", "d", "Escape")  # a notebook deletes a cell for these
    assert live.page.locator(".jp-CodeCell").count() == 2
    live.wait_for_status(repr(like({}, n_buckets=4, rotations=1)))


def test_the_kernel_hears_where_the_reader_stands(live):
    slider(live, "rounds").focus()
    keys(live, "Home")
    live.wait_for_status(repr(like({"rounds": 1}, n_buckets=4, rotations=1)))
    live.page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt").click()
    live.command("notebook:run-cell")
    live.page.wait_for_function(
        "words => document.querySelector('.jp-OutputArea-output pre').innerText.trim() === words",
        arg=repr(like({"rounds": 1}, n_buckets=4, rotations=1)),
    )


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_in_either_theme(live, theme):
    live.use_theme(theme)
    assert live.serious() == []


def test_opened_without_a_kernel_it_still_moves(live, watch, lab):
    live.command("docmanager:save")
    live.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    assert (live.errors, live.foreign) == ([], [])
    live.page.goto("about:blank")
    with urllib.request.urlopen(f"{lab}/api/sessions") as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{lab}/api/sessions/{session['id']}", method="DELETE")
        urllib.request.urlopen(request).close()
    again = watch()
    again.open_notebook(lab, "sparsity.ipynb")
    again.shut_down_kernel()
    again.page.wait_for_selector(".rx-root canvas")
    again.wait_for_status(repr(like({})))
    assert_drawn_is_what_core_computes(again, like({}))
    slider(again, "chunk length").focus()
    keys(again, "ArrowRight")
    again.page.get_by_label("window").select_option("sliding")
    panel = like({"chunk_length": 16, "window": "sliding"})
    again.wait_for_status(repr(panel))
    assert_drawn_is_what_core_computes(again, panel)
    slider(again, "order").focus()
    keys(again, "ArrowRight", "ArrowRight")
    panel.place = {"order": 1}
    again.page.wait_for_function("() => document.querySelector('.rx-root').__rx.place.order === 1")
    assert_drawn_is_what_core_computes(again, panel)
    assert (again.errors, again.foreign) == ([], [])
    again.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_exported_page_moves_from_disk_without_a_network(watch, tmp_path, scheme):
    path = explore_sparsity().save_html(tmp_path / "page.html")
    alone = watch(color_scheme=scheme, offline=True)
    alone.page.goto(path.as_uri())
    alone.wait_for_status(repr(like({})))
    slider(alone, "rounds").focus()
    keys(alone, "End")
    panel = like({"rounds": 8})
    alone.wait_for_status(repr(panel))
    assert_drawn_is_what_core_computes(alone, panel)
    alone.page.locator("summary").click()
    alone.page.wait_for_selector(".rx-table td")
    rows = alone.page.locator(".rx-table tr")
    last = rows.nth(8).locator("td").all_inner_texts()
    sparsity = panel.data.under("chunks", 8)
    assert last[:3] == [
        "7",
        f"{sparsity.pairs_first_seen[7]:,}",
        f"{sparsity.pairs_first_seen.sum():,}",
    ]
    assert alone.serious() == []
    assert alone.errors == []
    assert [url for url in alone.requests if not url.startswith("data:")] == [path.as_uri()]
    alone.context.close()


def test_pointing_reads_out_a_pair_and_a_click_keeps_it(watch, tmp_path):
    alone = watch(offline=True)
    alone.page.goto(explore_sparsity().save_html(tmp_path / "page.html").as_uri())
    box = alone.page.locator(".rx-root canvas").first.bounding_box()
    size = alone.page.evaluate("() => document.querySelector('.rx-root').__rx.view.squares().size")
    pair = box["x"] + 10.5 * size / 64, box["y"] + 22 + 40.5 * size / 64
    outside = box["x"] + 10, box["y"] - 15
    sentence = repr(like({"row": 40, "column": 10}))
    alone.page.mouse.move(*pair)
    assert alone.page.locator(".rx-say").inner_text() == sentence
    alone.page.mouse.move(*outside)
    assert alone.page.locator(".rx-say").inner_text() == repr(like({}))
    alone.page.mouse.move(*pair)
    alone.page.mouse.down()
    alone.page.mouse.up()
    alone.page.mouse.move(*outside)
    alone.wait_for_status(sentence)
    assert alone.errors == []
    alone.context.close()


def test_a_problem_is_a_sentence_where_the_picture_would_be(watch, tmp_path):
    panel = explore_sparsity(n_tokens=1)
    alone = watch(offline=True)
    alone.page.goto(panel.save_html(tmp_path / "page.html").as_uri())
    alone.wait_for_status(panel.problem)
    assert panel.problem in alone.page.locator("main").inner_text()
    assert not alone.page.locator(".rx-root canvas").first.is_visible()
    assert alone.errors == []
    alone.context.close()
