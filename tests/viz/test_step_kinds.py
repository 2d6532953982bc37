"""Four ways to remember, one function: loss and gradients are equal, the model is left alone."""

import pytest
import torch

from reformer_core import ReformerConfig, ReformerLM
from reformer_viz.measure.step_kinds import (
    DEFAULT_PIECES,
    KINDS,
    CheckpointedStack,
    config_of_kind,
    model_of_kind,
    new_model,
    new_tokens,
)

SIZES = {"vocab_size": 11, "d_model": 16, "n_heads": 2, "chunk_length": 8, "max_length": 64}
CONFIG = ReformerConfig(**SIZES, n_layers=3, attention=("lsh", "local"))


def gradients(model: ReformerLM, tokens: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(4)
    loss = model.loss(tokens)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_has_the_standard_kinds_loss_and_gradients(kind):
    model, tokens = new_model(CONFIG).double(), new_tokens(CONFIG, 2, 61)
    wanted, got = (gradients(model_of_kind(model, k), tokens) for k in ("standard", kind))
    assert len(got) == len(wanted) > 20
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["checkpointed", "reversible"])
def test_so_it_has_with_dropout_because_the_masks_are_drawn_again(kind):
    config = ReformerConfig(**SIZES, n_layers=3, dropout=0.2, attention_dropout=0.1)
    model, tokens = new_model(config).double(), new_tokens(config, 2, 64)
    wanted, got = (gradients(model_of_kind(model, k), tokens) for k in ("standard", kind))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_only_the_chunked_kind_cuts_into_the_configs_pieces_or_else_into_the_default():
    cut = ReformerConfig(**SIZES, ff_chunks=3)
    pieces = {
        kind: (config_of_kind(cut, kind).ff_chunks, config_of_kind(cut, kind).loss_chunks)
        for kind in KINDS
    }
    assert pieces == dict.fromkeys(KINDS, (1, 1)) | {"chunked": (3, DEFAULT_PIECES)}
    assert [block.g.n_chunks for block in model_of_kind(new_model(cut), "chunked").layers] == [3, 3]
    assert [config_of_kind(cut, kind).reversible for kind in KINDS] == [False, False, True, True]


def test_no_kind_keeps_layers_whatever_the_config_says():
    config = ReformerConfig(**SIZES, kept_layers=1)
    assert [config_of_kind(config, kind).kept_layers for kind in KINDS] == [0] * len(KINDS)
    assert [model_of_kind(new_model(config), kind).layers.n_kept for kind in KINDS] == [0] * 4


def test_a_checkpointed_stack_is_run_twice_and_the_standard_one_once():
    runs = []
    for kind in ("standard", "checkpointed"):
        model = model_of_kind(new_model(CONFIG), kind)
        calls = []
        model.layers[1].f.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        gradients(model, new_tokens(CONFIG, 1, 64))
        runs.append(len(calls))
    assert runs == [1, 2]
    assert isinstance(model.layers, CheckpointedStack)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_copy_in_training_mode_and_the_model_stays_as_it_was(kind):
    model = new_model(CONFIG).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    copy = model_of_kind(model, kind)
    gradients(copy, new_tokens(CONFIG, 1, 64))
    assert copy.training
    assert not model.training
    assert model.config == CONFIG
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_the_same_model_and_tokens_are_made_every_time_and_no_random_number_is_taken():
    torch.manual_seed(1)
    first, again = new_model(CONFIG), new_model(CONFIG)
    tokens = new_tokens(CONFIG, 3, 20)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert tokens.shape == (3, 20)
    assert torch.equal(tokens, new_tokens(CONFIG, 3, 20))
    assert set(tokens.flatten().tolist()) == set(range(11))
