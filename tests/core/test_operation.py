"""What torch sees of attention, hashing, sorting and rotations keeps the rules of operations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.library import opcheck

from reformer_core.attention import chunked, lsh_attention, operation
from reformer_core.attention.rule import Rule
from reformer_core.bucketing import plan_chunks
from reformer_core.hashing import draw_rotations, hash_generator, rotations_at
from tests.core.strategies import bucketed

OPERATIONS = torch.ops.reformer

RULES = {
    "chunks": {"causal": True},
    "sliding, both ways": {"causal": False, "window": "sliding", "chunks_after": 1},
    "across buckets": {"causal": True, "within_bucket": False},
}


def arguments(rule: dict, dtype=torch.float64, padded=False, **options) -> tuple:
    """Make qk and values that ask for gradients, and the parts of a rule."""
    qk, values = (torch.randn(2, 2, 13, width, dtype=dtype, requires_grad=True) for width in (4, 3))
    padding = torch.arange(13).expand(2, -1) > 10 if padded else None
    buckets = torch.randint(0, 4, (2, 2, 2, 13))
    plan = plan_chunks(buckets, chunk_length=4, n_buckets=4, padding=padding, **rule)
    return qk, values, *operation._taken_apart(Rule(plan=plan, **options))


def arguments_of_gradients(inputs: tuple) -> tuple:
    qk, values, *parts = inputs
    qk, values = qk.detach(), values.detach()
    out, log_total = OPERATIONS.lsh_attention(qk, values, *parts)
    return torch.randn_like(out), qk, values, out, log_total, *parts


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_attention_and_its_gradients_pass_torchs_own_checks(name, dtype, dropout):
    dropped = bool(dropout)
    inputs = arguments(
        RULES[name], dtype, padded=dropped, count_repeats=dropped, dropout=dropout, seed=3
    )
    opcheck(OPERATIONS.lsh_attention.default, inputs)
    opcheck(OPERATIONS.lsh_attention_gradients.default, arguments_of_gradients(inputs))


@pytest.mark.parametrize("together", [(0,), (1,), (0, 1)], ids=["qk", "values", "both"])
def test_it_passes_them_too_where_heads_lie_together(together):
    inputs = arguments(RULES["chunks"], torch.float32)
    inputs = tuple(
        part.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        if number in together
        else part
        for number, part in enumerate(inputs)
    )
    opcheck(OPERATIONS.lsh_attention.default, inputs)
    opcheck(OPERATIONS.lsh_attention_gradients.default, arguments_of_gradients(inputs))


def test_hashing_sorting_and_rotations_pass_torchs_own_checks():
    rotations = draw_rotations(3, 2, 4, (4, 6), hash_generator(0, 0, 0))
    opcheck(OPERATIONS.hash_vectors.default, (torch.randn(2, 2, 9, 4), rotations, (4, 6)))
    for dtype in (torch.int16, torch.int64):
        opcheck(OPERATIONS.sort_buckets.default, (torch.randint(0, 5, (2, 3, 2, 9)).to(dtype),))
    opcheck(OPERATIONS.rotations_at.default, (torch.tensor(7), 1, 2, 3, 2, 4, (4, 6)))


def test_the_parts_of_a_rule_are_the_rule():
    qk, values, *parts = arguments(RULES["chunks"], padded=True, dropout=0.2, seed=(1 << 62) - 1)
    rule = operation._put_together(*parts)
    assert (rule.dropout, rule.seed, rule.count_repeats) == (0.2, (1 << 62) - 1, False)
    again = operation._taken_apart(rule)
    for one, other in zip(parts, again, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    out, _ = OPERATIONS.lsh_attention(qk, values, *parts)
    expected = lsh_attention(qk, values, rule.plan, dropout=0.2, seed=rule.seed)
    assert torch.equal(out, expected)


def test_the_operation_called_by_name_is_differentiable_once():
    qk, values, *parts = arguments(RULES["chunks"])
    out, log_total = OPERATIONS.lsh_attention(qk, values, *parts)
    assert out.requires_grad
    assert not log_total.requires_grad
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(out.sum(), qk, create_graph=True)


def test_neither_forward_nor_backward_computes_under_autocast(monkeypatch):
    seen = []

    class Watched:
        def __getattr__(self, name):
            seen.append((name, torch.is_autocast_enabled("cpu")))
            return getattr(chunked, name)

    monkeypatch.setattr(operation, "implementation", lambda qk, values: Watched())
    qk, values, *parts = arguments(RULES["chunks"], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = OPERATIONS.lsh_attention(qk, values, *parts)
        out.sum().backward()
    assert seen == [("attend", False), ("gradients", False)]


def test_the_fused_kernels_are_chosen_where_they_run_and_have_no_objection(monkeypatch):
    qk, values, *_ = arguments(RULES["chunks"], torch.float32)
    assert operation.implementation(qk, values) is chunked  # no kernel runs on a processor
    monkeypatch.setattr(operation.triton, "available", lambda device: True)
    assert operation.implementation(qk, values) is operation.triton
    assert operation.implementation(qk.double(), values.double()) is chunked


# ---------------------------------------------------------------- sorting and rotations


@given(bucketed(max_length=300), st.sampled_from([torch.int16, torch.int32, torch.int64]))
def test_sorting_is_torchs_stable_sort(buckets, dtype):
    expected = torch.sort(buckets, dim=-1, stable=True).indices
    assert torch.equal(OPERATIONS.sort_buckets(buckets.to(dtype)), expected)
    turned = buckets.to(dtype).mT.contiguous().mT  # the same keys in another layout
    assert torch.equal(OPERATIONS.sort_buckets(turned), expected)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("n_buckets", [64, (1 << 15) - 1, 1 << 15, 1 << 20])
@pytest.mark.parametrize("kind", ["random", "constant", "sorted", "reversed"])
def test_plans_of_any_number_of_buckets_stand_in_stable_order(n_buckets, kind, padded):
    buckets = torch.randint(0, n_buckets, (2, 1, 2, 500))
    if kind == "constant":
        buckets[:] = n_buckets - 1
    elif kind != "random":
        buckets = buckets.sort(dim=-1, descending=kind == "reversed").values
    padding = torch.rand(2, 500) < 0.3 if padded else None
    plan = plan_chunks(buckets, chunk_length=8, causal=True, n_buckets=n_buckets, padding=padding)
    key = buckets if padding is None else buckets.masked_fill(padding[:, None, None], n_buckets)
    assert torch.equal(plan.order, torch.sort(key, dim=-1, stable=True).indices)
    assert torch.equal(plan.order.gather(-1, plan.slot), torch.arange(500).expand(buckets.shape))


@given(st.integers(0, 2**40), st.integers(0, 30), st.integers(0, 2**40))
def test_a_step_in_a_tensor_draws_the_rotations_of_its_number(hash_seed, layer, step):
    sizes = 2, 3, 4, (4, 6)
    expected = draw_rotations(*sizes, hash_generator(hash_seed, layer, step))
    assert torch.equal(rotations_at(torch.tensor(step), hash_seed, layer, *sizes), expected)
