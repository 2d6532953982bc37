"""The shipped models: small, as good as they say, made by a command that exists, and replayable."""

import importlib.util
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.tasks import Duplicate, TextBytes
from reformer_core.training import evaluate
from reformer_viz import Recorder, explore_training
from reformer_viz.lessons import shipped

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("duplicate_full", "duplicate_lsh1", "duplicate_lsh2", "duplicate_lsh4", "text")
LARGEST = 8_000_000  # bytes

every = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def loaded():
    return {name: shipped.load(name) for name in NAMES}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "train_shipped.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_these_models_are_shipped():
    assert shipped.names() == NAMES


def test_together_they_are_small():
    on_disk = sum(file.stat().st_size for file in shipped.FOLDER.rglob("*.safetensors"))
    assert shipped.size_in_bytes() == on_disk < LARGEST


def test_they_are_installed_with_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["reformer_viz.lessons.shipped"]
    found = {file for pattern in patterns for file in shipped.FOLDER.glob(pattern)}
    assert found == set(shipped.FOLDER.rglob("*.safetensors"))


@every
def test_no_optimiser_is_shipped(name):
    tensors = shipped.read_checkpoint(shipped.FOLDER / name).tensors
    assert {tensor.split("/")[0] for tensor in tensors} == {"history"}


@every
def test_a_model_is_as_good_as_it_says(name, loaded):
    it = loaded[name]
    assert not it.model.training
    again = evaluate(it.model, it.task, n_batches=3)
    assert again.measure_name == it.metrics.measure_name
    # Of a part of what is held out; and every Python's text is a little different.
    assert again.measure == pytest.approx(it.metrics.measure, abs=0.05 if "dup" in name else 0.3)


def test_a_copier_says_how_it_copies_and_a_writer_how_it_writes(loaded):
    for name, it in loaded.items():
        kind = TextBytes if name == "text" else Duplicate
        assert isinstance(it.task, kind)
        assert it.metrics.measure_name == kind.measure_name
        assert it.task.length == it.model.config.max_length == 256
        said = it.describe()
        assert it.command in said
        assert f"{len(it.training.steps):,} steps" in said
    assert loaded["duplicate_full"].model.config.attention == ("full",)
    assert [loaded[f"duplicate_lsh{n}"].model.config.n_hashes for n in (1, 2, 4)] == [1, 2, 4]


@every
def test_the_command_names_a_tool_and_a_recipe_that_make_this_very_model(name, loaded, tool):
    it = loaded[name]
    python, file, given = shlex.split(it.command)
    assert (python, given) == ("python", name)
    assert (ROOT / file).samefile(tool.__file__)
    recipe = tool.RECIPES[given]
    assert (recipe.model, recipe.how) == (it.model.config, it.how)
    assert recipe.make_task().facts() | {"text_crc32": 0} == it.task.facts() | {"text_crc32": 0}


@every
def test_the_run_replays(name, loaded):
    it = loaded[name]
    assert len(it.training.steps) == it.how.steps
    film = explore_training(it.training)
    assert film.problem is None
    if name == "duplicate_full":
        assert it.training.recording is None
        return
    steps = it.training.recording.steps
    assert (steps[0], steps[-1]) == (0, it.how.steps)
    film.place = {"snapshot": 0}
    assert repr(film).startswith("After step 0,")
    film.place = {"snapshot": len(steps) - 1}
    assert repr(film).startswith(f"After step {it.how.steps:,},")


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_last_snapshot_is_what_the_model_does(name, loaded):
    it = loaded[name]
    recording = it.training.recording
    trace = it.model.trace(torch.from_numpy(recording.tokens)[None])
    for place, layer in enumerate(recording.layers):
        same = trace.layers[layer].plan.buckets[0].numpy() == recording.buckets[-1, place]
        assert same.mean() > 0.99  # another processor may round a near tie the other way


@pytest.mark.parametrize("name", ["tea", "", "../shipped/text", "TEXT"])
def test_an_unknown_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(ValueError, match=f"one of {', '.join(NAMES)}, got '{name}'"):
        shipped.load(name)


# ------------------------------------------------------------------------- making one

TASK = Duplicate(vocab_size=8, length=16)
SMALL = ReformerConfig(
    vocab_size=8, d_model=8, n_layers=1, n_heads=2, chunk_length=4, max_length=16
)


def test_what_is_written_is_read_back(tmp_path):
    torch.manual_seed(0)
    model = ReformerLM(SMALL)
    recorder = Recorder(model, next(TASK.held_out(1)).tokens, at=[0, 2])
    run = train(model, TASK, TrainConfig(steps=3, batch_size=2), on_step=recorder)
    metrics = evaluate(model, TASK)
    shipped.write(
        tmp_path / "mine",
        run,
        TASK,
        command="python mine.py",
        metrics=metrics,
        recording=recorder.recording,
    )
    back = shipped.read(tmp_path / "mine")
    assert (back.name, back.task, back.how) == ("mine", TASK, run.config)
    assert (back.metrics, back.command) == (metrics, "python mine.py")
    assert back.training.loss.tolist() == run.losses
    assert back.training.recording.steps.tolist() == [0, 2]
    weights = back.model.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in model.state_dict().items())


def test_writing_again_leaves_no_snapshots_of_the_run_before(tmp_path):
    model = ReformerLM(SMALL)
    recorder = Recorder(model, next(TASK.held_out(1)).tokens, at=[1])
    run = train(model, TASK, TrainConfig(steps=1, batch_size=2), on_step=recorder)
    about = {"command": "", "metrics": evaluate(model, TASK, n_batches=1)}
    shipped.write(tmp_path / "it", run, TASK, **about, recording=recorder.recording)
    shipped.write(tmp_path / "it", run, TASK, **about)
    assert shipped.read(tmp_path / "it").training.recording is None


@pytest.mark.parametrize("name", ["duplicate_full", "duplicate_lsh2", "text"])
def test_the_tool_makes_what_it_is_asked_for(name, tool, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    few = {key: replace(it, look_every=1) for key, it in tool.RECIPES.items()}
    monkeypatch.setattr(tool, "RECIPES", few)
    monkeypatch.setattr(tool, "evaluate", lambda model, task: evaluate(model, task, n_batches=1))
    tool.train_shipped(name, tmp_path, steps=1)
    it = shipped.read(tmp_path / name)
    assert len(it.training.steps) == 1
    assert (it.training.recording is None) == (name == "duplicate_full")
