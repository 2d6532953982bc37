"""Charts in a real JupyterLab: moved by keys, saved together, opened again without a kernel."""

import re

import nbformat
import numpy as np
import pytest
import torch

import reformer_core
import reformer_viz
from reformer_core import hash_vectors
from reformer_viz import explore_bucketing
from reformer_viz.widgets.panel import Panel

pytestmark = pytest.mark.browser

NAME = "charts.ipynb"
IMPORTS = "from reformer_core import *\nfrom reformer_viz import *\n"
SIZES = "vocab_size=11, d_model=16, n_heads=2, chunk_length=8, max_length=64"
# The call that a cell shows; the slider that keys move, with the keys; and where that leads.
CALLS = {
    "geometry": "explore_geometry(n_points=24)",
    "load": "explore_bucket_load(n_tokens=256, n_buckets=16, n_hashes=2)",
    "recall": "explore_recall(n_buckets=8, top_k=4, n_hashes=(1, 2))",
    "memory": f'explore_memory(ReformerConfig({SIZES}), kind="reversible", n_layers=1, length=32)',
}
MOVES = {
    "geometry": ("angle", ["ArrowRight"] * 5, {"angle": 35}),
    "load": ("rounds", ["ArrowRight"], {"n_hashes": 3}),
    "recall": ("rotations", ["ArrowRight"], {"rotations": 1}),
    "memory": ("layers", ["ArrowRight"], {"n_layers": 2}),
}
RUN = f"""\
import torch
from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.tasks import Duplicate
from reformer_viz import Recorder, explore_training, measure_training
task = Duplicate(vocab_size=11, length=16)
torch.manual_seed(0)
model = ReformerLM(ReformerConfig({SIZES}, n_layers=1, attention=("lsh",)))
recorder = Recorder(model, next(task.held_out(1)).tokens, at=range(5))
run = train(model, task, TrainConfig(steps=4, batch_size=2), on_step=recorder)
panel = explore_training(measure_training(run, recorder))
panel"""
LONG = 200_000  # ms: Torch and Plotly are imported, and five megabytes are sent for every chart

PLOT = ".rx-root >> nth={} >> .rx-chart .js-plotly-plot"
DRAWN = """plot => plot._fullData.map(({ name, ...all }) => ({ name, ...Object.fromEntries(
  ['x', 'y', 'z', 'customdata'].map(part => [part, [...(all[part] ?? [])]])) }))"""
RANGES = "plot => ['xaxis', 'yaxis'].map(name => [...plot._fullLayout[name].range])"
FOCUSED = "node => node === document.activeElement"


def like(name: str, **moved) -> Panel:
    """Return an explorer in this process that was called and moved alike."""
    panel = eval(CALLS[name], vars(reformer_core) | vars(reformer_viz))
    for control, value in moved.items():
        panel.controls[control].value = value
    return panel


def root(watched, name: str):
    return watched.page.locator(".rx-root").nth(list(CALLS).index(name))


def plot(watched, name: str):
    return watched.page.locator(PLOT.format(list(CALLS).index(name)))


def slider(watched, name: str, label: str):
    return root(watched, name).get_by_role("slider", name=label, exact=True)


def eventually(watched, check, *args) -> None:
    """Let the page go on until a check passes; sentence and chart come in messages of their own."""
    for _ in range(300):
        try:
            return check(watched, *args)
        except AssertionError:
            watched.page.wait_for_timeout(200)
    return check(watched, *args)


def numbers(values: object) -> np.ndarray:
    """None in a page is a gap here."""
    return np.array([] if values is None else list(values), dtype=float)


def assert_drawn_and_said(watched, name: str, panel: Panel) -> None:
    """Every point in the page is one of a panel in this process, which says the same."""
    assert repr(panel) in root(watched, name).locator("[role=status]").inner_text()
    drawn = plot(watched, name).evaluate(DRAWN)
    wanted = panel._view.plotly(panel.data, panel.place).data
    assert [curve["name"] for curve in drawn] == [trace.name for trace in wanted]
    for curve, trace in zip(drawn, wanted, strict=True):
        for axis in "xyz":
            values = getattr(trace, axis, None)
            if values is not None and isinstance(values[0], str):
                assert curve[axis] == list(values)
            else:
                np.testing.assert_allclose(numbers(curve[axis]), numbers(values), rtol=1e-6)


def drawn_of(watched, name: str, trace: str) -> dict:
    [found] = [curve for curve in plot(watched, name).evaluate(DRAWN) if curve["name"] == trace]
    return found


