"""Layers: weights around the attention functions, hashing by step, and memos that repeat a pass."""

import numpy as np
import pytest
import torch
from torch import Tensor

from reformer_core.hashing import EVALUATION, draw_rotations, hash_generator
from reformer_core.layers import (
    AttentionSublayer,
    Context,
    FeedForwardSublayer,
    FullSelfAttention,
    LocalSelfAttention,
    LSHSelfAttention,
)
from tests import oracles

SIZES = (6, 2, 4)  # d_model, n_heads, d_head: heads need not fill d_model
LENGTH = 13


def build(kind=LSHSelfAttention, dtype=torch.float64, seed=0, **options):
    if kind is LSHSelfAttention:
        options = {"max_length": 32, "n_hashes": 3, "n_buckets": 4, "chunk_length": 4} | options
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(*SIZES, **options).to(dtype)


def random_x(batch=2, length=LENGTH, seed=1, dtype=torch.float64) -> Tensor:
    return torch.randn(batch, length, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_padding() -> Tensor:
    return torch.arange(LENGTH) >= torch.tensor([[9], [LENGTH]])


def heads_of(x: Tensor, weight: Tensor) -> np.ndarray:
    """Project and split, head after head: "batch heads length d_head"."""
    projected = (x @ weight.T).detach().numpy()
    return projected.reshape(*x.shape[:2], 2, 4).transpose(0, 2, 1, 3)


def projected_back(attended: np.ndarray, module: torch.nn.Module) -> Tensor:
    """Merge the heads again, and project to d_model."""
    merged = attended.transpose(0, 2, 1, 3).reshape(attended.shape[0], attended.shape[2], 8)
    return torch.from_numpy(merged) @ module.out.weight.T


# ---------------------------------------------------------------- LSH


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("step", [EVALUATION, 0, 7])
@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"window": "sliding"},
        {"causal": False},
        {"within_bucket": False, "count_repeats": True},
        {"n_buckets": (2, 4), "chunks_before": 2},
    ],
)
def test_lsh_self_attention_hashes_plans_attends_and_projects(rule, step, padded):
    module, x = build(**rule, hash_seed=5, layer=3), random_x()
    padding = some_padding() if padded else None
    change, memo = module(x, Context(padding=padding, step=step))
    qk, values = heads_of(x, module.qk.weight), heads_of(x, module.values.weight)
    n_buckets = rule.get("n_buckets", 4)
    rotations = draw_rotations(3, 2, 4, n_buckets, hash_generator(5, 3, step)).double().numpy()
    factors = (n_buckets,) if isinstance(n_buckets, int) else n_buckets
    windows = {"chunk_length": 4, "causal": True, "chunks_after": 1 - rule.get("causal", True)}
    windows |= {
        name: value for name, value in rule.items() if name not in ("n_buckets", "count_repeats")
    }
    attended = np.zeros((2, 2, LENGTH, 4))
    for b, h in oracles.every(2, 2):
        hidden = padding[b].tolist() if padded else None
        rounds = []
        for r in range(3):
            buckets = [oracles.bucket_of(vector, rotations[h, r], factors) for vector in qk[b, h]]
            assert memo[b, h, r].tolist() == buckets
            rounds.append(oracles.seen_in_round(buckets, **windows, padding=hidden))
        attended[b, h] = oracles.lsh_attention(
            qk[b, h],
            values[b, h],
            rounds,
            padding=hidden,
            count_repeats=rule.get("count_repeats", False),
        )
    torch.testing.assert_close(change, projected_back(attended, module))


def test_evaluation_rotations_come_from_hash_seed_and_layer_alone():
    module = build(hash_seed=1, layer=2, seed=0)
    again = build(hash_seed=1, layer=2, seed=99)
    assert torch.equal(module.rotations(EVALUATION), again.rotations(EVALUATION))
    for other in (build(hash_seed=2, layer=2), build(hash_seed=1, layer=3)):
        assert not torch.equal(module.rotations(EVALUATION), other.rotations(EVALUATION))


def test_every_training_step_has_rotations_of_its_own():
    module = build()
    steps = [module.rotations(step) for step in (EVALUATION, 0, 1, 2)]
    for i, one in enumerate(steps):
        for other in steps[:i]:
            assert not torch.equal(one, other)
    assert torch.equal(module.rotations(1), steps[2])


