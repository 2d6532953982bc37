"""Checkpoints: one file that is whole or absent, and a run that goes on from it bit for bit."""

import errno
import json
import os
import struct

import pytest
import safetensors.torch
import torch

from reformer_core.checkpoints import load_checkpoint, put_weights, read_checkpoint, save_checkpoint
from reformer_core.config import ReformerConfig, TrainConfig
from reformer_core.models import ReformerLM
from reformer_core.tasks import Duplicate
from reformer_core.training import train

FILE = "checkpoint.safetensors"
TASK = Duplicate(vocab_size=7, length=8)


def new_model(seed=0, **changes):
    """Make a tiny Reformer in which everything random is on: dropouts, and hashing by step."""
    sizes = {"vocab_size": 7, "d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 16}
    rest = {"attention": ("lsh", "local"), "n_hashes": 2, "chunk_length": 4, "max_length": 8}
    random = {"dropout": 0.2, "attention_dropout": 0.2}
    torch.manual_seed(seed)
    return ReformerLM(ReformerConfig(**(sizes | rest | random | changes)))


def how(folder, **changes):
    short = {"steps": 4, "seed": 3, "batch_size": 2, "evaluation_batches": 1}
    return TrainConfig(**(short | {"folder": folder} | changes))


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adafactor", "schedule": "inverse_sqrt"},
        {"accumulate": 2, "clip_norm": None, "evaluate_every": 2},
    ],
)
def test_a_resumed_run_equals_the_one_that_never_stopped_bit_for_bit(tmp_path, changes):
    straight = train(new_model(), TASK, how(tmp_path / "a", steps=7, **changes))
    train(new_model(), TASK, how(tmp_path / "b", steps=4, **changes))
    torch.manual_seed(99)  # nothing of the old process is left
    resumed = train(new_model(1), TASK, how(tmp_path / "b", steps=7, resume=True, **changes))
    assert resumed.losses == straight.losses
    assert [r.gradient_norm for r in resumed.history] == [r.gradient_norm for r in straight.history]
    assert equal(resumed.model.state_dict(), straight.model.state_dict())
    first, second = read_checkpoint(tmp_path / "a"), read_checkpoint(tmp_path / "b")
    for checkpoint in (first, second):
        del checkpoint.tensors["history/seconds"]
    assert equal(first.tensors, second.tensors)


def test_every_part_of_the_checkpoint_matters_to_what_follows(tmp_path):
    train(new_model(), TASK, how(tmp_path))
    whole = read_checkpoint(tmp_path)
    assert int(whole.weights["hash_step"]) == 4
    assert {name.split("/")[0] for name in whole.tensors} == {"optimizer", "random", "history"}
    straight = train(new_model(), TASK, how(None, steps=6))

    def losses_after(**changes):
        tensors, weights = dict(whole.tensors), dict(whole.weights)
        tensors.update({name: t for name, t in changes.items() if name in tensors})
        weights.update({name: t for name, t in changes.items() if name in weights})
        model = new_model(1)
        put_weights(model, weights)
        save_checkpoint(tmp_path, model, tensors=tensors, facts=whole.facts)
        return train(new_model(2), TASK, how(tmp_path, steps=6, resume=True)).losses

    assert losses_after() == straight.losses
    assert losses_after(hash_step=torch.tensor(9)) != straight.losses
    assert losses_after(**{"random/cpu": torch.get_rng_state()}) != straight.losses
    moment = "optimizer/head.weight/exp_avg"
    assert losses_after(**{moment: -whole.tensors[moment]}) != straight.losses


def test_resuming_a_finished_run_changes_nothing_and_returns_it(tmp_path):
    run = train(new_model(), TASK, how(tmp_path))
    before = (tmp_path / FILE).read_bytes()
    again = train(new_model(1), TASK, how(tmp_path, resume=True))
    assert again.history == run.history
    assert again.evaluations == run.evaluations
    assert (again.seconds, again.stopped) == (run.seconds, "finished")
    assert (tmp_path / FILE).read_bytes() == before


def test_resume_begins_where_there_is_nothing_yet(tmp_path):
    fresh = train(new_model(), TASK, how(tmp_path / "new", resume=True))
    assert fresh.losses == train(new_model(), TASK, how(None)).losses


def test_a_run_does_not_overwrite_another_one_unasked(tmp_path):
    train(new_model(), TASK, how(tmp_path))
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match=r"say resume=True to go on from it, or name another"):
        train(new_model(), TASK, how(tmp_path))
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("model", "task", "training", "named"),
    [
        ({"d_ff": 32}, TASK, {}, "d_ff was 16 and is 32"),
        ({"attention": ("lsh",)}, TASK, {}, r"attention was \('lsh', 'local'\) and is \('lsh',\)"),
        ({}, Duplicate(7, 6), {}, "length was 8 and is 6"),
        ({}, TASK, {"batch_size": 3, "seed": 4}, "seed was 3 and is 4, batch_size was 2 and is 3"),
        ({}, TASK, {"learning_rate": 0.1}, r"learning_rate was 0.001 and is 0.1"),
    ],
)
def test_a_run_that_would_not_go_on_as_it_began_is_refused(tmp_path, model, task, training, named):
    train(new_model(), TASK, how(tmp_path))
    untouched = new_model(1, **model)
    before = {name: tensor.clone() for name, tensor in untouched.state_dict().items()}
    with pytest.raises(ValueError, match=f"must go on as it began, but {named}: say the same"):
        train(untouched, task, how(tmp_path, resume=True, **training))
    assert equal(untouched.state_dict(), before)


