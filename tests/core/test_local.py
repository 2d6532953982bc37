"""Local attention against loops over a window of the text."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap

from reformer_core.local import local_attention
from tests import oracles
from tests.core.counting import LiveBytes, Worst, say, without_shape_checker
from tests.core.strategies import paddings


def random_inputs(batch=2, heads=2, length=13, d_head=4, d_value=3, seed=0, dtype=torch.float64):
    numbers = np.random.default_rng(seed)
    widths = d_head, d_head, d_value
    shapes = [(batch, heads, length, width) for width in widths]
    return [torch.from_numpy(numbers.standard_normal(shape)).to(dtype) for shape in shapes]


def by_loops(inputs, padding=None, **rule) -> torch.Tensor:
    out = torch.zeros_like(inputs[2])
    for b, h in oracles.every(*out.shape[:2]):
        hidden = None if padding is None else padding[b].tolist()
        one = [part[b, h].numpy() for part in inputs]
        out[b, h] = torch.from_numpy(oracles.local_attention(*one, **rule, padding=hidden))
    return out


def dense(queries, keys, values, padding=None, **rule) -> torch.Tensor:
    """Attend by a matrix of who sees whom, in plain autograd."""
    batch, _, length, d_head = queries.shape
    visible = torch.stack(
        [
            torch.from_numpy(
                oracles.as_matrix(
                    oracles.seen_locally(
                        length, **rule, padding=None if padding is None else padding[b].tolist()
                    )
                )
            )
            for b in range(batch)
        ]
    )[:, None]
    scores = (queries @ keys.mT / math.sqrt(d_head)).masked_fill(~visible, -torch.inf)
    nobody = ~visible.any(-1, keepdim=True)
    weights = scores.masked_fill(nobody, 0).softmax(-1).masked_fill(nobody, 0)
    return weights @ values


@st.composite
def cases(draw: st.DrawFn):
    batch, length = draw(st.integers(1, 2)), draw(st.integers(1, 30))
    rule = {
        "chunk_length": draw(st.integers(1, 40)),
        "causal": draw(st.booleans()),
        "window": draw(st.sampled_from(["chunks", "sliding"])),
    }
    inputs = random_inputs(
        batch,
        draw(st.integers(1, 2)),
        length,
        draw(st.integers(1, 5)),
        draw(st.integers(1, 5)),
        draw(st.integers(0, 2**32 - 1)),
    )
    return inputs, draw(paddings(batch, length)), rule


def test_local_attention_is_what_loops_over_the_window_give():
    worst = Worst("local = loops", 1e-12), Worst("local gradients = dense", 1e-12)

    @settings(max_examples=150)
    @given(cases())
    def check(case):
        inputs, padding, rule = case
        worst[0].check(
            local_attention(*inputs, **rule, padding=padding), by_loops(inputs, padding, **rule)
        )
        leaves = [part.requires_grad_() for part in inputs]
        d_out = torch.randn(
            inputs[2].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        got = torch.autograd.grad(local_attention(*leaves, **rule, padding=padding), leaves, d_out)
        truth = torch.autograd.grad(dense(*leaves, **rule, padding=padding), leaves, d_out)
        for mine, its in zip(got, truth, strict=True):
            worst[1].check(mine, its)

    check()
    say(*worst)


def seen_by(i: int, length: int = 12, **rule: object) -> list[int]:
    """Read from the output whom position i sees."""
    queries = keys = torch.zeros(1, 1, length, 1)
    out = local_attention(queries, keys, torch.eye(length)[None, None], **rule)
    return out[0, 0, i].nonzero().flatten().tolist()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own attention's
def test_function_transforms_work():
    queries, keys, values = (torch.stack([part, 2 * part]) for part in random_inputs())
    keys.requires_grad_()

    def total(keys, queries, values) -> torch.Tensor:
        attended = local_attention(queries, keys, values, chunk_length=3, causal=False)
        return attended.sin().sum()

    transformed = vmap(grad(total))(keys.detach(), queries, values)
    one_by_one = sum(map(total, keys, queries, values))
    torch.testing.assert_close(transformed, torch.autograd.grad(one_by_one, keys)[0])


def test_windows_by_hand():
    assert seen_by(7, chunk_length=3, causal=True) == [3, 4, 5, 6, 7]
    assert seen_by(7, chunk_length=3, causal=False) == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert seen_by(7, chunk_length=3, causal=True, window="sliding") == [5, 6, 7]
    assert seen_by(7, chunk_length=3, causal=False, window="sliding") == [5, 6, 7, 8, 9]
    assert seen_by(7, chunk_length=1, causal=True, window="sliding") == [7]
    assert seen_by(7, chunk_length=99, causal=True) == list(range(8))


def test_oneself_is_visible_and_the_scale_is_one_over_the_root_of_the_width():
    queries = torch.full((1, 1, 2, 4), 1.0, dtype=torch.float64)
    keys = torch.zeros_like(queries)
    keys[0, 0, 1] = 0.5
    out = local_attention(
        queries, keys, torch.eye(2).double()[None, None], chunk_length=2, causal=True
    )
    assert out[0, 0, 0].tolist() == [1, 0]
    weight = 1 / (1 + math.exp(-4 * 0.5 / math.sqrt(4)))
    assert out[0, 0, 1].tolist() == pytest.approx([1 - weight, weight])


@pytest.mark.parametrize("window", ["chunks", "sliding"])
def test_local_attention_is_strictly_causal(window):
    inputs = random_inputs(length=20)
    rule = {"chunk_length": 4, "causal": True, "window": window}
    before = local_attention(*inputs, **rule)
    for part in inputs:
        part[:, :, 11:] += 1
    assert torch.equal(local_attention(*inputs, **rule)[:, :, :11], before[:, :, :11])
    shorter = local_attention(*(part[:, :, :11] for part in inputs), **rule)
    torch.testing.assert_close(shorter, before[:, :, :11])


def test_padding_that_is_no_truth_or_of_others_is_refused():
    inputs = [torch.randn(2, 2, 13, 4) for _ in range(3)]
    for padding, message in (
        (torch.zeros(2, 13, dtype=torch.long), "padding must be bool, .* got torch.int64"),
        (torch.zeros(2, 13, dtype=torch.bool, device="meta"), "padding must be on the device"),
        (torch.zeros(2, 12, dtype=torch.bool), r"padding must be .* = \(2, 13\) .* \(2, 12\)"),
    ):
        with without_shape_checker(), pytest.raises(ValueError, match=message):
            local_attention(*inputs, chunk_length=3, causal=True, padding=padding)


def test_padding_is_never_seen_gets_zeros_and_passes_no_gradient():
    inputs = random_inputs()
    padding = torch.tensor([[False] * 9 + [True] * 4, [True] * 13])
    rule = {"chunk_length": 3, "causal": False, "padding": padding}
    leaves = [part.clone().requires_grad_() for part in inputs]
    out = local_attention(*leaves, **rule)
    hidden = padding[:, None].expand(2, 2, 13)
    out.sum().backward()
    for part in (out, *(leaf.grad for leaf in leaves)):
        assert (part[hidden] == 0).all()
    changed = [part.masked_fill(hidden[..., None], 1e6) for part in inputs]
    assert torch.equal(local_attention(*changed, **rule), out)


def test_dropout_draws_from_the_global_generator():
    inputs = random_inputs()
    rule = {"chunk_length": 3, "causal": True, "dropout": 0.5}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (local_attention(*inputs, **rule) for _ in range(2))
        torch.manual_seed(0)
        assert torch.equal(local_attention(*inputs, **rule), first)
        assert not torch.equal(first, second)
        plain = local_attention(*inputs, **rule | {"dropout": 0.0})
        mean = torch.stack([local_attention(*inputs, **rule) for _ in range(300)]).mean(0)
    torch.testing.assert_close(mean, plain, atol=0.4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_result_has_the_dtype_of_the_inputs(dtype):
    inputs = random_inputs(length=40, d_head=8, dtype=dtype)
    out = local_attention(*inputs, chunk_length=8, causal=True)
    assert out.dtype == dtype
    exact = local_attention(*(part.double() for part in inputs), chunk_length=8, causal=True)
    torch.testing.assert_close(out.double(), exact, atol=4 * torch.finfo(dtype).eps, rtol=0)


def test_memory_grows_with_the_length_times_the_chunk():
    def peak(length: int) -> int:
        inputs = [
            part.requires_grad_()
            for part in random_inputs(1, 1, length, 16, 16, dtype=torch.float32)
        ]
        with LiveBytes() as memory:
            local_attention(*inputs, chunk_length=32, causal=True).sum().backward()
        return memory.peak

    short, long = peak(2048), peak(4096)
    assert long < 2.1 * short
    assert long < 4096**2 * 4 / 4


def test_rules_that_contradict_themselves_are_refused():
    inputs = random_inputs()
    with pytest.raises(ValueError, match="chunk_length must be at least 1, got 0"):
        local_attention(*inputs, chunk_length=0, causal=True)
    message = 'window must be "chunks" or "sliding"'
    with without_shape_checker(), pytest.raises(ValueError, match=message):
        local_attention(*inputs, chunk_length=2, causal=True, window="all")


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        local_attention(*random_inputs(length=0), chunk_length=2, causal=True)


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", ["chunks", "sliding"])
def test_cuda_attends_locally_as_the_cpu_does(causal, window):
    inputs = random_inputs(length=30)
    padding = torch.arange(30).expand(2, -1) > 25
    rule = {"chunk_length": 7, "causal": causal, "window": window}
    expected = local_attention(*inputs, **rule, padding=padding)
    out = local_attention(*(part.cuda() for part in inputs), **rule, padding=padding.cuda())
    torch.testing.assert_close(out.cpu(), expected)
