"""A run is shown while it goes on, in JupyterLab; finished, it is a film that needs no kernel."""

import nbformat
import pytest

from reformer_viz import explore_training, measure_training, watch_training
from reformer_viz.style import bucket_colours
from tests.benchmarks.explorers import training_of
from tests.viz.test_training import HOW, TASK, Recorder, new_model, train

pytestmark = pytest.mark.browser

CELLS = [
    """\
import time
import torch
from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.tasks import Duplicate
from reformer_viz import Recorder, explore_training, measure_training, watch_training

task = Duplicate(vocab_size=8, length=16)
torch.manual_seed(0)
config = ReformerConfig(
    vocab_size=8, d_model=16, n_layers=1, n_heads=2, attention=("lsh",), chunk_length=4,
    max_length=16,
)
model = ReformerLM(config)
watch = watch_training(Recorder(model, next(task.held_out(1)).tokens, at=range(0, 41, 4)))

def on_step(progress):  # after step 20, go on when the reader has chosen a token in the page
    watch(progress)
    until = time.monotonic() + 200
    while progress.latest.step == 20 and watch.panel.place["token"] is None:
        time.sleep(0.02)
        if time.monotonic() > until:
            raise TimeoutError("nobody chose a token")

run = train(model, task, TrainConfig(steps=40, batch_size=4), on_step=on_step)""",
    "explore_training(measure_training(run, watch.recorder))",
]

STATUS = "k => document.querySelectorAll('.rx-root')[k]?.querySelector('[role=status]')?.innerText"
PLACE = "() => ({...document.querySelector('.rx-root').__rx.place})"
# The colour in the middle of every cell of the film: [snapshot][column] = [r, g, b].
FILM = """number => {
  const root = document.querySelectorAll('.rx-root')[number];
  const canvas = root.querySelector('.rx-film');
  const pen = canvas.getContext('2d'), colour = ([x, y]) => [...pen.getImageData(x, y, 1, 1).data];
  return root.__rx.view.cells().map(row => row.map(cell => colour(cell).slice(0, 3)));
}"""


def wait_for_status(page, k, words):
    page.wait_for_function(f"([k, words]) => ({STATUS})(k)?.includes(words)", arg=[k, words])


@pytest.fixture(scope="module")
def finished():
    """The panel of a run that is over."""
    model = new_model()
    recorder = Recorder(model, next(TASK.held_out(1)).tokens, at=[0, 2, 4, 6])
    run = train(model, TASK, HOW, on_step=recorder)
    return explore_training(measure_training(run, recorder))


@pytest.fixture
def page(finished, watch_alone, tmp_path):
    """The finished run's page, exported, without a network."""
    alone, words = watch_alone(), at(finished)
    alone.page.goto(finished.save_html(tmp_path / "page.html").as_uri())
    alone.wait_for_status(words)
    yield alone
    assert alone.errors == []
    alone.context.close()


def at(panel, **place):
    """What the panel says at a place of its page."""
    panel.place = {"snapshot": None, "layer": 0, "head": 0, "round": 0, "token": None, **place}
    return repr(panel)


def choose(page, name, option):
    page.page.get_by_role("combobox", name=name, exact=True).select_option(option)


def run_all(live):
    """Run every cell; again if the notebook's kernel was not yet there to hear of it."""
    prompt = live.page.locator(".jp-InputArea-prompt").first
    for _ in range(10):
        live.command("runmenu:run-all")
        live.page.wait_for_timeout(4000)
        if prompt.inner_text().strip() != "[ ]:":
            return


def assert_is_what_every_live_view_stores(stored):
    """Nothing of the run, of its model or of the machine: strict nbval compares every byte."""
    panel = watch_training().panel
    key = stored["text/html"].split('data-rx="')[1].split('"')[0]
    assert stored["text/plain"] == repr(panel) == panel.problem
    assert stored["text/html"] == panel._html().replace(panel._key, key)


def test_a_run_is_shown_live_and_answers_while_its_cell_runs(watch, lab, folder):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "training.ipynb")
    live = watch()
    live.open_notebook(lab, "training.ipynb")
    run_all(live)
    wait_for_status(live.page, 0, "After step ")
    assert live.page.locator(".jp-InputPrompt", has_text="[*]").count() >= 1
    film = live.page.get_by_role("slider", name="token").first
    film.focus()
    live.page.keyboard.press("End")
    wait_for_status(live.page, 0, "After step 40")
    wait_for_status(live.page, 1, "After step 40")
    assert live.page.evaluate(PLACE)["token"] is not None
    live.command("docmanager:save")
    live.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    stored = nbformat.read(folder / "training.ipynb", as_version=4)
    pages = [o.data for c in stored.cells for o in c.outputs if "text/html" in o.get("data", {})]
    assert_is_what_every_live_view_stores(pages[0])
    assert pages[1]["text/plain"].startswith("After step 40, layer 0, head 0, round 0: 16 of 16")
    assert len(pages) == 2
    live.save_and_leave(lab)
    assert (live.errors, live.foreign) == ([], [])
    live.context.close()
    assert_moves_without_a_kernel(watch, lab, pages[1]["text/plain"])


def assert_moves_without_a_kernel(watch, lab, words):
    """The finished run's own output is a film of which the reader can go to any snapshot."""
    again = watch()
    again.open_notebook(lab, "training.ipynb")
    again.shut_down_kernel()
    wait_for_status(again.page, 1, words)
    before = again.page.evaluate(FILM, 1)
    assert len(before) == 11
    again.page.get_by_role("slider", name="token").last.focus()
    again.page.keyboard.press("ArrowUp")
    wait_for_status(again.page, 1, "After step 36, layer 0, head 0, round 0: ")
    again.page.locator(".rx-root").nth(1).get_by_role(
        "combobox", name="head", exact=True
    ).select_option("1")
    wait_for_status(again.page, 1, "After step 36, layer 0, head 1, round 0: ")
    assert again.page.evaluate(FILM, 1) != before
    assert (again.errors, again.foreign) == ([], [])
    again.context.close()


