"""A chart in a real JupyterLab: live and moved by keys, saved, without a kernel, exported."""

import json
import urllib.request
from pathlib import Path

import nbformat
import pytest

from reformer_viz import SceneList, explore_bucketing, explore_speed
from reformer_viz.figures.table import rows_of
from tests.browser.conftest import tracebacks

pytestmark = pytest.mark.browser

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu.json"
NAME, FILE = "chart.ipynb", "results.json"
CELLS = (
    f'from reformer_viz import SceneList, explore_speed\npanel = explore_speed("{FILE}")\npanel',
    f'talk = SceneList(explore_speed("{FILE}", n_hashes=1), [({{}}, "One round"),\n'
    '    ({"n_hashes": 2}, "Two rounds"), ({"what": "bytes", "n_hashes": 8}, "Memory")])\ntalk',
)
SCENES = [
    ({}, "One round"),
    ({"n_hashes": 2}, "Two rounds"),
    ({"what": "bytes", "n_hashes": 8}, "Memory"),
]
PLOT = ".rx-root >> nth={} >> .rx-chart .js-plotly-plot"
DRAWN = """plot => plot._fullData.map(
  ({ name, x, y }) => ({ name, x: [...(x ?? [])], y: [...(y ?? [])] }))"""
SERIOUS = ("serious", "critical")
LONG = 200_000  # ms: Torch and Plotly are imported, and five megabytes are sent twice


@pytest.fixture(scope="module")
def live(watch, lab, folder):
    """The notebook, running, with the charts of both of its cells alive."""
    (folder / FILE).write_bytes(RESULTS.read_bytes())
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / NAME)
    watched = watch(viewport={"width": 1200, "height": 2000})
    watched.open_notebook(lab, NAME)
    watched.command("notebook:run-all-cells")
    for number in (0, 1):
        chart = PLOT.format(number) + " >> .main-svg"
        watched.page.wait_for_selector(chart, state="attached", timeout=LONG)
    yield watched
    watched.context.close()


@pytest.fixture
def here(monkeypatch, folder):
    """Stand in the notebook's folder, so that the same call finds the same file."""
    if not (folder / FILE).exists():
        (folder / FILE).write_bytes(RESULTS.read_bytes())
    monkeypatch.chdir(folder)


def root(watched, number=0):
    return watched.page.locator(".rx-root").nth(number)


def plot(watched, number=0):
    return watched.page.locator(PLOT.format(number))


def wait_for_words(watched, words, number=0):
    watched.page.wait_for_function(
        """([words, number]) => document.querySelectorAll('.rx-root [role=status]')[number]
          ?.innerText.includes(words)""",
        arg=[words, number],
    )


def assert_drawn_is_what_the_panel_says(watched, panel, number=0):
    """Every curve in the page has the numbers of a panel in this process, which says the same."""
    wait_for_words(watched, repr(panel), number)
    wanted = panel._view.plotly(panel.data, panel.place)
    drawn = plot(watched, number).evaluate(DRAWN)
    assert [curve["name"] for curve in drawn] == [trace.name for trace in wanted.data]
    for curve, trace in zip(drawn, wanted.data, strict=True):
        assert (curve["x"], curve["y"]) == (list(trace.x), list(trace.y))


def choose(watched, name, *keys, number=0):
    root(watched, number).get_by_role("combobox", name=name).focus()
    for key in keys:
        watched.page.keyboard.press(key)


def serious_complaints(watched) -> list:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(watched.page, context=".rx-root").response["violations"]
    return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in SERIOUS]


def test_what_is_drawn_is_what_the_sentence_says(live, here):
    assert_drawn_is_what_the_panel_says(live, explore_speed(FILE))
    assert root(live).locator("img").count() == 0 or not root(live).locator("img").is_visible()


def test_a_key_changes_what_is_drawn_in_the_same_chart_and_zoom_and_focus_stay(live, here):
    box = plot(live).locator(".nsewdrag").first.bounding_box()
    at = [(box["x"] + share * box["width"], box["y"] + 0.5 * box["height"]) for share in (0.2, 0.8)]
    live.page.mouse.move(*at[0])
    live.page.mouse.down()
    live.page.mouse.move(*at[1], steps=5)
    live.page.mouse.up()
    zoomed = plot(live).evaluate("plot => plot.layout.xaxis.range")
    assert zoomed != pytest.approx(list(explore_speed(FILE).chart.layout.xaxis.range), abs=0.1)
    plot(live).evaluate("plot => { plot.marked = plot.querySelector('.main-svg').marked = true; }")
    choose(live, "rounds", "ArrowDown")
    assert_drawn_is_what_the_panel_says(live, explore_speed(FILE, n_hashes=8))
    choose(live, "pass", "ArrowDown")
    panel = explore_speed(FILE, n_hashes=8, backward=False)
    assert_drawn_is_what_the_panel_says(live, panel)
    assert plot(live).evaluate("plot => plot.marked && plot.querySelector('.main-svg').marked")
    assert plot(live).evaluate("plot => plot.layout.xaxis.range") == pytest.approx(zoomed)
    focused = root(live).get_by_role("combobox", name="pass")
    assert focused.evaluate("select => select === document.activeElement")