@pytest.fixture(scope="module")
def live(watch, lab, folder):
    """The notebook, running, with every chart alive."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    sources = [f"{IMPORTS if k == 0 else ''}{call}" for k, call in enumerate(CALLS.values())]
    cells = [nbformat.v4.new_code_cell(source) for source in [*sources, RUN]]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / NAME)
    watched = watch(viewport={"width": 1200, "height": 3600})
    watched.open_notebook(lab, NAME)
    watched.command("notebook:run-all-cells")
    for number in range(len(CALLS)):
        chart = PLOT.format(number) + " >> .main-svg >> nth=0"
        watched.page.wait_for_selector(chart, state="attached", timeout=LONG)
    watched.page.wait_for_selector(".rx-root .rx-film", timeout=LONG)
    yield watched
    watched.context.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_key_changes_what_is_drawn_and_said_and_the_focus_stays(live, name):
    eventually(live, assert_drawn_and_said, name, like(name))
    label, keys, moved = MOVES[name]
    handle = slider(live, name, label)
    handle.focus()
    for key in keys:
        live.page.keyboard.press(key)
    panel = like(name, **moved)
    assert repr(panel) != repr(like(name))
    eventually(live, assert_drawn_and_said, name, panel)
    assert handle.evaluate(FOCUSED)


def test_every_vector_on_the_sphere_has_the_bucket_that_core_gives_it(live):
    geometry = like("geometry").data.geometry
    drawn = drawn_of(live, "geometry", "vectors")
    vectors = torch.tensor([drawn[axis] for axis in "xyz"], dtype=torch.float64).T
    half = torch.from_numpy(geometry.directions[: geometry.n_buckets // 2]).double()
    buckets = hash_vectors(vectors[None, None].contiguous(), half.T[None, None].contiguous())
    assert buckets[0, 0, 0].tolist() == drawn["customdata"] == geometry.buckets.tolist()
    assert len(vectors) == 24


def test_every_bucket_stands_where_its_size_is(live):
    """Against the sizes that the plan of another explorer has, whose rule is the same."""
    panel = explore_bucketing(n_tokens=256, n_buckets=16, n_hashes=3, chunk_length=32)
    sizes = panel.data.sizes.ravel()
    drawn = drawn_of(live, "load", "a bucket's loss")
    assert sorted(drawn["x"]) == sorted(sizes[sizes > 1].tolist())
    assert sum(drawn_of(live, "load", "buckets")["y"]) == 3 * 16
    said = root(live, "load").locator("[role=status]").inner_text()
    assert re.search(rf"\b{sizes.max()}\b", said), said


def test_zoom_into_the_film_stays_and_another_picture_is_whole(live):
    chart, handle = plot(live, "memory"), slider(live, "memory", "layers")
    box = chart.locator(".nsewdrag").first.bounding_box()
    for move, share in ((live.page.mouse.down, 0.3), (live.page.mouse.up, 0.7)):
        at = (box["x"] + share * box["width"], box["y"] + share * box["height"])
        live.page.mouse.move(*at, steps=5)
        move()
    whole, zoomed = like("memory", n_layers=2), chart.evaluate(RANGES)
    assert zoomed[0][1] - zoomed[0][0] < 0.6 * len(whole.data.films[0].live)
    handle.focus()
    live.page.keyboard.press("ArrowRight")
    eventually(live, assert_drawn_and_said, "memory", like("memory", n_layers=3))
    np.testing.assert_allclose(chart.evaluate(RANGES), zoomed)
    show = root(live, "memory").get_by_role("combobox", name="show", exact=True)
    show.focus()
    live.page.keyboard.press("ArrowDown")
    panel = like("memory", n_layers=3, show="depths")
    eventually(live, assert_drawn_and_said, "memory", panel)
    assert show.evaluate(FOCUSED)
    (left, right), (low, high) = chart.evaluate(RANGES)
    for curve in panel._view.plotly(panel.data, {}).data:
        if curve.xaxis in (None, "x"):
            assert left <= min(curve.x) <= max(curve.x) <= right
            assert low <= min(curve.y) <= max(curve.y) <= high


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_axe_finds_nothing_serious_in_either_theme(live, theme):
    live.command("apputils:change-theme", theme=theme)
    light = str(theme == "JupyterLab Light").lower()
    live.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
    for summary in live.page.locator(".rx-root summary").all():
        summary.click()
    live.page.wait_for_selector(".rx-table td")
    assert live.serious() == []
    for summary in live.page.locator(".rx-root summary").all():
        summary.click()


def test_saved_and_opened_without_a_kernel_it_shows_pictures_and_the_run_still_moves(
    live, watch, lab, folder
):
    assert (live.errors, live.foreign) == ([], [])
    live.save_and_leave(lab)
    cells = nbformat.read(folder / NAME, as_version=4).cells
    panels = {name: like(name) for name in CALLS}
    for cell, panel in zip(cells, panels.values(), strict=False):
        [output] = cell.outputs
        assert sorted(output.data) == ["text/html", "text/plain"]
        assert output.data["text/plain"] == repr(panel)
    again = watch(viewport={"width": 1200, "height": 3600})
    again.open_notebook(lab, NAME)
    again.shut_down_kernel()
    for name, panel in panels.items():
        picture = root(again, name).locator("img")
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 100
        assert picture.get_attribute("alt") == repr(panel)
    film = again.page.get_by_role("slider", name="token", exact=True)
    film.focus()
    again.page.keyboard.press("Home")
    words = film.get_attribute("aria-valuetext")
    again.page.keyboard.press("ArrowRight")
    assert film.get_attribute("aria-valuetext") != words
    assert film.evaluate(FOCUSED)
    assert "model not found" not in again.page.locator(".jp-Notebook").inner_text()
    assert (again.errors, again.foreign) == ([], [])
    assert "Traceback" not in (folder / "lab.log").read_text()
    again.context.close()
