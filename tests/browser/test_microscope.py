"""The microscope in a real JupyterLab: live, with weights that follow, saved, and exported."""

import json
import urllib.request

import nbformat
import numpy as np
import pytest

from reformer_viz import explore_model, style
from reformer_viz.measure.bucketing import ELSEWHERE, FOUND, SEEN
from reformer_viz.widgets.microscope import settle
from tests.browser.conftest import THEMES, tracebacks

pytestmark = pytest.mark.browser

CELL = """\
import torch
from reformer_core import ReformerConfig, ReformerLM
from reformer_viz import explore_model
torch.manual_seed(0)
model = ReformerLM(ReformerConfig(
    vocab_size=256, d_model=32, n_layers=3, n_heads=2, attention=("local", "lsh", "lsh"),
    n_hashes=4, n_buckets=8, chunk_length=8, max_length=512))
panel = explore_model(model, "She sells sea shells by the sea shore. " * 5)
panel"""
LONG = """\
import torch
from reformer_core import ReformerConfig, ReformerLM
from reformer_viz import explore_model
torch.manual_seed(0)
long = ReformerLM(ReformerConfig(vocab_size=256, d_model=32, n_layers=1, n_heads=1,
    n_hashes=2, n_buckets=2, chunk_length=64, max_length=4096))
panel = explore_model(long, "She sells sea shells by the sea shore. " * 104)
panel"""
NAMED = """\
import torch
from reformer_core import ReformerConfig, ReformerLM
from reformer_viz import explore_model
torch.manual_seed(0)
words = "the attention hashing looks at neighbourhoods of transformers".split()
model = ReformerLM(ReformerConfig(vocab_size=8, d_model=32, n_layers=1, n_heads=1,
    n_hashes=4, n_buckets=8, chunk_length=8, max_length=512))
panel = explore_model(model, torch.randint(0, 8, (100,)), decode=lambda n: words[n[0]])
panel"""
ANSWER = """() => {
  const { weights, waits, place } = document.querySelector('.rx-root').__rx.view.shown;
  return { token: place.token, waits, held: weights.most,
    found: weights.answer?.token === place.token ? [...weights.answer.found] : null };
}"""
EVIL = "<img src=x onerror=document.title=1>"
# The colour in the middle of every cell of the right square: [row][column] = [r, g, b, a].
MIDDLES = """() => {
  const root = document.querySelector('.rx-root'), canvas = root.querySelector('.rx-matrix');
  const { x, one, size } = root.__rx.view.squares(), n = Math.round(size / one);
  const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const middle = k => Math.floor((k + 0.45) * one), all = [...Array(n).keys()];
  return all.map(row => all.map(column => {
    const at = 4 * ((36 + middle(row)) * canvas.width + x + middle(column));
    return [...image.data.slice(at, at + 4)];
  }));
}"""
# Of the left square, in the chosen token's row: the colour in the middle of every key's cell, and
# how much ink is just above it.
ROW = """() => {
  const root = document.querySelector('.rx-root'), canvas = root.querySelector('.rx-matrix');
  const { view } = root.__rx, { size } = view.squares(), n = view.shown.buckets.length;
  const unit = size / n, y = Math.round(36 + (view.place.token + 0.5) * unit - 4.5);
  const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return [...Array(n).keys()].map(key => {
    const at = down => 4 * ((y + down) * canvas.width + Math.floor((key + 0.5) * unit));
    return { colour: [...image.data.slice(at(4), at(4) + 4)], bar: image.data[at(-3) + 3] };
  });
}"""
# Keeps every word that is drawn: on what, where, how wide it is and how wide it may be.
LISTEN = """
window.words = [];
const { fillText } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.fillText = function (said, x, y, most = Infinity) {
  const name = this.canvas.className, { width } = this.measureText(said);
  window.words.push({ name, said, x, y, width, most });
  fillText.call(this, said, x, y, most);
};
"""
# How many colours a token's cell has in the row that can be read: its own, and those of a letter.
COLOURS = """x => {
  const canvas = document.querySelector('.rx-text'), pixels = new Set();
  const { data } = canvas.getContext('2d').getImageData(x + 3, 80, 6, 16);
  for (let at = 0; at < data.length; at += 4) pixels.add(data.slice(at, at + 4).join());
  return pixels.size;
}"""
PLACE = "() => document.querySelector('.rx-root').__rx.place"
WEIGHTS = "() => document.querySelector('.rx-root').__rx.view.shown.weights?.version ?? null"
START = "() => document.querySelector('.rx-root').__rx.view.squares().start"


def like(**state):
    """Return an explorer in this process that shows the same."""
    names = {}
    exec(CELL, names)
    panel = names["panel"]
    for name, control in panel.controls.items():
        if name in state:
            control.value = state[name]
    panel.place = {name: state[name] for name in panel.place if name in state}
    return panel


