"""python -m reformer_core: the same training and sampling from a shell."""

import os
import subprocess
import sys

import pytest
import torch

from reformer_core.__main__ import DUPLICATE, TEXT, main
from reformer_core.checkpoints import read_checkpoint
from reformer_core.config import ReformerConfig, TrainConfig
from reformer_core.models import ReformerLM
from reformer_core.tasks import Duplicate
from reformer_core.training import train

SMALL = ["--d-model=8", "--n-heads=2", "--n-layers=1", "--chunk-length=4", "--steps=3"]
QUICK = ["--batch-size=2", "--evaluation-batches=1"]


def shell(*words, **environment):
    """Run the command as a person would, and return what it says and its exit code."""
    without = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    return subprocess.run(
        [sys.executable, "-m", "reformer_core", *words],
        capture_output=True,
        text=True,
        env=without | environment,
        timeout=120,
        check=False,
    )


def test_a_shell_shows_progress_and_result():
    did = shell("train", "duplicate", "--vocab-size=7", "--length=8", *SMALL, *QUICK)
    assert did.returncode == 0
    assert did.stdout.startswith("finished after 3 steps, ")
    assert "held out, after step 3: accuracy 0." in did.stdout
    assert "3/3" in did.stderr
    assert "loss=" in did.stderr
    assert "held-out accuracy=" in did.stderr
    assert "tokens/s=" in did.stderr


def test_the_bar_can_be_switched_off_and_a_mistake_is_one_line():
    did = shell("train", "duplicate", "--length=7", TQDM_DISABLE="1")
    assert did.returncode == 2
    assert did.stdout == ""
    assert did.stderr.splitlines() == [
        "error: length must be even, got 7: 0w0w is two equal halves"
    ]


def test_the_shell_trains_what_python_trains(tmp_path, capsys):
    words = ["train", "duplicate", "--vocab-size=7", "--length=8", "--seed=5", *SMALL, *QUICK]
    assert main([*words, "--folder", str(tmp_path)]) == 0
    checkpoint = read_checkpoint(tmp_path)
    torch.manual_seed(5)
    config = ReformerConfig(
        vocab_size=7, max_length=8, d_model=8, n_heads=2, n_layers=1, chunk_length=4
    )
    how = TrainConfig(
        steps=3, seed=5, batch_size=2, evaluation_batches=1, evaluate_every=50, folder=None
    )
    run = train(ReformerLM(config), Duplicate(7, 8), how)
    assert checkpoint.config == config
    assert checkpoint.tensors["history/loss"].tolist() == run.losses
    assert f"sample --folder {tmp_path} --prompt" in capsys.readouterr().out


def test_every_field_of_both_configs_is_an_option(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "text", "--help"])
    assert left.value.code == 0
    options = capsys.readouterr().out
    names = {*ReformerConfig.__dataclass_fields__, *TrainConfig.__dataclass_fields__}
    for name in names - {"vocab_size", "max_length"}:
        assert f"--{name.replace('_', '-')}" in options


def test_options_are_read_as_what_they_are(tmp_path):
    words = ["--attention=local,lsh", "--n-buckets=2,4", "--clip-norm=none", "--no-reversible"]
    more = ["--window=sliding", "--schedule=cosine", "--dropout=0.25", "--axial-shape=2,4"]
    rest = ["--axial-dims=3,5", "--length=8", "--vocab-size=7", f"--folder={tmp_path}"]
    assert main(["train", "duplicate", *SMALL, *QUICK, *words, *more, *rest]) == 0
    checkpoint = read_checkpoint(tmp_path)
    config = checkpoint.config
    assert (config.attention, config.n_buckets) == (("local", "lsh"), (2, 4))
    assert (config.reversible, config.window, config.dropout) == (False, "sliding", 0.25)
    assert (config.axial_shape, config.axial_dims) == ((2, 4), (3, 5))
    assert checkpoint.facts["training"]["clip_norm"] is None
    assert checkpoint.facts["training"]["schedule"] == "cosine"


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--steps=many", "argument --steps: must be int, got 'many'"),
        ("--attention=lsh,far", "must be lsh or local or full with commas between, got 'lsh,far'"),
        ("--schedule=up", "must be constant or cosine or inverse_sqrt, got 'up'"),
        ("--d-head=x", "argument --d-head: must be int or none, got 'x'"),
    ],
)
def test_an_option_that_cannot_be_read_is_told_by_its_name(option, complaint, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "duplicate", option])
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_file_is_learned_from_gone_on_with_and_continued(tmp_path, capsys):
    text = tmp_path / "mine.txt"
    text.write_text("a rose is a rose is a rose; " * 40)
    folder = ["--folder", str(tmp_path / "run")]
    words = ["train", "text", "--file", str(text), "--length=16", *SMALL, *QUICK, *folder]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "bits per byte" in said
    assert "xz, for comparison: " in said
    assert main(words) == 2
    assert "say resume=True to go on" in capsys.readouterr().err
    assert main([*words, "--resume", "--steps=5"]) == 0
    assert "finished after 5 steps" in capsys.readouterr().out
    prompt = ["sample", *folder, "--prompt", "a rose"]
    assert main([*prompt, "--tokens=4", "--temperature=0"]) == 0
    assert capsys.readouterr().out.startswith("a rose")
    assert main([*prompt, "--tokens=99"]) == 2
    assert "must fit max_length = 16, got 6 + 99" in capsys.readouterr().err


def test_a_model_of_numbers_is_asked_in_numbers(tmp_path, capsys):
    folder = ["--folder", str(tmp_path)]
    assert (
        main(["train", "duplicate", "--vocab-size=7", "--length=8", *SMALL, *QUICK, *folder]) == 0
    )
    capsys.readouterr()
    assert main(["sample", *folder, "--prompt", "0 5 3 1 0"]) == 0
    numbers = [int(word) for word in capsys.readouterr().out.split()]
    assert numbers[:5] == [0, 5, 3, 1, 0]
    assert len(numbers) == 8
    assert max(numbers) < 7
    assert main(["sample", *folder, "--prompt", "five"]) == 2
    assert "this model reads numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train", "text", "--file", "no such file"], "No such file"),
        (["train", "duplicate", "--n-heads=3"], "d_model must be a multiple of n_heads"),
        (["train", "duplicate", "--resume"], "resume=True needs the folder of a checkpoint"),
        (["sample", "--folder", "no such folder", "--prompt=a"], "there is no checkpoint in"),
    ],
)
def test_mistakes_are_told_in_one_line_with_code_2(words, complaint, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert complaint in captured.err


def test_the_defaults_of_a_task_fit_together():
    for defaults in (DUPLICATE, TEXT):
        fields = ReformerConfig.__dataclass_fields__
        own = {name: value for name, value in defaults.items() if name in fields}
        assert ReformerConfig(max_length=defaults["length"], **own).causal
