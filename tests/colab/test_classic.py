"""Every explorer on the versions that Colab has: in classic Notebook, moved by the keyboard."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat
import pytest

from reformer_viz.style import bucket_colours
from reformer_viz.widgets.panel import Panel
from tests.browser import test_lab, test_memory, test_microscope, test_recall, test_sparsity
from tests.browser.test_charts import draws_every_trace

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "cpu.json"
PINS = [line for line in (HERE / "requirements.txt").read_text().splitlines() if "==" in line]
WIDGET = "application/vnd.jupyter.widget-view+json"
PATIENCE = 60  # seconds, for what is drawn to follow what is said


def is_classic() -> bool:
    try:
        return version("notebook").startswith("6.")
    except PackageNotFoundError:
        return False


if not is_classic():
    pytest.skip("needs what Colab has, which `make test-colab` installs", allow_module_level=True)


@pytest.mark.parametrize("pin", PINS)
def test_the_versions_are_colabs(pin):
    name, _, wanted = pin.partition("==")
    assert version(name) == wanted


# ------------------------------------------------------------------------------ what is drawn

Drawn = Callable[[object, Panel], None]

# Everything that is drawn: the pixels of a script's canvases, the lines and letters of a chart.
PICTURE = """() => [
  ...[...document.querySelectorAll('.rx-root canvas')].map(canvas => canvas.toDataURL()),
  ...[...document.querySelectorAll('.rx-root .main-svg')].map(svg => svg.innerHTML),
]"""
# The colour in the middle of every cell of the film: [snapshot][column] = [r, g, b].
FILM = """() => {
  const root = document.querySelector('.rx-root'), canvas = root.querySelector('.rx-film');
  const pen = canvas.getContext('2d'), colour = ([x, y]) => [...pen.getImageData(x, y, 1, 1).data];
  return root.__rx.view.cells().map(row => row.map(cell => colour(cell).slice(0, 3)));
}"""


def draws_every_snapshot(watched, panel: Panel) -> None:
    """Every cell of the film has the colour of the bucket that was recorded."""
    recording, place = panel.data.recording, panel.place
    layer, head, round = place["layer"], place["head"], place["round"]
    order = recording.last_order(layer, head, round)
    colours = bucket_colours(recording.rule["n_buckets"])
    rgb = [[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in colours]
    rows = recording.buckets[:, layer, head, round][:, order]
    assert watched.page.evaluate(FILM) == [[rgb[b] for b in row] for row in rows]


def wait_until_drawn(drawn: Drawn, watched, panel: Panel) -> None:
    """Wait for the picture, which may come after its sentence."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return drawn(watched, panel)
        except AssertionError:
            if time.monotonic() > until:
                raise
            watched.page.wait_for_timeout(250)


# ------------------------------------------------------------------------------- every explorer


@dataclass(frozen=True)
class Case:
    """An explorer's cell, a control of it, the keys for that and the state that they lead to."""

    cell: str
    role: str
    control: str
    keys: tuple[str, ...]
    moved: Mapping
    drawn: Drawn
    live: str = ".rx-root canvas"

    def panel(self, **moved) -> Panel:
        """Run the cell in this process, and move what it made."""
        names: dict = {}
        exec(self.cell, names)
        names["panel"].state = moved
        return names["panel"]


MODEL = """\
import torch
from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.tasks import Duplicate
from reformer_viz import Recorder, explore_training, measure_training, watch_training
task = Duplicate(vocab_size=8, length=16)
torch.manual_seed(0)
model = ReformerLM(ReformerConfig(
    vocab_size=8, d_model=16, n_layers=1, n_heads=2, attention=("lsh",), chunk_length=4,
    max_length=16))"""
TRAINING = f"""\
{MODEL}
recorder = Recorder(model, next(task.held_out(1)).tokens, at=(0, 2, 4, 6))
run = train(model, task, TrainConfig(steps=6, batch_size=4), on_step=recorder)
panel = explore_training(measure_training(run, recorder))
panel"""


