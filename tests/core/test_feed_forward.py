"""Feed-forward: the same function whatever the number of pieces, in less memory."""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from reformer_core import feed_forward as module_of_pieces
from reformer_core.feed_forward import FeedForward, in_pieces
from tests.core.counting import LiveBytes, saved_bytes


def build(n_chunks: int = 1, d_model=6, d_ff=10, dtype=torch.float64, **options) -> FeedForward:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FeedForward(d_model, d_ff, n_chunks=n_chunks, **options).to(dtype)


def random_x(batch=2, length=11, d_model=6, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(
        batch, length, d_model, generator=torch.Generator().manual_seed(1), dtype=dtype
    )


def results(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the output and every gradient of one pass."""
    x = x.clone().requires_grad_()
    out = module(x)
    leaves = [x, *module.parameters()]
    return [out, *torch.autograd.grad(out.sin().sum(), leaves)]


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_feed_forward_is_two_linear_layers_after_a_norm(activation):
    module, x = build(activation=activation), random_x()
    weights = {name.removeprefix("piece."): w for name, w in module.named_parameters()}
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    normal = normal * weights["norm.weight"] + weights["norm.bias"]
    middle = normal @ weights["w_in.weight"].T + weights["w_in.bias"]
    middle = {
        "gelu": lambda y: y * (1 + torch.erf(y / 2**0.5)) / 2,
        "relu": lambda y: y.clamp_min(0),
        "silu": lambda y: y * torch.sigmoid(y),
    }[activation](middle)
    expected = middle @ weights["w_out.weight"].T + weights["w_out.bias"]
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("n_chunks", [2, 3, 5, 11, 100])
@pytest.mark.parametrize("length", [1, 11])
def test_any_number_of_pieces_is_the_same_function_forward_and_backward(n_chunks, length):
    x = random_x(length=length)
    for got, truth in zip(results(build(n_chunks), x), results(build(1), x), strict=True):
        torch.testing.assert_close(got, truth, atol=1e-12, rtol=1e-12)


def test_every_position_is_computed_by_itself():
    module, x = build(3), random_x()
    whole = module(x)
    for t in range(x.shape[1]):
        torch.testing.assert_close(module(x[:, t : t + 1]), whole[:, t : t + 1])


@pytest.mark.parametrize("n_chunks", [1, 4])
def test_numerical_derivatives_agree(n_chunks):
    module = build(n_chunks, d_model=3, d_ff=4)
    x = random_x(1, 5, 3).requires_grad_()
    torch.autograd.gradcheck(module, x)


@pytest.mark.parametrize("n_chunks", [1, 4])
def test_the_backward_of_pieces_sees_the_dropout_of_the_forward(n_chunks):
    module = build(n_chunks, dropout=0.4)
    x = random_x().requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = module(x)
        # The output is linear in w_out's weights: they meet their gradient in the output itself.
        weight, bias = module.piece.w_out.weight, module.piece.w_out.bias
        gradients = torch.autograd.grad(out.sum(), (weight, bias))
    linear = (gradients[0] * weight).sum() + (gradients[1] * bias).sum()
    torch.testing.assert_close(linear, out.sum())


def test_dropout_stops_in_evaluation():
    module, x = build(2, dropout=0.5).eval(), random_x()
    assert torch.equal(module(x), module(x))
    torch.testing.assert_close(module(x), build(1)(x))


def peak(n_chunks: int, with_gradient: bool) -> int:
    module = build(n_chunks, d_model=8, d_ff=256, dtype=torch.float32)
    x = random_x(1, 512, 8, torch.float32).requires_grad_()
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as memory, torch.set_grad_enabled(with_gradient):
        out = module(x)
        if with_gradient:
            out.sum().backward()
    return memory.peak


@pytest.mark.parametrize("with_gradient", [False, True])
def test_more_pieces_need_less_memory_forward_and_backward(with_gradient):
    whole, two, sixteen = (peak(n_chunks, with_gradient) for n_chunks in (1, 2, 16))
    assert two < 0.75 * whole
    assert sixteen < 0.25 * whole


def test_a_piece_keeps_only_its_input_for_the_backward():
    def kept(n_chunks: int) -> int:
        module = build(n_chunks, d_ff=64)
        x = random_x(length=24).requires_grad_()
        with saved_bytes(besides=[x, *module.parameters()]) as bytes_of:
            out = module(x)
        assert out.requires_grad
        return bytes_of.get(torch.float64, 0)

    x = random_x(length=24)
    assert kept(4) <= x.nbytes
    assert kept(1) > 10 * x.nbytes


def test_no_graph_is_kept_without_gradients():
    with torch.no_grad():
        assert not build(3)(random_x()).requires_grad


def test_pieces_of_any_position_wise_function():
    x = random_x()
    torch.testing.assert_close(in_pieces(torch.exp, x, 4), x.exp())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanh"}, "activation must be one of .*'gelu'.*got 'tanh'"),
        ({"n_chunks": 0}, "n_chunks must be at least 1, got 0"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FeedForward(4, 8, **options)


@pytest.mark.gpu
def test_cuda_feeds_forward_as_the_cpu_does():
    expected = results(build(3), random_x())
    got = results(build(3).cuda(), random_x().cuda())
    for mine, its in zip(got, expected, strict=True):
        torch.testing.assert_close(mine.cpu(), its)


def test_without_gradients_gelu_comes_with_the_product_unless_somebody_looks(monkeypatch):
    together = []
    linear_gelu = module_of_pieces.linear_gelu
    monkeypatch.setattr(
        module_of_pieces, "linear_gelu", lambda *all_: together.append(1) or linear_gelu(*all_)
    )
    x = random_x()

    def passes(module: FeedForward) -> bool:
        """Compare with a pass that has a graph, and say whether GELU came with the product."""
        together.clear()
        truth = module(x)
        assert not together
        with torch.no_grad():
            torch.testing.assert_close(module(x), truth)
        return bool(together)

    assert passes(build())
    assert passes(build(n_chunks=3))
    assert passes(build(dropout=0.5).eval())
    assert not passes(build(activation="relu"))
    for name in ("w_in", "dropout_in", "activation"):
        looked_at, seen = build(), []
        looked_at.piece.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(output)
        )
        assert not passes(looked_at)
        assert len(seen) == 2
        replaced = build()
        inner = replaced.piece.get_submodule(name)
        inner.forward = lambda x, forward=inner.forward: 2 * forward(x)
        assert not passes(replaced)
    dropping = build(dropout=0.5)
    with torch.no_grad():
        dropping(x)
    assert not together
    with register_module_forward_hook(lambda module, inputs, output: None):
        assert not passes(build())
