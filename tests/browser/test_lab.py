"""The explorer in a real JupyterLab: live, while a cell runs, saved, untrusted, and exported."""

import json
import urllib.request

import nbformat
import numpy as np
import pytest

from reformer_viz import explore_bucketing, style
from reformer_viz.measure.bucketing import SEEN
from reformer_viz.widgets.plan_rule import settle
from tests.browser.conftest import tracebacks

pytestmark = pytest.mark.browser

# The colour in the middle of every cell of both squares: [square][row][column] = [r, g, b, a].
MIDDLES = """() => {
  const root = document.querySelector('.rx-root'), canvas = root.querySelector('.rx-matrix');
  const { unit, size, xs } = root.__rx.view.squares(), n = Math.round(size / unit);
  const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const middle = k => Math.floor((k + 0.4) * unit), all = [...Array(n).keys()];
  return xs.map(x => all.map(row => all.map(column => {
    const at = 4 * ((22 + middle(row)) * canvas.width + x + middle(column));
    return [...image.data.slice(at, at + 4)];
  })));
}"""
PICTURE = "() => document.querySelector('.rx-strips').toDataURL()"
PLACE = "() => document.querySelector('.rx-root').__rx.place"
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def live(watch, lab):
    """The notebook, running: its first cell shows the explorer, its second waits to be moved."""
    watched = watch()
    watched.open_notebook(lab, "live.ipynb")
    watched.command("notebook:run-all-cells")
    watched.page.wait_for_selector('.rx-root[data-link="on"] .rx-controls .widget-button')
    yield watched
    watched.context.close()


def like(state: dict):
    """Return an explorer in this process that shows what a page's state says."""
    panel = explore_bucketing()
    for name, control in panel.controls.items():
        if name in state:
            control.value = state[name]
    panel.place = {name: state[name] for name in panel.place if name in state}
    return panel


def keys(watched, *names):
    for name in names:
        watched.page.keyboard.press(name)


def slider(watched, name):
    return watched.page.locator(".rx-root").get_by_role("slider", name=name, exact=True)


def drawn(watched) -> np.ndarray:
    return np.array(watched.page.evaluate(MIDDLES))


def assert_drawn_is_what_core_computes(watched, panel):
    """Every cell is filled with its bucket's colour exactly where core says that it is seen."""
    data, round, _ = settle(panel.data, panel.place)
    kinds = data.kinds(round)
    colours = [
        [int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in style.bucket_colours(data.n_buckets)
    ]
    wanted = np.array(colours)[data.buckets[round]]
    for square, places in zip(
        drawn(watched), (data.order[round], np.arange(data.length)), strict=True
    ):
        filled = (square[..., :3] == wanted[places][:, None]).all(-1) & (square[..., 3] == 255)
        assert np.array_equal(filled, (kinds == SEEN)[places][:, places])


def move_the_rule(watched, state):
    """Move number of rounds, chunk length and window by the keyboard: the page answers alone."""
    slider(watched, "rounds used").focus()
    keys(watched, "End")
    slider(watched, "chunk length").focus()
    keys(watched, "ArrowLeft", "ArrowLeft")
    watched.page.locator(".rx-root").get_by_label("window rule").focus()
    keys(watched, "ArrowDown")
    panel = like(state | {"rounds": 8, "chunk_length": 6, "window": "sliding"})
    assert repr(panel).startswith("64 tokens, 8 buckets, 8 rounds, a sliding window of 6 slots.")
    watched.wait_for_status(repr(panel))
    assert_drawn_is_what_core_computes(watched, panel)


def serious_complaints(watched) -> list:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(watched.page, context=".rx-root").response["violations"]
    return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in SERIOUS]


def test_while_a_cell_runs_the_page_and_the_kernel_answer(live):
    running = live.page.locator(".jp-InputPrompt", has_text="[*]")
    assert running.count() == 1
    slider(live, "noise").focus()
    keys(live, "ArrowRight", "ArrowRight")
    live.wait_for_status(repr(like({"noise": 0.5})))
    slider(live, "token").focus()
    keys(live, "End")
    sentence = repr(like({"noise": 0.5, "token": 63}))
    live.wait_for_status(sentence)
    said = live.page.locator(".jp-OutputArea-output pre").inner_text().strip()
    assert said == f"noise 0.50 while running: {sentence}"


def test_a_control_moved_by_the_keyboard_changes_what_is_drawn_said_and_computed(live):
    slider(live, "token").focus()
    keys(live, "Escape")
    before = live.page.evaluate(PICTURE)
    slider(live, "buckets").focus()
    keys(live, "ArrowLeft", "ArrowLeft")
    panel = like({"noise": 0.5, "n_buckets": 4})
    live.wait_for_status(repr(panel))
    assert live.page.evaluate(PICTURE) != before
    assert_drawn_is_what_core_computes(live, panel)
    slider(live, "round").focus()
    keys(live, "ArrowRight", "ArrowRight")
    panel.place = {"round": 2}
    live.wait_for_status(repr(panel))
    assert_drawn_is_what_core_computes(live, panel)