def shows(function: str, arguments: str = "") -> str:
    return f"from reformer_viz import {function}\npanel = {function}({arguments})\npanel"


CHART = ".rx-root .js-plotly-plot .main-svg"
LEFT, RIGHT, DOWN = ("ArrowLeft",), ("ArrowRight",), ("ArrowDown",)
CASES = {
    "bucketing": Case(
        cell=shows("explore_bucketing"),
        role="slider",
        control="buckets",
        keys=LEFT * 2,
        moved={"n_buckets": 4},
        drawn=test_lab.assert_drawn_is_what_core_computes,
    ),
    "sparsity": Case(
        cell=test_sparsity.SOURCE,
        role="slider",
        control="buckets",
        keys=LEFT * 2,
        moved={"n_buckets": 4},
        drawn=test_sparsity.assert_drawn_is_what_core_computes,
    ),
    "model": Case(
        cell=test_microscope.CELL,
        role="spinbutton",
        control="head",
        keys=("ArrowUp",),
        moved={"head": 1},
        drawn=test_microscope.assert_drawn_is_what_core_computes,
    ),
    "training": Case(
        cell=TRAINING,
        role="slider",
        control="token",
        keys=("PageUp", "ArrowDown"),
        moved={"snapshot": 1},
        drawn=draws_every_snapshot,
    ),
    "recall": Case(
        cell=test_recall.CELL,
        role="slider",
        control="rotations",
        keys=RIGHT,
        moved={"rotations": 1},
        drawn=draws_every_trace,
        live=CHART,
    ),
    "memory": Case(
        cell=test_memory.CELL,
        role="slider",
        control="layers",
        keys=RIGHT,
        moved={"n_layers": 2},
        drawn=draws_every_trace,
        live=CHART,
    ),
    "speed": Case(
        cell=shows("explore_speed", repr(str(RESULTS))),
        role="combobox",
        control="rounds",
        keys=DOWN,
        moved={"n_hashes": 8},
        drawn=draws_every_trace,
        live=CHART,
    ),
    "geometry": Case(
        cell=shows("explore_geometry"),
        role="slider",
        control="angle",
        keys=RIGHT,
        moved={"angle": 31},
        drawn=draws_every_trace,
        live=CHART,
    ),
    "leak": Case(
        cell=shows("explore_leak"),
        role="slider",
        control="cut",
        keys=RIGHT,
        moved={"cut": 129},
        drawn=draws_every_trace,
        live=CHART,
    ),
    "bucket_load": Case(
        cell=shows("explore_bucket_load"),
        role="slider",
        control="buckets",
        keys=LEFT,
        moved={"n_buckets": 30},
        drawn=draws_every_trace,
        live=CHART,
    ),
}


@dataclass(frozen=True)
class Opened:
    """A case's notebook, which has run, and the panel that it showed first."""

    case: Case
    watched: object
    path: Path
    start: Panel


@pytest.fixture(scope="module", params=CASES)
def opened(request, notebook, shut_down):
    case = CASES[request.param]
    watched, path = notebook(request.param, case.cell)
    watched.run_all()
    watched.page.wait_for_selector(case.live, state="attached")
    yield Opened(case, watched, path, case.panel())
    watched.context.close()
    shut_down()


@pytest.mark.browser
def test_an_explorer_draws_and_says_what_core_computes(opened):
    opened.watched.wait_for_status(repr(opened.start))
    wait_until_drawn(opened.case.drawn, opened.watched, opened.start)
    assert opened.watched.page.locator(".rx-root .rx-picture").count() == 0