def test_a_cosine_ends_with_its_run_and_cannot_be_made_longer(tmp_path):
    train(new_model(), TASK, how(tmp_path, schedule="cosine"))
    with pytest.raises(ValueError, match="steps was 4 and is 6"):
        train(new_model(), TASK, how(tmp_path, schedule="cosine", steps=6, resume=True))


def test_a_model_alone_is_no_run_to_go_on_with(tmp_path):
    save_checkpoint(tmp_path, new_model())
    with pytest.raises(ValueError, match="got a model alone: load it with load_checkpoint"):
        train(new_model(), TASK, how(tmp_path, resume=True))


# ------------------------------------------------------------------------------- the model back


@pytest.mark.parametrize(
    "changes", [{}, {"axial_shape": (2, 4), "axial_dims": (3, 5), "n_buckets": (2, 4)}]
)
def test_a_model_comes_back_from_its_checkpoint_alone(tmp_path, changes):
    model = new_model(**changes).eval()
    save_checkpoint(tmp_path, model)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.config == model.config
    assert not loaded.training
    tokens = torch.randint(7, (2, 8))
    assert torch.equal(loaded(tokens), model(tokens))


def test_a_model_in_double_precision_comes_back_as_it_was(tmp_path):
    model = new_model().double()
    save_checkpoint(tmp_path, model)
    assert equal(load_checkpoint(tmp_path).state_dict(), model.state_dict())


def test_names_that_share_a_tensor_are_written_once_and_come_back_both(tmp_path):
    model = new_model()
    model.also = torch.nn.Module()
    model.also.weight = model.embed.tokens.weight
    save_checkpoint(tmp_path, model)
    in_the_file = safetensors.torch.load_file(tmp_path / FILE)
    assert ("weights/also.weight" in in_the_file) != ("weights/embed.tokens.weight" in in_the_file)
    assert equal(read_checkpoint(tmp_path).weights, model.state_dict())


def test_a_checkpoint_is_one_safetensors_file_with_its_scalars_in_json(tmp_path):
    train(new_model(), TASK, how(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    content = (tmp_path / FILE).read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["header"])
    assert header["config"]["attention"] == ["lsh", "local"]
    assert header["facts"]["task"] == TASK.facts()
    assert header["facts"]["training"]["seed"] == 3
    history = safetensors.torch.load_file(tmp_path / FILE)["history/loss"]
    assert history.shape == (4,)


# ------------------------------------------------------------------------------------ bad files


def test_a_folder_without_a_checkpoint_says_how_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*: train with folder="):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = save_checkpoint(tmp_path, new_model())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"{FILE} must be a whole checkpoint.*delete it"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip of another program", b"{}", b"\xff" * 999])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{FILE} must be a whole checkpoint.*delete it"):
        load_checkpoint(tmp_path)


def test_a_safetensors_file_of_another_program_is_refused(tmp_path):
    safetensors.torch.save_file(
        {"weight": torch.zeros(3)}, tmp_path / FILE, metadata={"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"got 'pt': it is of another program or version"):
        load_checkpoint(tmp_path)


def test_a_config_of_another_version_is_refused_by_the_field_it_has(tmp_path):
    path = save_checkpoint(tmp_path, new_model())
    path.write_bytes(path.read_bytes().replace(b"n_hashes", b"n_rounds"))
    with pytest.raises(ValueError, match=r"another version.*'n_rounds'"):
        load_checkpoint(tmp_path)


def test_weights_of_another_shape_or_type_are_refused_by_name(tmp_path):
    save_checkpoint(tmp_path, new_model())
    weights = read_checkpoint(tmp_path).weights
    with pytest.raises(ValueError, match=r"but 1 differ, among them head.bias"):
        put_weights(new_model(), weights | {"head.bias": torch.zeros(8)})
    with pytest.raises(ValueError, match=r"but 1 differ, among them head.bias"):
        put_weights(new_model(), weights | {"head.bias": weights["head.bias"].double()})
    with pytest.raises(ValueError, match=r"but 1 differ, among them tail"):
        put_weights(new_model(), weights | {"tail": torch.zeros(8)})


# ------------------------------------------------------------------------------------ full disks


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(tmp_path, monkeypatch):
    train(new_model(), TASK, how(tmp_path))
    before = (tmp_path / FILE).read_bytes()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match=r"No space left.*before is untouched: free some space"):
            train(new_model(1), TASK, how(tmp_path, steps=6, resume=True))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).read_bytes() == before
    resumed = train(new_model(1), TASK, how(tmp_path, steps=6, resume=True))
    assert resumed.losses == train(new_model(), TASK, how(None, steps=6)).losses


def test_a_write_that_fails_half_way_leaves_the_checkpoint_before_as_it_was(tmp_path):
    resource = pytest.importorskip("resource", reason="limits on file sizes are Unix's")
    path = save_checkpoint(tmp_path, new_model())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match=r"could not write .*the one before is untouched"):
            save_checkpoint(tmp_path, new_model(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"could not write .*there was none before"):
        save_checkpoint(tmp_path / "file" / "folder", new_model())


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    happened = []
    flush, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: happened.append("flush") or flush(handle))
    monkeypatch.setattr(os, "replace", lambda *names: happened.append("name") or rename(*names))
    save_checkpoint(tmp_path, new_model())
    assert happened[:2] == ["flush", "name"]


def test_a_half_written_file_is_never_taken_for_a_checkpoint(tmp_path):
    whole = save_checkpoint(tmp_path / "other", new_model()).read_bytes()
    (tmp_path / f"{FILE}.part").write_bytes(whole[:-1])
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, new_model())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [FILE]
