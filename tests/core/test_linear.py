"""Products with weights: whoever multiplies, the numbers and derivatives are those of torch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from reformer_core import linear as module
from reformer_core.feed_forward import FeedForward
from reformer_core.linear import Linear, linear, linear_gelu
from reformer_core.reversible import ReversibleBlock, ReversibleStack
from tests.core.counting import Worst

LARGE = {"x": (2, 300, 256), "weight": (256, 256)}
"""More multiplications than are worth calling oneDNN for."""


def drawn(*shape: int, **options) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), **options)


def operands(x=LARGE["x"], weight=LARGE["weight"], bias=True, dtype=torch.float32) -> list:
    leaves = [drawn(*x), drawn(*weight) / weight[1] ** 0.5, drawn(weight[0]) if bias else None]
    return [None if leaf is None else leaf.to(dtype).requires_grad_() for leaf in leaves]


@pytest.fixture
def by_onednn(monkeypatch) -> list:
    """Note what oneDNN is given to multiply."""
    given, multiply = [], module._multiply
    monkeypatch.setattr(module, "_multiply", lambda *all_: given.append(all_) or multiply(*all_))
    return given


def gradients(function: Callable[..., Tensor], leaves: list[Tensor | None]) -> list[Tensor]:
    """Return value, first and second derivatives."""
    wanted = [leaf for leaf in leaves if leaf is not None]
    out = function(*leaves)
    first = torch.autograd.grad(out.tanh().sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum(part.square().sum() for part in first), wanted)
    return [out, *first, *second]


def assert_equal(got: list[Tensor], truth: list[Tensor]) -> None:
    worst = Worst("linear = torch's", 1e-4)
    for mine, its in zip(got, truth, strict=True):
        worst.check(mine / its.abs().max(), its / its.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shapes",
    [LARGE, {"x": (600, 256), "weight": (256, 256)}, {"x": (3, 5, 7), "weight": (11, 7)}],
    ids=["large", "flat", "small"],
)
def test_values_and_derivatives_of_both_orders_are_torchs(by_onednn, shapes, bias):
    leaves = operands(**shapes, bias=bias)
    assert_equal(gradients(linear, leaves), gradients(functional.linear, leaves))
    assert bool(by_onednn) == (shapes["weight"] == LARGE["weight"])


@pytest.mark.parametrize("turned", ["x", "weight", "both"])
def test_operands_may_lie_in_memory_in_any_order(by_onednn, turned):
    x, weight, bias = operands()
    if turned != "weight":
        x = x.transpose(0, 1)
    if turned != "x":
        weight = weight.t()
    for seen in (x, x[:, :1].expand_as(x)):
        assert_equal([linear(seen, weight, bias)], [functional.linear(seen, weight, bias)])
    assert len(by_onednn) == 2


def test_only_the_gradients_that_are_wanted_are_computed(by_onednn):
    x, weight, bias = operands()
    x.requires_grad_(False)
    linear(x, weight, bias).sum().backward()
    assert len(by_onednn) == 1  # the forward
    assert x.grad is None
    assert_equal([bias.grad], [torch.full_like(bias, 600)])


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own use of it
def test_forward_derivatives_are_torchs(by_onednn):
    leaves = [leaf.detach() for leaf in operands()]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(leaf, drawn(*leaf.shape)) for leaf in leaves]
        mine, its = (
            forward_ad.unpack_dual(function(*duals)).tangent
            for function in (linear, functional.linear)
        )
    assert by_onednn
    assert_equal([mine], [its])


def test_function_transforms_work():
    x, weight, bias = (leaf.detach() for leaf in operands())
    assert_equal(
        [
            vmap(linear, (0, None, None))(x, weight, bias),
            grad(lambda x: linear(x, weight).sum())(x),
        ],
        [functional.linear(x, weight, bias), weight.sum(0).expand_as(x)],
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_numbers_are_torchs_to_multiply(by_onednn, dtype):
    leaves = operands(dtype=dtype)
    assert torch.equal(linear(*leaves), functional.linear(*leaves))
    assert not by_onednn


def test_autocast_is_obeyed(by_onednn):
    leaves = operands()
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(*leaves).dtype == torch.bfloat16
    assert not by_onednn


def test_who_counts_operations_sees_torchs(by_onednn):
    leaves = operands()
    with FlopCounterMode(display=False) as counter:
        linear(*leaves)
    assert counter.get_total_flops() == 2 * 600 * 256 * 256
    assert not by_onednn


def test_a_torch_without_onednn_multiplies_itself(by_onednn, monkeypatch):
    leaves = operands()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert torch.equal(linear(*leaves), functional.linear(*leaves))
    assert not by_onednn


def test_gelu_is_applied_with_the_product_where_no_gradient_is_asked(by_onednn):
    leaves = operands()
    truth = functional.gelu(functional.linear(*leaves))
    with torch.no_grad():
        assert_equal([linear_gelu(*leaves)], [truth])
    assert by_onednn[-1][-1] == "gelu"
    assert_equal(
        gradients(linear_gelu, leaves),
        gradients(lambda *all_: functional.gelu(functional.linear(*all_)), leaves),
    )
    assert by_onednn[-1][-1] != "gelu"


def test_the_module_is_torchs_but_for_who_multiplies():
    mine, its = Linear(7, 5), nn.Linear(7, 5)
    assert isinstance(mine, nn.Linear)
    mine.load_state_dict(its.state_dict())
    x = drawn(3, 7)
    assert torch.equal(mine(x), its(x))
    other = {name: 2 * value for name, value in its.state_dict().items()}
    assert torch.equal(functional_call(mine, other, (x,)), functional_call(its, other, (x,)))


def test_a_reversible_stack_of_large_products_has_ordinary_gradients(by_onednn):
    class Changed(nn.Module):
        """A sublayer without a memo."""

        def __init__(self, change: nn.Module) -> None:
            super().__init__()
            self.change = change

        def forward(self, x: Tensor, context: None = None, memo: None = None):
            return self.change(x), None

    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [
            ReversibleBlock(Changed(Linear(256, 256)), Changed(FeedForward(256, 512)))
            for _ in range(2)
        ]
    got = []
    for reversible in (True, False):
        stack = ReversibleStack(blocks, reversible=reversible)
        x = drawn(2, 300, 256, requires_grad=True)
        ends = stack(x, x)
        got.append([*ends, *torch.autograd.grad(sum(ends).sin().sum(), [x, *stack.parameters()])])
        assert ("gelu" in {call[-1] for call in by_onednn}) == reversible
        by_onednn.clear()
    assert_equal(*got)


def test_inference_mode_is_obeyed(by_onednn):
    leaves = operands()
    with torch.inference_mode():
        out = linear(*leaves)
        assert out.is_inference()
        assert_equal([out], [functional.linear(*leaves)])
    assert by_onednn