@pytest.mark.browser
def test_a_control_moved_by_the_keyboard_changes_what_is_drawn_said_and_computed(opened):
    case, watched = opened.case, opened.watched
    before = watched.page.evaluate(PICTURE)
    watched.page.locator(".rx-root").get_by_role(case.role, name=case.control, exact=True).focus()
    for key in case.keys:
        watched.page.keyboard.press(key)
    moved = case.panel(**case.moved)
    assert repr(moved) != repr(opened.start)
    watched.wait_for_status(repr(moved))
    wait_until_drawn(case.drawn, watched, moved)
    assert watched.page.evaluate(PICTURE) != before


@pytest.mark.browser
def test_axe_finds_nothing_serious(opened):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(opened.watched.page, context=".rx-root").response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in serious] == []


@pytest.mark.browser
def test_saved_and_opened_without_its_kernel_it_says_and_shows_the_same(opened, shut_down):
    case, watched = opened.case, opened.watched
    watched.save()
    written = nbformat.read(opened.path, as_version=4)
    assert "widgets" not in written.metadata
    [output] = written.cells[0].outputs
    assert sorted(output.data) == ["text/html", "text/plain"]
    assert output.data["text/plain"] == repr(opened.start)
    watched.page.goto("about:blank")
    shut_down()
    watched.open_notebook(opened.path.name)
    watched.wait_for_status(repr(opened.start))
    if case.live == CHART:
        picture = watched.page.locator(".rx-root .rx-chart img")
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 100
        assert picture.get_attribute("alt") == repr(opened.start)
    else:
        wait_until_drawn(case.drawn, watched, opened.start)


@pytest.mark.browser
def test_nothing_failed_and_nobody_else_was_asked(opened, server_log):
    assert opened.watched.failures == []
    assert opened.watched.errors == []
    assert opened.watched.foreign == []
    assert "Traceback" not in server_log()


# ------------------------------------------------------------------- what differs in Colab

LIVE = f"""\
{MODEL}
import time
recorder = Recorder(model, next(task.held_out(1)).tokens, at=range(0, 41, 4))
watch = watch_training(recorder)

def on_step(progress):
    watch(progress)
    time.sleep(0.1)

run = train(model, task, TrainConfig(steps=40, batch_size=4), on_step=on_step)"""
HOSTED = f"""\
import sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
{shows("explore_bucketing")}"""


@pytest.mark.browser
def test_a_run_is_shown_while_its_cell_runs_although_the_kernel_hears_nothing(
    notebook, shut_down, server_log
):
    watched, _ = notebook("live", LIVE)
    watched.run_all()
    watched.wait_for_status("After step ")
    assert watched.page.locator(".code_cell.running").count() == 1
    slider = watched.page.get_by_role("slider", name="token")
    slider.focus()
    watched.page.keyboard.press("Home")
    assert watched.page.evaluate("() => document.querySelector('.rx-root').__rx.place.token") >= 0
    watched.wait_for_status("After step 40")
    watched.wait_until_idle()
    assert (watched.failures, watched.errors, watched.foreign) == ([], [], [])
    assert "Traceback" not in server_log()
    watched.context.close()
    shut_down()


@pytest.mark.browser
def test_where_every_output_is_a_page_the_link_is_an_empty_output_of_its_own(
    notebook, shut_down, server_log
):
    case = CASES["bucketing"]
    watched, path = notebook("hosted", HOSTED)
    watched.run_all()
    watched.wait_for_status(repr(case.panel()))
    wait_until_drawn(case.drawn, watched, case.panel())
    watched.save()
    outputs = nbformat.read(path, as_version=4).cells[0].outputs
    assert len(outputs) == 2
    assert WIDGET in outputs[1].data
    assert watched.page.locator(".output_subarea").last.inner_text().strip() == ""
    # Old ipywidgets at times attaches a widget's output before its place is in the page: of an
    # output that is empty nothing is missed.
    errors = [error for error in watched.errors if error != "Host is not attached."]
    assert (watched.failures, errors, watched.foreign) == ([], [], [])
    assert "Traceback" not in server_log()
    watched.context.close()
    shut_down()
