"""Sampling: exactly the model's own distribution, token by token."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reformer_core.config import ReformerConfig
from reformer_core.generation import next_token_probabilities, sample
from reformer_core.models import ReformerLM
from tests import oracles

VOCAB = 9


def build(**fields) -> ReformerLM:
    small = {
        "vocab_size": VOCAB,
        "d_model": 8,
        "n_layers": 2,
        "n_heads": 2,
        "n_hashes": 2,
        "chunk_length": 4,
        "max_length": 20,
    }
    torch.manual_seed(0)
    return ReformerLM(ReformerConfig(**small | fields))


def prompt(batch=3, length=5) -> torch.Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(2))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- the distribution


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=12, unique=True),
    st.floats(0.1, 3),
    st.none() | st.integers(1, 15),
    st.none() | st.floats(0.01, 1),
)
def test_the_distribution_is_temperature_then_top_k_then_nucleus(logits, temperature, top_k, top_p):
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    got = next_token_probabilities(torch.tensor([logits], dtype=torch.float64), **options)[0]
    expected = oracles.next_token_distribution(np.array(logits), **options)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_top_p_keeps_the_fewest_that_together_have_that_probability():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = {
        p: (next_token_probabilities(logits, top_p=p) > 0).sum().item()
        for p in (0.01, 0.4, 0.6, 0.9, 1.0)
    }
    assert kept == {0.01: 1, 0.4: 1, 0.6: 2, 0.9: 3, 1.0: 4}


def test_top_k_keeps_that_many_and_renormalises():
    probabilities = next_token_probabilities(torch.tensor([[0.5, 0.3, 0.2]]).log(), top_k=2)
    torch.testing.assert_close(probabilities, torch.tensor([[0.625, 0.375, 0.0]]))


def test_rows_are_filtered_by_themselves_and_the_logits_stay_as_they_are():
    logits = torch.randn(4, 7, generator=seeded())
    before = logits.clone()
    options = {"temperature": 0.7, "top_k": 4, "top_p": 0.8}
    together = next_token_probabilities(logits, **options)
    for row in range(4):
        assert torch.equal(
            next_token_probabilities(logits[row : row + 1], **options)[0], together[row]
        )
    assert torch.equal(logits, before)


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("pattern", [("lsh",), ("local", "lsh"), ("full",)])
def test_temperature_0_takes_the_likeliest_token_of_the_full_forward_step_by_step(pattern):
    model = build(attention=pattern).eval()
    tokens = sample(model, prompt(), 12, temperature=0)
    assert tokens.shape == (3, 17)
    assert torch.equal(tokens[:, :5], prompt())
    for t in range(5, 17):
        assert torch.equal(tokens[:, t], model(tokens[:, :t])[:, -1].argmax(-1))


def test_a_batch_continues_as_its_rows_do_alone():
    model = build()
    together = sample(model, prompt(), 10, temperature=0)
    for row in range(3):
        alone = sample(model, prompt()[row : row + 1], 10, temperature=0)
        assert torch.equal(alone[0], together[row])


def test_tokens_come_at_the_rate_of_the_distribution():
    model = build().eval()
    many = prompt(batch=1).expand(4000, -1)
    options = {"temperature": 0.8, "top_k": 6, "top_p": 0.9}
    drawn = sample(model, many, 1, generator=seeded(), **options)[:, -1]
    logits = model(prompt(batch=1))[0, -1].detach().double().numpy()
    expected = oracles.next_token_distribution(logits, **options)
    found = np.bincount(drawn, minlength=VOCAB) / 4000
    assert (found[expected == 0] == 0).all()
    assert np.abs(found - expected).max() < 5 * 0.5 / math.sqrt(4000)
    assert (expected == 0).any()


def test_the_same_generator_state_gives_the_same_tokens_and_the_global_one_stays():
    model, before = build(), torch.get_rng_state()
    first = sample(model, prompt(), 10, generator=seeded(1))
    assert torch.equal(sample(model, prompt(), 10, generator=seeded(1)), first)
    assert not torch.equal(sample(model, prompt(), 10, generator=seeded(2)), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_one_decides():
    model = build()
    torch.manual_seed(4)
    first = sample(model, prompt(), 10)
    torch.manual_seed(4)
    assert torch.equal(sample(model, prompt(), 10), first)


def test_top_1_and_a_tiny_nucleus_are_greedy():
    model = build()
    greedy = sample(model, prompt(), 8, temperature=0)
    assert torch.equal(sample(model, prompt(), 8, top_k=1), greedy)
    assert torch.equal(sample(model, prompt(), 8, top_p=1e-6), greedy)
    assert torch.equal(sample(model, prompt(), 8, temperature=1e-4), greedy)


def test_sampling_runs_in_evaluation_mode_and_counts_no_training_step():
    model = build(dropout=0.5, attention_dropout=0.5)
    first = sample(model, prompt(), 8, temperature=0)
    assert torch.equal(sample(model, prompt(), 8, temperature=0), first)
    assert torch.equal(sample(model.eval(), prompt(), 8, temperature=0), first)
    assert model.hash_step == 0


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_it_was_also_after_an_error(training):
    model = build().train(training)
    model.embed.train(not training)
    modes = [module.training for module in model.modules()]
    sample(model, prompt(), 2)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="token ids"):
        sample(model, prompt() + VOCAB, 2)
    assert [module.training for module in model.modules()] == modes


def test_the_result_has_the_prompts_dtype_and_no_graph():
    for dtype in (torch.int32, torch.int64):
        tokens = sample(build(), prompt().to(dtype), 3)
        assert tokens.dtype == dtype
        assert not tokens.requires_grad


def test_the_prompt_stays_as_it_was():
    start = prompt()
    sample(build(), start, 3)
    assert torch.equal(start, prompt())


def test_edges_nothing_to_add_one_token_to_start_and_up_to_the_longest_length():
    model = build()
    assert torch.equal(sample(model, prompt(), 0), prompt())
    assert sample(model, prompt(length=1), 19).shape == (3, 20)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_tokens": 16}, r"fit max_length = 20, got 5 \+ 16: ask for at most 15"),
        ({"n_tokens": -1}, r"n_tokens .*got 5 \+ -1"),
        ({"prompt": torch.zeros(1, 0, dtype=torch.long)}, "prompt must have at least one token"),
        ({"temperature": -0.5}, "temperature must be at least 0, got -0.5: 0 is greedy"),
        ({"temperature": float("nan")}, "temperature must .*got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must be in \(0, 1\], got 1.1"),
        ({"prompt": torch.full((1, 3), VOCAB)}, "token ids must be 0 to .*got 9"),
    ],
)
def test_what_cannot_be_sampled_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(build(), **{"prompt": prompt(), "n_tokens": 3} | options)


def test_a_model_that_looks_both_ways_cannot_be_sampled():
    with pytest.raises(ValueError, match="sampling needs a causal model"):
        sample(build(causal=False), prompt(), 3)


def test_rows_are_read_where_the_model_is_and_returned_where_the_prompt_is(monkeypatch):
    model, read = build().to("meta"), []

    def forward(tokens):
        read.append(tokens.device.type)
        return torch.zeros(*tokens.shape, VOCAB)

    monkeypatch.setattr(model, "forward", forward)
    assert sample(model, prompt(), 2).device.type == "cpu"
    assert read == ["meta", "meta"]


@pytest.mark.gpu
def test_cuda_samples_greedily_as_the_cpu_does():
    model = build().double()
    expected = sample(model, prompt(), 10, temperature=0)
    there = sample(model.cuda(), prompt().cuda(), 10, temperature=0)
    assert there.is_cuda
    assert torch.equal(there.cpu(), expected)
    assert torch.equal(sample(model, prompt(), 10, temperature=0), expected)
    drawn = sample(model, prompt().cuda(), 10, generator=seeded(1))
    assert torch.equal(drawn, sample(model, prompt().cuda(), 10, generator=seeded(1)))
