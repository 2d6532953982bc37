"""Quality against depth: every point is a model that training by hand makes; a file keeps all."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.tasks import Duplicate, TextBytes
from reformer_viz import (
    explore_speed,
    measure_quality,
    plot_quality,
    plotly_quality,
    read_quality,
    read_speed,
)
from reformer_viz.figures.still import draw_still
from reformer_viz.measure import quality as quality_module
from reformer_viz.measure.speed import SpeedReading
from tests.benchmarks import quality as command

ROOT = Path(__file__).resolve().parents[2]
SPEED = ROOT / "tests" / "benchmarks" / "results" / "cpu.json"
TASK = Duplicate(vocab_size=6, length=16)
CONFIG = ReformerConfig(
    vocab_size=6,
    d_model=8,
    n_heads=2,
    attention=("local", "lsh"),
    n_hashes=2,
    n_buckets=4,
    chunk_length=4,
    max_length=16,
)
HOW = TrainConfig(steps=4, batch_size=2, evaluate_every=2, evaluation_batches=2, seed=5)


@pytest.fixture(scope="module")
def quality():
    return measure_quality(CONFIG, TASK, (1, 3), train=HOW)


@pytest.mark.parametrize(("row", "attention"), [(0, ("local", "lsh")), (1, ("local", "full"))])
@pytest.mark.parametrize(("column", "depth"), [(0, 1), (1, 3)])
def test_every_point_is_a_model_that_was_trained_by_hand(quality, row, attention, column, depth):
    torch.manual_seed(0)
    model = ReformerLM(replace(CONFIG, n_layers=depth, attention=attention))
    run = train(model, TASK, HOW)
    assert quality.measure[row, column].tolist() == [e.measure for e in run.evaluations]
    assert quality.loss[row, column].tolist() == [e.loss for e in run.evaluations]
    assert quality.steps.tolist() == [e.step for e in run.evaluations] == [2, 4]
    assert quality.parameters[column] == sum(p.numel() for p in model.parameters())


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(1)
    measure_quality(CONFIG, TASK, (1,), train=replace(HOW, steps=1), ways=("lsh",))
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))


def test_a_file_keeps_everything_and_says_what_it_is(quality, tmp_path):
    path = quality.save(tmp_path / "new" / "quality.json")
    again = read_quality(path)
    for name in ("depths", "steps", "measure", "loss", "parameters", "seconds"):
        assert np.array_equal(getattr(again, name), getattr(quality, name)), name
    assert again.describe() == quality.describe()
    assert (again.ways, again.machine) == (("lsh", "full"), quality.machine)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"schema": 1}))
    with pytest.raises(ValueError, match="must have schema 'reformer_viz quality 1', got 1: run"):
        read_quality(wrong)
    for text in ("[]", "{"):
        wrong.write_text(text)
        with pytest.raises(ValueError, match=re.escape(str(wrong))):
            read_quality(wrong)


def test_the_sentence_is_made_of_what_was_reached(quality):
    last = quality.measure[..., -1]
    assert quality.describe() == (
        f"Held-out accuracy after 4 steps on duplicate, 16 tokens, 2 rounds. "
        f"LSH attention: {last[0, 0]:.1%} with 1 layer, {last[0, 1]:.1%} with 3 layers; best with "
        f"{['1 layer', '3 layers'][last[0].argmax()]}. "
        f"Full attention: {last[1, 0]:.1%} with 1 layer, {last[1, 1]:.1%} with 3 layers; best with "
        f"{['1 layer', '3 layers'][last[1].argmax()]}."
    )


def test_fewer_bits_and_more_accuracy_are_better(quality):
    made = replace(quality, measure=np.array([[[9, 2.0], [9, 3.0]], [[9, 4.0], [9, 1.0]]]))
    assert [made.best(0), made.best(1)] == [1, 0]
    bits = replace(made, measure_name="bits_per_byte")
    assert [bits.best(0), bits.best(1)] == [0, 1]
    assert "LSH attention: 2 with 1 layer, 3 with 3 layers; best with 1 layer." in bits.describe()


# ------------------------------------------------------------------------------------ pictures


def test_what_was_reached_stands_beside_how_it_was_learned(quality):
    left, right = plot_quality(quality).axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in left.lines}
    assert drawn == {
        "LSH attention": quality.last[0].tolist(),
        "full attention": quality.last[1].tolist(),
    }
    curves = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert curves["3 layers"] == quality.measure[0, 1].tolist()
    figure = plotly_quality(quality)
    live = {(trace.name, trace.xaxis): list(trace.y) for trace in figure.data}
    assert live["full attention", "x"] == quality.last[1].tolist()
    assert live["1 layer", "x2"] == quality.measure[0, 0].tolist()
    assert ElementTree.fromstring(draw_still(figure)).tag.endswith("svg")


def test_with_speed_it_is_the_papers_figure_five(quality):
    speed = SpeedReading(measurement=read_speed(SPEED), n_hashes=4)
    left, right = plot_quality(quality, speed).axes
    assert left.lines[0].get_ydata().tolist() == quality.last[0].tolist()
    values = speed.measurement.step.fastest[0]
    drawn = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    there = np.isfinite(values[0])
    assert drawn["1 round"] == values[0][there].tolist()
    live = {(trace.name, trace.xaxis): trace for trace in plotly_quality(quality, speed).data}
    assert list(live["1 round", "x2"].y) == values[0][there].tolist()
    assert live["LSH attention", "x"].xaxis == "x"


# ------------------------------------------------------------------------------------ explored


def test_the_explorer_shows_both_panels_and_leads_to_the_others(quality, tmp_path):
    path = quality.save(tmp_path / "quality.json")
    panel = explore_speed(SPEED, quality=path)
    speed = SpeedReading(measurement=read_speed(SPEED), n_hashes=4)
    assert repr(panel) == f"{quality.describe()} {speed.describe()}"
    drawn = {trace.name: trace for trace in panel.chart.data}
    assert list(drawn["LSH attention"].y) == quality.last[0].tolist()
    panel.controls["n_hashes"].value = 1
    assert repr(panel).endswith(replace(speed, n_hashes=1).describe())
    assert len(panel.figure.axes) == 2
    again = eval(
        panel.code, {"explore_speed": explore_speed, "measurement": SPEED, "quality": path}
    )
    assert (repr(again), again.state) == (repr(panel), panel.state)
    panel.controls["show"].value = "everybody"
    assert repr(panel) == explore_speed(SPEED, n_hashes=1).data.describe()
    assert "show" not in explore_speed(SPEED).controls
    wrong = explore_speed(SPEED, quality=quality, show="nothing")
    assert wrong.problem.startswith("show must be one of ['quality and speed', 'everybody'], got")


def test_the_committed_file_is_what_its_command_measures():
    stored = read_quality(command.PATH)
    assert stored.depths.tolist() == list(command.DEPTHS)
    assert stored.ways == quality_module.WAYS
    assert stored.steps.tolist() == list(
        range(command.TRAIN.evaluate_every, command.TRAIN.steps + 1, command.TRAIN.evaluate_every)
    )
    assert (stored.measure_name, stored.n_hashes) == ("bits_per_byte", command.CONFIG.n_hashes)
    assert (stored.measure[..., -1] < stored.measure[..., 0]).all()
    assert repr(explore_speed(SPEED, quality=command.PATH)).startswith(stored.describe())


def test_its_command_writes_a_file(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "DEPTHS", (1,))
    monkeypatch.setattr(command, "TRAIN", replace(command.TRAIN, steps=1, evaluation_batches=1))
    command.main(tmp_path / "quality.json")
    stored = read_quality(tmp_path / "quality.json")
    assert stored.steps.tolist() == [1]
    assert stored.machine.startswith(command.cpu_name())
    assert stored.describe() in capsys.readouterr().out


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": ()}, r"depths must be at least 1, each once, got \(\)"),
        ({"depths": (0, 1)}, r"depths must be at least 1, each once, got \(0, 1\)"),
        ({"depths": (2, 2)}, r"each once, got \(2, 2\)"),
        ({"ways": ()}, r"ways must be one or more of \('lsh', 'full'\)"),
        ({"ways": ("local",)}, r"ways must be one or more of .*, got \('local',\)"),
        ({"train": replace(HOW, folder="runs")}, "train must name no folder, got 'runs': every"),
        ({"config": replace(CONFIG, attention=("full",))}, 'config must have "lsh" in its'),
        ({"task": TextBytes(16)}, "vocab_size must be at least the task's, 256, got 6"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    arguments = {"config": CONFIG, "task": TASK, "depths": (1,), "train": HOW, **change}
    with pytest.raises(ValueError, match=message):
        measure_quality(**arguments)


def test_an_interrupted_run_ends_all_of_it(monkeypatch):
    run = train(ReformerLM(CONFIG), TASK, replace(HOW, steps=1))
    stopped = replace(run, stopped="interrupted")
    monkeypatch.setattr(quality_module, "run_training", lambda *_: stopped)
    with pytest.raises(KeyboardInterrupt):
        measure_quality(CONFIG, TASK, (1,), train=HOW)