def test_arrow_keys_move_the_token_and_leave_the_notebook_where_it_is(live):
    slider(live, "token").focus()
    keys(live, "Home", "ArrowRight", "ArrowRight", "ArrowDown")
    assert live.page.evaluate(PLACE)["token"] == 2
    assert slider(live, "token").evaluate("canvas => canvas === document.activeElement")
    assert "token 2 " in slider(live, "token").get_attribute("aria-valuetext")
    keys(live, "d", "d", "Escape")  # a notebook deletes a cell for these
    assert live.page.locator(".jp-CodeCell").count() == 2
    assert live.page.evaluate(PLACE)["token"] is None


def test_pointing_shows_a_token_and_leaving_hides_it_and_a_click_keeps_it(live):
    box = live.page.locator(".rx-strips").bounding_box()
    above, inside = (box["x"] + 300, box["y"] - 30), (box["x"] + 300, box["y"] + 15)
    live.page.mouse.move(*inside)
    token = live.page.evaluate(PLACE)["token"]
    assert 5 < token < 30
    live.page.mouse.move(*above)
    assert live.page.evaluate(PLACE)["token"] is None
    live.page.mouse.move(*inside)
    live.page.mouse.down()
    live.page.mouse.up()
    live.page.mouse.move(*above)
    assert live.page.evaluate(PLACE)["token"] == token
    slider(live, "token").focus()
    keys(live, "Escape")


def test_every_step_is_another_picture(live):
    slider(live, "step").focus()
    pictures = []
    for _ in range(5):
        pictures.append(live.page.evaluate(PICTURE))
        keys(live, "ArrowLeft")
    assert len(set(pictures)) == 5
    keys(live, "End")


def test_the_data_table_holds_what_core_computes(live):
    live.page.locator(".rx-root summary").click()
    live.page.wait_for_selector(".rx-table td")
    rows = live.page.locator(".rx-table tr")
    cells = [rows.nth(i).locator("td").all_inner_texts() for i in (1, 64)]
    state = live.page.evaluate(PLACE) | {"noise": 0.5, "n_buckets": 4}
    data = like(state).data
    for (position, label, bucket, slot, chunk, *_), token in zip(cells, (0, 63), strict=True):
        round = state["round"]
        assert (position, label) == (str(token), data.labels[token])
        assert (int(bucket), int(slot)) == (data.buckets[round, token], data.slot[round, token])
        assert int(chunk) == int(slot) // 8
    live.page.locator(".rx-root summary").click()


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_the_picture_follows_the_theme_and_axe_finds_nothing_serious(live, theme):
    before = live.page.evaluate(PICTURE)
    live.command("apputils:change-theme", theme=theme)
    light = str(theme == "JupyterLab Light").lower()
    live.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
    live.page.wait_for_function(f"before => ({PICTURE})() !== before", arg=before)
    live.page.locator(".rx-root summary").click()
    live.page.wait_for_selector(".rx-table td")
    assert serious_complaints(live) == []
    live.page.locator(".rx-root summary").click()


def test_nothing_failed_and_nobody_else_was_asked(live, folder):
    assert live.errors == []
    assert live.foreign == []
    assert tracebacks(folder) == []


# ---------------------------------------------------------------- saved, and opened again


@pytest.fixture(scope="module")
def saved(live, folder, lab):
    """The notebook as JupyterLab saved it, after its kernel has been shut down."""
    live.command("docmanager:save")
    live.page.wait_for_function(
        "() => !document.querySelector('.jp-mod-dirty')",
    )
    live.page.goto("about:blank")
    with urllib.request.urlopen(f"{lab}/api/sessions") as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{lab}/api/sessions/{session['id']}", method="DELETE")
        urllib.request.urlopen(request).close()
    return nbformat.read(folder / "live.ipynb", as_version=4)


def test_a_saved_notebook_holds_one_plain_output_and_no_widget(saved):
    [output] = saved.cells[0].outputs
    assert sorted(output.data) == ["text/html", "text/plain"]
    panel = explore_bucketing()
    assert output.data["text/plain"] == repr(panel)
    stored, fresh = output.data["text/html"], panel._html()
    key = stored.split('data-rx="')[1].split('"')[0]
    assert stored == fresh.replace(panel._key, key)
    assert "widgets" not in saved.metadata