def test_the_data_table_and_the_code_are_those_of_the_panel(live, here):
    panel = explore_speed(FILE, n_hashes=8, backward=False)
    root(live).locator("summary").click()
    live.page.wait_for_selector(".rx-table td")
    rows = root(live).locator(".rx-table tr").all()
    said = [row.locator("td, th").all_inner_texts() for row in rows]
    assert said == rows_of(panel._view.plotly(panel.data, {}))
    root(live).locator("summary").click()
    root(live).get_by_role("button", name="copy as code").click()
    assert root(live).locator("code").inner_text() == panel.code


def test_the_chart_can_be_sent_nowhere(live):
    plot(live).hover()
    names = (
        plot(live)
        .locator(".modebar-btn")
        .evaluate_all(
            "buttons => buttons.map(b => b.dataset.title ?? b.getAttribute('aria-label'))"
        )
    )
    assert len(names) > 3
    assert not [name for name in names if name and ("hare" in name or "loud" in name)]
    assert plot(live).locator(".plotlyjsicon, .modebar-btn--logo").count() == 0


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_the_chart_follows_the_theme_and_axe_finds_nothing_serious(live, theme):
    live.command("apputils:change-theme", theme=theme)
    dark = theme == "JupyterLab Dark"
    live.page.wait_for_selector(
        f'body[data-jp-theme-light="{str(not dark).lower()}"]', state="attached"
    )
    live.page.wait_for_function(
        """dark => [...document.querySelectorAll('.rx-root .xtick text')].every(text => {
          const [r, g, b] = getComputedStyle(text).fill.match(/[\\d.]+/g).map(Number);
          return (r + g + b > 384) === dark;
        })""",
        arg=dark,
    )
    assert serious_complaints(live) == []


def test_scenes_play_and_the_controls_follow(live, here):
    wanted = [explore_speed(FILE, n_hashes=1) for _ in SCENES]
    for panel, (state, _) in zip(wanted, SCENES, strict=True):
        panel.state = state
    group = root(live, 1).get_by_role("group", name="scenes")
    group.get_by_role("button", name="next scene").focus()
    live.page.keyboard.press("ArrowRight")
    wait_for_words(live, "Scene 2 of 3: Two rounds. " + repr(wanted[1]), number=1)
    live.page.keyboard.press("PageDown")
    assert "Memory" in group.inner_text()
    rounds = root(live, 1).get_by_role("combobox", name="rounds")
    live.page.wait_for_function("select => select.value === '8'", arg=rounds.element_handle())
    live.page.wait_for_function(
        "plot => plot.layout.annotations[0].text.includes('8 rounds')",
        arg=plot(live, 1).element_handle(),
    )
    assert_drawn_is_what_the_panel_says(live, wanted[2], number=1)
    live.page.keyboard.press("ArrowLeft")
    live.page.keyboard.press("ArrowLeft")
    live.page.wait_for_function("select => select.value === '1'", arg=rounds.element_handle())
    wait_for_words(live, "Scene 1 of 3: One round", number=1)
    live.page.wait_for_function(
        "plot => plot.layout.annotations[0].text.includes('1 round')",
        arg=plot(live, 1).element_handle(),
    )
    assert_drawn_is_what_the_panel_says(live, wanted[0], number=1)


def test_nothing_failed_and_nobody_else_was_asked(live, folder):
    assert live.errors == []
    assert live.foreign == []
    assert tracebacks(folder) == []


# ---------------------------------------------------------------- saved, and opened again


@pytest.fixture(scope="module")
def saved(live, folder, lab):
    """The notebook as JupyterLab saved it, after its kernel has been shut down."""
    live.command("docmanager:save")
    live.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    live.page.goto("about:blank")
    with urllib.request.urlopen(f"{lab}/api/sessions") as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{lab}/api/sessions/{session['id']}", method="DELETE")
        urllib.request.urlopen(request).close()
    return nbformat.read(folder / NAME, as_version=4)