def test_hashing_leaves_the_global_generator_alone():
    module, before = build(), torch.get_rng_state()
    module(random_x(), Context(step=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_n_buckets_there_are_two_per_chunk_of_the_longest_length():
    module = build(n_buckets=None, max_length=30, chunk_length=4)
    for length in (1, 5, 30):
        assert module.plan(module.project(random_x(length=length))[0], Context()).n_buckets == 16


@pytest.mark.parametrize(
    ("n_buckets", "dtype"),
    [(4, torch.int8), (128, torch.int8), (130, torch.int16), ((16, 16), torch.int16)],
)
def test_the_memo_is_the_buckets_in_the_smallest_signed_type_that_holds_them(n_buckets, dtype):
    module, x = build(n_buckets=n_buckets), random_x(length=30)
    _, memo = module(x)
    assert memo.dtype == dtype
    assert torch.equal(memo.long(), module.plan(module.project(x)[0], Context()).buckets)


def test_a_memo_given_back_makes_an_exact_repetition():
    module, x = build(), random_x()
    context = Context(padding=some_padding(), step=4)
    change, memo = module(x, context)
    again, same = module(x, context, memo)
    assert torch.equal(again, change)
    assert torch.equal(same, memo)
    other, _ = module(x, Context(padding=some_padding(), step=5), memo)
    assert torch.equal(other, change)


def test_a_memo_decides_and_not_the_hash():
    module, x = build(), random_x()
    everyone = torch.zeros(2, 2, 3, LENGTH, dtype=torch.int8)
    change, memo = module(x, memo=everyone)
    assert torch.equal(memo, everyone)
    assert not torch.equal(change, module(x)[0])


@pytest.mark.parametrize("kind", [LSHSelfAttention, LocalSelfAttention, FullSelfAttention])
def test_attention_is_dropped_in_training_only(kind):
    module, x = build(kind, dropout=0.5), random_x()
    assert not torch.equal(module(x)[0], module(x)[0])
    plain = build(kind)
    module.eval()
    torch.testing.assert_close(module(x)[0], plain(x)[0])
    torch.manual_seed(1)
    module.train()
    first = module(x)[0]
    torch.manual_seed(1)
    assert torch.equal(module(x)[0], first)


def test_rotations_follow_the_module_but_are_not_in_its_state():
    module = build(dtype=torch.float32)
    assert set(module.state_dict()) == {"qk.weight", "values.weight", "out.weight"}
    assert module.rotations(3).dtype == module.rotations(EVALUATION).dtype == torch.float32
    module.double()
    assert module.rotations(3).dtype == module.rotations(EVALUATION).dtype == torch.float64


@pytest.mark.parametrize("kind", [LSHSelfAttention, LocalSelfAttention, FullSelfAttention])
def test_every_weight_gets_a_gradient(kind):
    module = build(kind)
    module(random_x())[0].sum().backward()
    for name, weight in module.named_parameters():
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_buckets": 5}, "n_buckets must be even"),
        ({"chunk_length": 0, "n_buckets": 2}, "chunk_length must be at least 1, got 0"),
        ({"chunk_length": 0, "n_buckets": None}, "chunk_length must be at least 1, got 0"),
        ({"chunks_after": 1}, "chunks_after must be 0 when causal"),
        ({"window": "sliding", "chunks_before": 0}, "sliding window of no slots"),
        ({"n_hashes": 0}, "n_hashes must be at least 1"),
    ],
)
def test_a_layer_that_cannot_work_is_refused_when_it_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


# ---------------------------------------------------------------- local and full


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", ["chunks", "sliding"])
def test_local_self_attention_projects_separate_queries_and_keys(window, causal, padded):
    rule = {"chunk_length": 4, "causal": causal, "window": window}
    module, x = build(LocalSelfAttention, **rule), random_x()
    padding = some_padding() if padded else None
    change, memo = module(x, Context(padding=padding))
    parts = [heads_of(x, linear.weight) for linear in (module.queries, module.keys, module.values)]
    attended = np.zeros((2, 2, LENGTH, 4))
    for b, h in oracles.every(2, 2):
        hidden = padding[b].tolist() if padded else None
        one = [part[b, h] for part in parts]
        attended[b, h] = oracles.local_attention(*one, **rule, padding=hidden)
    torch.testing.assert_close(change, projected_back(attended, module))
    assert memo is None


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [True, False])
def test_full_self_attention_shares_queries_and_keys_as_lsh_does(causal, padded):
    module, x = build(FullSelfAttention, causal=causal), random_x()
    padding = some_padding() if padded else None
    change, memo = module(x, Context(padding=padding))
    qk, values = heads_of(x, module.qk.weight), heads_of(x, module.values.weight)
    attended = np.zeros((2, 2, LENGTH, 4))
    for b, h in oracles.every(2, 2):
        hidden = padding[b].tolist() if padded else None
        attended[b, h] = oracles.full_attention(
            qk[b, h], values[b, h], causal=causal, padding=hidden
        )
    torch.testing.assert_close(change, projected_back(attended, module))
    assert memo is None


def test_lsh_in_one_bucket_and_one_chunk_is_full_attention():
    lsh = build(chunk_length=LENGTH)
    full = build(FullSelfAttention)
    full.load_state_dict(lsh.state_dict())
    x = random_x()
    one_bucket = torch.zeros(2, 2, 3, LENGTH, dtype=torch.int8)
    torch.testing.assert_close(lsh(x, memo=one_bucket)[0], full(x)[0])


# ---------------------------------------------------------------- sublayers


def test_the_attention_sublayer_normalises_attends_and_drops():
    attention, x = build(), random_x()
    sublayer = AttentionSublayer(6, attention, dropout=0.5).double()
    with torch.no_grad():
        sublayer.norm.weight.uniform_(0.5, 2)
        sublayer.norm.bias.uniform_(-1, 1)
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    expected, buckets = attention(normal * sublayer.norm.weight + sublayer.norm.bias)
    sublayer.eval()
    change, memo = sublayer(x)
    torch.testing.assert_close(change, expected)
    assert torch.equal(memo, buckets)
    sublayer.train()
    ratio = (sublayer(x)[0] / change).round(decimals=6)
    assert set(ratio.flatten().tolist()) == {0.0, 2.0}


def test_the_feed_forward_sublayer_has_no_memo_and_needs_no_context():
    torch.manual_seed(0)
    sublayer = FeedForwardSublayer(6, 10, n_chunks=2).double()
    change, memo = sublayer(random_x(), Context(padding=some_padding()))
    assert memo is None
    torch.testing.assert_close(change, sublayer.piece(random_x()))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [LSHSelfAttention, LocalSelfAttention, FullSelfAttention])
def test_cuda_layers_do_as_the_cpu_does(kind):
    module, x = build(kind), random_x()
    expected = module(x, Context(padding=some_padding(), step=2))[0]
    there = Context(padding=some_padding().cuda(), step=2)
    torch.testing.assert_close(module.cuda()(x.cuda(), there)[0].cpu(), expected)
