"""The explorers' benchmark moves everything that can be moved, and its table says what it found."""

import json
from itertools import islice, pairwise
from pathlib import Path

import ipywidgets
import pytest

import reformer_viz
from tests.benchmarks import explorers, readme, views, views_table, views_worker
from tests.benchmarks.explorers import EXPLORERS
from tests.benchmarks.record import write

# ------------------------------------------------------------------------------ what is timed


def test_every_explorer_is_timed():
    made = {name for name in reformer_viz.__all__ if name.startswith("explore_")}
    assert {f"explore_{key}" for key in EXPLORERS} == made


@pytest.mark.parametrize(
    "key", ["bucketing", "bucket_load", "sparsity", "recall", "memory", "model"]
)
def test_the_greatest_length_is_the_last_one_that_an_explorer_draws(key):
    panel = EXPLORERS[key].make(EXPLORERS[key].most + 1)
    assert "at most" in panel.problem


def test_the_run_that_is_made_up_settles_and_fits_into_a_page():
    training = explorers.training_of(64)
    buckets = training.recording.buckets
    moved = (buckets[1:] != buckets[:-1]).mean((1, 2, 3, 4))
    assert moved[0] > 0.8
    assert moved[-1] == 0
    assert reformer_viz.explore_training(training).problem is None


@pytest.mark.parametrize(
    "control",
    [
        ipywidgets.IntSlider(value=3, min=1, max=5, step=2),
        ipywidgets.FloatSlider(value=0.25, min=0.0, max=0.5, step=0.05),
        ipywidgets.Dropdown(options=[("one", 1), ("two", 2), ("three", 3)], value=2),
        ipywidgets.BoundedIntText(value=1, min=0, max=2),
        ipywidgets.Textarea(value="She sells sea shells by the sea shore."),
    ],
    ids=lambda control: type(control).__name__,
)
def test_every_move_takes_a_control_somewhere_else_and_to_a_place_that_it_has(control):
    values = list(islice(views_worker.other_values(control), 30))
    for before, after in pairwise([control.value, *values]):
        assert before != after
    for value in values:
        control.value = value
        assert control.value == (pytest.approx(value) if isinstance(value, float) else value)


def test_a_control_that_nobody_can_move_is_named():
    with pytest.raises(ValueError, match="Checkbox is a control that nobody here can move"):
        views_worker.other_values(ipywidgets.Checkbox())


def test_a_worker_times_every_control_and_leaves_it_where_it_was(monkeypatch):
    monkeypatch.setattr(views_worker, "MOST_MOVES", 2)
    panel = EXPLORERS["bucket_load"].make(64)
    before = panel.state
    found = dict(views_worker.moves_of(panel))
    named = [name for name in panel.controls if name != "new_rotations"]
    assert list(found) == [*named, "a picture without Plotly"]
    assert panel.state == before
    for times in found.values():
        assert len(times["seconds"]) == len(times["cpu_seconds"]) == 2
        assert min(times["seconds"]) > 0


def test_a_worker_s_end_is_a_reason_and_not_a_number(monkeypatch):
    monkeypatch.setattr(views, "_PATIENCE_S", 60)
    [found] = views.worker("figure", "plot_nothing", 64)
    assert "ended with exit code 1: KeyError: 'plot_nothing'" in found["skipped"]


def test_what_is_measured_later_stands_where_it_belongs(monkeypatch, tmp_path):
    monkeypatch.setattr(views, "RESULTS", tmp_path)
    monkeypatch.setattr(
        views,
        "runs",
        lambda asked: [
            {"part": part, "view": view, "length": 64, "seconds": 1.0}
            for view in asked.only
            for part in asked.parts
        ],
    )
    for names in (["recall", "bucketing"], ["leak"]):
        views.main(["--parts", "display", "controls", "--only", *names])
    record = json.loads((tmp_path / "views.json").read_text())
    assert [(run["part"], run["view"]) for run in record["runs"]] == [
        (part, view) for part in ("controls", "display") for view in ("bucketing", "leak", "recall")
    ]


# ----------------------------------------------------------------------------------- the table


@pytest.fixture
def made(tmp_path) -> Path:
    """A file of made-up results of two explorers and a figure."""

    def run(part, view, length, seconds, control="", **more):
        said = {"part": part, "view": view, "length": length, "seconds": seconds, **more}
        return said | ({"control": control} if control else {})

    display = {"page_bytes": 2_500_000, "peak_bytes": 2**29}
    record = {
        "schema": 1,
        "date": "2026-01-02",
        "machine": {"cpu": "A processor", "cores": 2},
        "versions": dict.fromkeys(("plotly", "ipywidgets", "jupyterlab", "commit"), "1.2")
        | {"browser": "Chromium 1"},
        "settings": {"lengths": [1024, 16384], "on_screen": 1024},
        "runs": [
            run("controls", "some", 1024, [0.01, 0.03, 0.02], "noise"),
            run("controls", "some", 1024, [0.04, 0.004, 0.004], "head"),
            run("controls", "some", 1024, [9.0], "a picture without Plotly"),
            run("controls", "some", 16384, [0.31], "noise"),
            run("controls", "flat", 0, [0.05], "angle"),
            run("display", "some", 1024, 0.1, **display),
            run("display", "some", 16384, 12.0, page_bytes=3_000_000, peak_bytes=2**30),
            run("display", "flat", 0, 0.3, **display),
            run("page", "some", 1024, [0.06], "round"),
            run("lab", "flat", 1024, [0.3, 0.1, 0.26], "angle"),
            run("figures", "plot_some", 4096, 1.0, peak_bytes=2**28),
            run("figures", "plot_some", 8192, 2.0, peak_bytes=2**29),
        ],
    }
    write(record, tmp_path / "views.json")
    return tmp_path / "views.json"


def rows(table: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: cells for name, *cells in lines if not name.startswith("--")}


def test_a_row_says_the_median_of_the_slowest_control_bold_above_its_limit_and_the_greatest_length(
    made,
):
    found = rows(views_table.explorers_table(json.loads(made.read_text())))
    some = ["20 ms (noise)", "**310 ms (noise)**", "60 ms (round)", "-"]
    assert found["`explore_some`"] == [*some, "2.50 MB", "16,384", "12.0 s", "1 GiB"]
    flat = ["50 ms (angle)", "-", "-", "**260 ms (angle)**"]
    assert found["`explore_flat`"] == [*flat, "2.50 MB", "-", "300 ms", "512 MiB"]


def test_the_words_say_machine_versions_and_what_figures_draw(made):
    said = views_table.section(made)
    limits = "The limits are 100 ms and 300 ms in the kernel and 250 ms on the screen"
    machine = "A processor, 2 cores; plotly 1.2", "Chromium 1; commit 1.2", "2026-01-02"
    for words in (*machine, limits):
        assert words in said
    assert "`plot_some` 8,192 tokens in 2,000 ms and 512 MiB." in said


def test_the_readme_says_what_the_results_on_explorers_say():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.explorers_section() in text
    assert readme.with_section(text, "explorers", readme.explorers_section()) == text


def test_every_part_of_the_committed_results_is_there():
    record = json.loads((readme.RESULTS / "views.json").read_text())
    assert {run["part"] for run in record["runs"]} == set(views.PARTS)
    assert {run["view"] for run in record["runs"] if run["part"] == "display"} == set(EXPLORERS)