def test_scrubbing_says_and_draws_what_was_recorded(page, finished):
    film = page.page.get_by_role("slider", name="token")
    film.focus()
    for key in ("PageUp", "ArrowDown"):
        page.page.keyboard.press(key)
    page.wait_for_status(at(finished, snapshot=1))
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    recording = finished.data.recording
    token = int(recording.last_order(0, 0, 0)[1])
    page.wait_for_status(at(finished, snapshot=1, token=token))
    assert page.page.evaluate(PLACE)["token"] == token
    page.page.keyboard.press("Escape")
    choose(page, "round", "1")
    choose(page, "layer", "1")
    choose(page, "head", "1")
    page.wait_for_status(at(finished, snapshot=1, layer=1, head=1, round=1))
    order = recording.last_order(1, 1, 1)
    colours = bucket_colours(recording.rule["n_buckets"])
    wanted = [
        [[int(colours[b][k : k + 2], 16) for k in (1, 3, 5)] for b in row[order]]
        for row in recording.buckets[:, 1, 1, 1]
    ]
    assert page.page.evaluate(FILM, 0) == wanted
    choose(page, "columns", "in reading order")
    reading = [
        [[int(colours[b][k : k + 2], 16) for k in (1, 3, 5)] for b in row]
        for row in recording.buckets[:, 1, 1, 1]
    ]
    assert page.page.evaluate(FILM, 0) == reading


def test_playing_goes_through_every_snapshot_and_stops_at_the_last(page):
    seen = page.page.evaluate(
        """async () => {
          const root = document.querySelector('.rx-root'), seen = new Set();
          root.querySelector('button').click();
          for (let k = 0; k < 200; k++) {
            seen.add(root.__rx.place.snapshot);
            if (seen.has(0) && root.__rx.place.snapshot === null) break;
            await new Promise(done => setTimeout(done, 30));
          }
          return [...seen];
        }"""
    )
    assert seen == [0, 1, 2, None]
    page.page.get_by_role("button", name="play").wait_for()


def test_pointing_shows_a_token_and_a_click_goes_to_its_snapshot(page, finished):
    page.page.wait_for_selector(".rx-film")
    box = page.page.locator(".rx-film").bounding_box()
    [x, y] = page.page.evaluate("() => document.querySelector('.rx-root').__rx.view.cells()[1][5]")
    page.page.mouse.move(box["x"] + x, box["y"] + y)
    token = int(finished.data.recording.last_order(0, 0, 0)[5])
    assert page.page.evaluate(PLACE)["token"] == token
    assert page.page.evaluate(PLACE)["snapshot"] is None
    page.page.mouse.down()
    page.page.mouse.up()
    page.page.mouse.move(box["x"] + x, box["y"] - 20)
    page.wait_for_status(at(finished, snapshot=1, token=token))


def test_the_data_table_has_a_row_for_every_snapshot(page, finished):
    page.page.locator("summary").click()
    rows = page.page.locator(".rx-table table").first.locator("tr")
    page.page.wait_for_selector(".rx-table td")
    assert rows.count() == 5
    tokens = page.page.locator(".rx-table table").nth(1).locator("tr")
    assert tokens.count() == 1 + len(finished.data.recording.tokens)
    heads = rows.nth(0).locator("th").all_inner_texts()
    last = dict(zip(heads, rows.nth(4).locator("td").all_inner_texts(), strict=True))
    recording = finished.data.recording
    assert last["step"] == "6"
    assert float(last["settled tokens"]) == len(recording.tokens)
    assert float(last["loss, training"]) == pytest.approx(finished.data.loss[-1], rel=0.01)
    row = recording.buckets[-1, 0, 0, 0].tolist()
    assert float(last["largest bucket"]) == max(row.count(bucket) for bucket in row)


def test_a_table_of_many_snapshots_scrolls_in_its_own_place(watch_alone, tmp_path):
    alone, panel = watch_alone(), explore_training(training_of(64))
    alone.page.goto(panel.save_html(tmp_path / "page.html").as_uri())
    alone.wait_for_status("After step")
    alone.page.locator("summary").click()
    alone.page.wait_for_selector(".rx-table td")
    width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert alone.page.evaluate(width) == 0
    alone.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(finished, watch_alone, tmp_path, scheme):
    from axe_playwright_python.sync_playwright import Axe

    alone = watch_alone(color_scheme=scheme)
    alone.page.goto(finished.save_html(tmp_path / "page.html").as_uri())
    alone.wait_for_status("After step")
    alone.page.locator("summary").click()
    found = Axe().run(alone.page, context=".rx-root").response["violations"]
    assert [v for v in found if v["impact"] in ("serious", "critical")] == []
    alone.context.close()


def test_a_run_without_a_probe_shows_its_curves(watch_alone, tmp_path):
    run = train(new_model(), TASK, HOW)
    panel = explore_training(measure_training(run))
    alone = watch_alone()
    alone.page.goto(panel.save_html(tmp_path / "page.html").as_uri())
    alone.wait_for_status(repr(panel))
    assert not alone.page.locator(".rx-film").is_visible()
    alone.page.locator("summary").click()
    alone.page.wait_for_selector(".rx-table td")
    assert alone.page.locator(".rx-table tr").count() == 4
    assert repr(panel) == panel.data.describe()
    assert alone.errors == []
    alone.context.close()