def test_opened_without_a_kernel_it_still_moves(saved, watch, lab):
    again = watch()
    again.open_notebook(lab, "live.ipynb")
    again.shut_down_kernel()
    again.page.wait_for_selector(".rx-root .rx-strips")
    again.wait_for_status(repr(like({})))
    assert_drawn_is_what_core_computes(again, like({}))
    assert again.page.locator(".rx-root").get_attribute("data-link") is None
    again.page.locator(".rx-controls").get_by_text("the notebook changes these").wait_for()
    slider(again, "round").focus()
    keys(again, "End")
    slider(again, "token").focus()
    keys(again, "End")
    again.wait_for_status(repr(like({"round": 3, "token": 63})))
    keys(again, "Escape")
    assert_drawn_is_what_core_computes(again, like({"round": 3}))
    move_the_rule(again, {"round": 3})
    assert again.page.locator(".rx-picture").count() == 0
    assert "model not found" not in again.page.locator(".jp-Notebook").inner_text()
    assert (again.errors, again.foreign) == ([], [])
    again.context.close()


def test_untrusted_it_shows_the_picture(saved, watch, lab, folder):
    saved.cells[1].outputs[0].text += "from elsewhere"
    nbformat.write(saved, folder / "foreign.ipynb")
    stranger = watch()
    stranger.open_notebook(lab, "foreign.ipynb")
    picture = stranger.page.locator(".rx-root img")
    assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 100
    assert picture.get_attribute("alt") == repr(like({}))
    assert stranger.page.locator(".rx-root canvas").count() == 0
    assert (stranger.errors, stranger.foreign) == ([], [])
    stranger.context.close()


# ------------------------------------------------------------------------ exported


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_exported_page_moves_from_disk_without_a_network(watch, tmp_path, scheme):
    path = explore_bucketing().save_html(tmp_path / "page.html")
    alone = watch(color_scheme=scheme, offline=True)
    alone.page.goto(path.as_uri())
    alone.wait_for_status(repr(like({})))
    slider(alone, "round").focus()
    keys(alone, "ArrowRight")
    alone.wait_for_status(repr(like({"round": 1})))
    assert_drawn_is_what_core_computes(alone, like({"round": 1}))
    move_the_rule(alone, {"round": 1})
    assert serious_complaints(alone) == []
    assert alone.errors == []
    assert [url for url in alone.requests if not url.startswith("data:")] == [path.as_uri()]
    alone.context.close()


def test_the_legend_names_what_a_long_picture_adds(watch, tmp_path):
    key = ".rx-key"
    for length, several in ((64, False), (1100, True)):
        path = explore_bucketing(n_tokens=length).save_html(tmp_path / f"{length}.html")
        alone = watch(offline=True)
        alone.page.goto(path.as_uri())
        alone.wait_for_status("Round 0")
        assert ("of several buckets" in alone.page.locator(key).inner_text()) == several
        assert alone.errors == []
        alone.context.close()


def test_a_problem_is_a_sentence_where_the_picture_would_be(watch, tmp_path):
    panel = explore_bucketing(n_buckets=7)
    alone = watch(offline=True)
    alone.page.goto(panel.save_html(tmp_path / "page.html").as_uri())
    alone.wait_for_status(panel.problem)
    assert panel.problem in alone.page.locator("main").inner_text()
    assert not alone.page.locator(".rx-strips").is_visible()
    assert alone.errors == []
    alone.context.close()


def test_text_that_looks_like_html_stays_text(watch, tmp_path):
    evil = ["<img src=x onerror='document.title=1'>", "</script><script>document.title=1</script>"]
    panel = explore_bucketing(np.eye(2), labels=evil, n_buckets=2, chunk_length=2)
    panel.place = {"token": 1}
    alone = watch(offline=True)
    alone.page.goto(panel.save_html(tmp_path / "page.html").as_uri())
    alone.wait_for_status(evil[1])
    alone.page.locator("summary").click()
    alone.page.wait_for_selector(".rx-table td")
    assert evil[0] in alone.page.locator(".rx-table").inner_text()
    assert alone.page.title() != "1"
    assert alone.errors == []
    alone.context.close()


def test_tokens_fly_to_their_new_places_unless_motion_is_unwanted(watch, tmp_path):
    path = explore_bucketing().save_html(tmp_path / "page.html")
    moving = watch(reduced_motion="no-preference")
    moving.page.goto(path.as_uri())
    moving.wait_for_status("Round 0")
    frames = moving.page.evaluate(
        """async () => {
          const root = document.querySelector('.rx-root');
          const canvas = root.querySelector('.rx-strips');
          root.__rx.go({ round: 1 });
          const seen = new Set(), until = performance.now() + 1500;
          while (performance.now() < until) {
            await new Promise(requestAnimationFrame);
            seen.add(canvas.toDataURL());
          }
          return seen.size;
        }"""
    )
    assert frames > 3
    moving.context.close()