def test_a_saved_notebook_holds_plain_outputs_and_no_widget(saved, here, folder):
    for cell in saved.cells:
        [output] = cell.outputs
        assert sorted(output.data) == ["text/html", "text/plain"]
    panel, output = explore_speed(FILE), saved.cells[0].outputs[0]
    assert output.data["text/plain"] == repr(panel)
    key = output.data["text/html"].split('data-rx="')[1].split('"')[0]
    assert output.data["text/html"] == panel._html().replace(panel._key, key)
    assert "widgets" not in saved.metadata
    assert (folder / NAME).stat().st_size < 200_000


def test_opened_without_a_kernel_it_shows_the_picture_and_says_what_to_do(saved, watch, lab, here):
    again = watch(viewport={"width": 1200, "height": 2000})
    again.open_notebook(lab, NAME)
    again.shut_down_kernel()
    assert_shows_the_picture(again)
    root(again).locator(".rx-controls").get_by_text("the notebook changes these").wait_for()
    root(again, 1).get_by_role("button", name="next scene").click()
    wait_for_words(again, "Scene 2 of 3", number=1)
    assert root(again, 1).locator("img").get_attribute("alt") == repr(
        explore_speed(FILE, n_hashes=2)
    )
    assert "model not found" not in again.page.locator(".jp-Notebook").inner_text()
    assert (again.errors, again.foreign) == ([], [])
    again.context.close()


def test_untrusted_it_shows_the_picture(saved, watch, lab, folder, here):
    saved.cells[0].outputs[0].data["text/plain"] += " "
    nbformat.write(saved, folder / "foreign-chart.ipynb")
    stranger = watch(viewport={"width": 1200, "height": 2000})
    stranger.open_notebook(lab, "foreign-chart.ipynb")
    assert_shows_the_picture(stranger)
    assert "run the cell" in root(stranger).inner_text()
    assert (stranger.errors, stranger.foreign) == ([], [])
    stranger.context.close()


def assert_shows_the_picture(watched):
    picture = root(watched).locator("img")
    assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 100
    assert picture.get_attribute("alt") == repr(explore_speed(FILE))
    assert plot(watched).count() == 0


# ------------------------------------------------------------------------ exported


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_exported_chart_lives_from_disk_without_a_network(watch, tmp_path, here, scheme):
    panel = explore_speed(FILE)
    path = panel.save_html(tmp_path / "page.html")
    alone = watch(color_scheme=scheme, offline=True)
    alone.page.goto(path.as_uri())
    alone.page.wait_for_selector(PLOT.format(0) + " >> .main-svg", state="attached")
    assert_drawn_is_what_the_panel_says(alone, panel)
    root(alone).get_by_text("the notebook changes these").wait_for()
    assert serious_complaints(alone) == []
    assert alone.errors == []
    own = [url for url in alone.requests if not url.startswith(("data:", "blob:"))]
    assert own == [path.as_uri()]
    alone.context.close()


def test_an_exported_talk_plays_from_disk_by_a_clicker_s_keys(watch, tmp_path):
    talk = SceneList(explore_bucketing(), [({}, "Start"), ({"n_buckets": 4, "round": 1}, "Few")])
    alone = watch(offline=True)
    alone.page.goto(talk.save_html(tmp_path / "talk.html").as_uri())
    wait_for_words(alone, "Scene 1 of 2: Start. 64 tokens, 8 buckets")
    alone.page.keyboard.press("PageDown")
    wait_for_words(alone, "Scene 2 of 2: Few. 64 tokens, 4 buckets, 4 rounds, chunks of 8. Round 1")
    alone.page.keyboard.press("ArrowRight")  # there is nothing after the last
    alone.page.keyboard.press("ArrowLeft")
    wait_for_words(alone, "Scene 1 of 2: Start. 64 tokens, 8 buckets")
    assert serious_complaints(alone) == []
    assert alone.errors == []
    alone.context.close()


def test_an_exported_talk_of_charts_draws_every_scene(watch, tmp_path, here):
    talk = SceneList(explore_speed(FILE, n_hashes=1), SCENES)
    alone = watch(offline=True)
    alone.page.goto(talk.save_html(tmp_path / "talk.html").as_uri())
    alone.page.wait_for_selector(PLOT.format(0) + " >> .main-svg", state="attached")
    alone.page.keyboard.press("PageDown")
    assert_drawn_is_what_the_panel_says(alone, explore_speed(FILE, n_hashes=2))
    assert alone.errors == []
    alone.context.close()