@pytest.fixture(scope="module")
def live(watch, lab, folder):
    """A notebook with the explorer, running."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(CELL)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "microscope.ipynb")
    watched = watch()
    watched.open_notebook(lab, "microscope.ipynb")
    watched.command("notebook:run-all-cells")
    watched.page.wait_for_selector('.rx-root[data-link="on"] .rx-controls textarea')
    yield watched
    watched.context.close()


def keys(watched, *names):
    for name in names:
        watched.page.keyboard.press(name)


def slider(watched, name):
    return watched.page.locator(".rx-root").get_by_role("slider", name=name, exact=True)


def assert_drawn_is_what_core_computes(watched, panel):
    """Every cell of the detail has its bucket's colour exactly where core says that it is seen.

    With a chosen token its row alone has: the others are faint.
    """
    data, round, token = settle(panel.data, panel.place)
    start = watched.page.evaluate(START)
    tokens = data.order[round, start : start + 64]
    colours = [
        [int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in style.bucket_colours(data.n_buckets)
    ]
    wanted = np.array(colours)[data.buckets[round, tokens]]
    found = np.array(watched.page.evaluate(MIDDLES))
    filled = (found[..., :3] == wanted[:, None]).all(-1) & (found[..., 3] == 255)
    seen = data.kinds_among(round, tokens) == SEEN
    if token is None:
        assert seen.sum() > 50
    else:
        seen[tokens != token] = False
    assert np.array_equal(filled, seen)


def test_stepping_by_keyboard_lights_up_mates_and_says_who_and_with_what_weight(live):
    live.wait_for_status(repr(like()))
    slider(live, "token").focus()
    keys(live, "End", "ArrowLeft", "ArrowDown", "ArrowDown")
    panel = like(token=193, round=2)
    assert "most weight to token" in repr(panel)
    live.wait_for_status(repr(panel))
    assert_drawn_is_what_core_computes(live, panel)
    chips = live.page.locator(".rx-mates").inner_text()
    seen = np.flatnonzero(panel.data.kinds(2, 193) == SEEN)
    assert f"seen by round 2: {len(seen)}" in chips
    keys(live, "Escape")
    assert live.page.evaluate(PLACE)["token"] is None


def test_arrow_keys_in_sorted_order_step_from_slot_to_slot(live):
    slider(live, "token, by slot").focus()
    keys(live, "Home", "ArrowRight", "ArrowRight")
    assert live.page.evaluate(PLACE)["token"] == like().data.order[2, 2]
    assert live.page.locator(".jp-CodeCell").count() == 1
    keys(live, "Escape")


def test_another_head_comes_as_a_plan_first_and_weights_of_other_data_are_dropped(live):
    slider(live, "token").focus()
    keys(live, "End")
    before = live.page.evaluate(WEIGHTS)
    live.page.get_by_role("spinbutton", name="head").fill("1")
    keys(live, "Tab")
    live.wait_for_status(repr(like(head=1, token=194, round=2)))
    after = live.page.evaluate(WEIGHTS)
    assert after == before + 1
    stale = "() => document.querySelector('.rx-root').__rx.arrive({ version: 1 })"
    live.page.evaluate(stale)
    assert live.page.evaluate(WEIGHTS) == after


def test_while_weights_are_missing_the_plan_is_there_and_says_that_they_are_pending(live):
    pending = live.page.evaluate(
        """() => {
          const page = document.querySelector('.rx-root').__rx, { data } = page.view.shown;
          page.update({ ...data, version: 99 });
          const said = document.querySelector('.rx-say').innerText;
          page.arrive({ version: 98, counts: '', keys: '', halves: '' });
          return [said, page.view.shown.rows[0].range, page.view.shown.weights];
        }"""
    )
    words = like(head=1).data.describe(2, 194, weighed=False)
    assert pending[0] == words
    assert pending[1].startswith("weights pending")
    assert pending[2] is None


def test_typed_text_is_hashed_anew(live):
    live.page.locator(".rx-controls textarea").fill("By the sea shore she sells " + EVIL)
    panel = like(text="By the sea shore she sells " + EVIL, head=1, token=194, round=2)
    live.wait_for_status(repr(panel))
    assert len(panel.data.labels) == 63
    assert_drawn_is_what_core_computes(live, panel)
    assert live.page.title() != "1"
    live.page.locator(".rx-controls textarea").fill("")
    live.wait_for_status("a sequence needs at least 2 tokens, got 0")
    assert not live.page.locator(".rx-text").is_visible()
    live.page.locator(".rx-controls textarea").fill("She sells sea shells by the sea shore. " * 5)
    live.wait_for_status("Round 2: token 62")
    slider(live, "token").focus()
    keys(live, "End")
    live.wait_for_status(repr(like(head=1, token=194, round=2)))


def test_another_rule_is_answered_in_the_page_and_undone_by_a_button(live):
    slider(live, "chunk length").focus()
    keys(live, "ArrowLeft", "ArrowLeft")
    live.page.locator(".rx-root").get_by_label("window rule").select_option("sliding")
    slider(live, "rounds used").focus()
    keys(live, "ArrowLeft")
    panel = like(head=1, token=194, round=2, chunk_length=6, window="sliding", rounds=3)
    assert repr(panel).endswith("The model did otherwise, so nothing is said about weights.")
    live.wait_for_status(repr(panel))
    assert "%" not in live.page.locator(".rx-mates").inner_text()
    live.page.get_by_role("button", name="as the model did").click()
    live.wait_for_status(repr(like(head=1, token=194, round=2)))
    assert "%" in live.page.locator(".rx-mates").inner_text()


def test_pointing_lights_up_a_click_locks_and_the_overview_drags_the_detail(live):
    slider(live, "token").focus()
    keys(live, "Escape")
    box = live.page.locator(".rx-text").bounding_box()

    def at(x, y):
        return box["x"] + x, box["y"] + y

    mouse = live.page.mouse
    mouse.move(*at(300, 90))
    token = live.page.evaluate(PLACE)["token"]
    assert token is not None
    mouse.move(*at(300, -30))
    assert live.page.evaluate(PLACE)["token"] is None
    mouse.click(*at(300, 90))
    mouse.move(*at(300, -30))
    assert live.page.evaluate(PLACE)["token"] == token
    mouse.move(*at(2, 40))
    mouse.down()
    assert live.page.evaluate(PLACE)["token"] <= 1
    mouse.move(*at(box["width"] - 2, 40))
    assert live.page.evaluate(PLACE)["token"] >= 193
    mouse.up()
    mouse.move(*at(300, -30))
    assert live.page.evaluate(PLACE)["token"] >= 193
    live.page.locator(".rx-chip").first.click()
    assert live.page.evaluate(PLACE)["token"] < 193
    assert slider(live, "token").evaluate("canvas => canvas === document.activeElement")


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_in_either_theme(live, theme):
    live.use_theme(theme)
    live.page.locator(".rx-root summary").click()
    live.page.wait_for_selector(".rx-table td")
    assert live.page.locator(".rx-table tr").count() == 65
    assert live.serious() == []
    live.page.locator(".rx-root summary").click()


def test_nothing_failed_and_nobody_else_was_asked(live, folder):
    assert live.errors == []
    assert live.foreign == []
    assert tracebacks(folder) == []


def test_saved_and_opened_without_a_kernel_it_still_moves_and_weighs(live, watch, lab, folder):
    live.command("docmanager:save")
    live.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    live.page.goto("about:blank")
    with urllib.request.urlopen(f"{lab}/api/sessions") as answer:
        sessions = json.load(answer)
    for session in sessions:
        if session["path"] == "microscope.ipynb":
            address = f"{lab}/api/sessions/{session['id']}"
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()
    [output] = nbformat.read(folder / "microscope.ipynb", as_version=4).cells[0].outputs
    assert sorted(output.data) == ["text/html", "text/plain"]
    assert output.data["text/plain"] == repr(like())
    again = watch()
    again.open_notebook(lab, "microscope.ipynb")
    again.shut_down_kernel()
    again.wait_for_status(repr(like()))
    slider(again, "token").focus()
    keys(again, "End", "ArrowDown")
    again.wait_for_status(repr(like(token=194, round=1)))
    slider(again, "chunk length").focus()
    keys(again, "ArrowRight")
    again.wait_for_status(repr(like(token=194, round=1, chunk_length=9)))
    assert (again.errors, again.foreign) == ([], [])
    again.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_exported_page_moves_from_disk_without_a_network(watch, tmp_path, scheme):
    names = {}
    exec(CELL, names)
    panel = explore_model(names["model"], EVIL * 3)
    panel.place = {"token": 20}
    alone = watch(offline=True, color_scheme=scheme, viewport={"width": 800, "height": 1200})
    alone.page.goto(panel.save_html(tmp_path / "page.html").as_uri())
    alone.wait_for_status(repr(panel))
    assert_drawn_is_what_core_computes(alone, panel)
    slider(alone, "token").focus()
    keys(alone, "ArrowRight")
    panel.place = {"token": 21}
    alone.wait_for_status(repr(panel))
    assert alone.page.evaluate("() => document.documentElement.scrollWidth") <= 800
    wide = alone.page.locator(".rx-text").bounding_box()["width"] / 64
    assert all(alone.page.evaluate(COLOURS, round(k * wide)) > 3 for k in range(20, 26))
    assert alone.serious() == []
    slider(alone, "token").focus()
    keys(alone, "Escape")
    panel.place = {"token": None}
    alone.wait_for_status(repr(panel))
    assert_drawn_is_what_core_computes(alone, panel)
    assert alone.page.title() != "1"
    assert alone.page.locator(".rx-root img").count() == 0
    assert alone.errors == []
    alone.context.close()


@pytest.fixture
def alone(watch_alone):
    """Make a page of so many pixels, which keeps the words that it draws, show an explorer."""
    opened = []

    def show(panel, tmp_path, width):
        watched = watch_alone(viewport={"width": width, "height": 1200})
        opened.append(watched)
        watched.context.add_init_script(LISTEN)
        watched.page.goto(panel.save_html(tmp_path / "page.html").as_uri())
        watched.wait_for_status(repr(panel))
        return watched

    yield show
    for watched in opened:
        assert watched.errors == []
        watched.context.close()


def words_on(watched, canvas):
    """Return the words on a canvas, each once however often it was drawn."""
    drawn = watched.page.evaluate("() => window.words")
    return list({(w["x"], w["y"]): w for w in drawn if w["name"] == canvas}.values())


def run(cell):
    names = {}
    exec(cell, names)
    return names["panel"]


def test_the_chosen_token_s_row_lights_up_among_all_pairs_with_its_weights(alone, tmp_path):
    panel = run(CELL)
    panel.state = {"text": "She sells sea shells by the sea shore. " * 2, "token": 60, "round": 1}
    row = alone(panel, tmp_path, 800).page.evaluate(ROW)
    kinds = panel.data.kinds(1, 60)
    accent = [int(style.PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
    seen = [cell["colour"] == [*accent, 255] for cell in row]
    assert np.array_equal(seen, kinds == SEEN)
    inked = [cell["colour"][:3] == [0, 0, 0] and cell["colour"][3] > 100 for cell in row]
    assert np.array_equal(inked, (kinds == FOUND) | (kinds == ELSEWHERE))
    given = dict(panel.data.weights.heaviest(60, 200))
    assert np.array_equal([cell["bar"] > 110 for cell in row], [k in given for k in range(78)])


def test_long_names_are_drawn_of_fewer_tokens_and_shortened_not_squeezed(alone, tmp_path):
    named = words_on(alone(run(NAMED), tmp_path, 800), "rx-text")
    names = [word["said"] for word in named if word["y"] == 87]
    assert 10 < len(names) < 30
    assert {"neighbo…", "the"} <= set(names)
    letters = words_on(alone(run(CELL), tmp_path, 800), "rx-text")
    assert sum(word["y"] == 87 for word in letters) == 64
    for word in [*named, *letters]:
        assert word["width"] <= 1.25 * word["most"] + 0.1


def test_on_a_narrow_page_no_words_overlap_and_every_mate_has_one_line(alone, tmp_path):
    panel = run(NAMED)
    panel.place = {"token": 90}
    watched = alone(panel, tmp_path, 480)
    words = words_on(watched, "rx-matrix")
    right = max(word["x"] for word in words)
    left = [word for word in words if word["x"] == 0]
    assert len(left) == 2
    assert all(min(word["width"], word["most"]) < right for word in left)
    chips = watched.page.locator(".rx-chip").evaluate_all("all => all.map(c => c.offsetHeight)")
    assert len(chips) > 5
    assert max(chips) < 24
    assert watched.page.evaluate("() => document.documentElement.scrollWidth") <= 480


def test_a_long_text_asks_for_all_weights_of_the_token_one_rests_on(watch, lab, folder):
    names = {}
    exec(LONG, names)
    weights = names["panel"].data.weights
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(LONG)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "long.ipynb")
    watched = watch()
    watched.open_notebook(lab, "long.ipynb")
    watched.command("notebook:run-all-cells")
    watched.page.wait_for_selector('.rx-root[data-link="on"] .rx-controls textarea')
    watched.page.wait_for_function(f"() => ({WEIGHTS})() !== null")
    slider(watched, "token").focus()
    for pressed in (["End"], ["ArrowLeft"], ["ArrowRight"]):  # and back again
        keys(watched, *pressed)
        watched.page.wait_for_function(f"() => ({ANSWER})().found !== null")
        answer = watched.page.evaluate(ANSWER)
        wanted = weights.heaviest(answer["token"], 200)
        assert [tuple(pair) for pair in answer["found"]] == wanted
        assert len(wanted) > answer["held"]
        assert not answer["waits"]
    assert (watched.errors, watched.foreign) == ([], [])
    watched.context.close()
