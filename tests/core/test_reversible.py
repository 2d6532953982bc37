"""Reversible layers: the gradient is ordinary autograd's, however one asks, and nothing is kept."""

import contextlib
import copy
import itertools
import socket
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from reformer_core.feed_forward import FeedForward
from reformer_core.reversible import ReversibleBlock, ReversibleStack
from tests import oracles
from tests.core.counting import LiveBytes, Worst, saved_bytes

WIDTH = 5
REVERSIBLE = pytest.mark.parametrize("reversible", [True, False], ids=["reversible", "ordinary"])


@dataclass(frozen=True, kw_only=True)
class Told:
    """A context: one tensor that wants a gradient, one that has none, one plain number."""

    scale: Tensor
    padding: Tensor
    step: int = 0


class Mixing(nn.Module):
    """Mix positions, in an order that it chooses anew in every call unless a memo says which."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.calls = itertools.count()

    def forward(self, x: Tensor, context: Told | None = None, memo: Tensor | None = None):
        if memo is None:
            generator = torch.Generator().manual_seed(next(self.calls))
            memo = torch.randperm(x.shape[1], generator=generator).to(torch.int16)
        change = self.dropout(torch.tanh(self.linear(x)))[:, memo.long()]
        if context is not None:
            change = change * context.scale
            change = change.masked_fill(context.padding[..., None], 0)
        return change, memo

    def __deepcopy__(self, memo: dict) -> "Mixing":
        other = Mixing(self.dropout.p).to(self.linear.weight)
        other.load_state_dict(self.state_dict())
        return other


class Widening(FeedForward):
    """A feed-forward sublayer, in pieces where n_chunks says so."""

    def forward(self, x: Tensor, context: Told | None = None, memo: None = None):
        return super().forward(x), None


def build(
    reversible=True, depth=3, dropout=0.0, n_chunks=1, dtype=torch.float64, n_kept=0
) -> ReversibleStack:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [
            ReversibleBlock(Mixing(dropout), Widening(WIDTH, 7, n_chunks=n_chunks, dropout=dropout))
            for _ in range(depth)
        ]
    return ReversibleStack(blocks, reversible=reversible, n_kept=n_kept).to(dtype)


def streams(seed=1, batch=2, length=6, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, batch, length, WIDTH, generator=torch.Generator().manual_seed(seed))
    return x[0].to(dtype), x[1].to(dtype)


def told(dtype=torch.float64) -> Told:
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[:, 5] = True
    scale = torch.linspace(0.5, 1.5, WIDTH, dtype=dtype).requires_grad_()
    return Told(scale=scale, padding=padding)


def loss_of(y1: Tensor, y2: Tensor) -> Tensor:
    return (y1.sin() * 2 + y2.cos() * y1).sum()


def results(stack: ReversibleStack, seed: int = 3, context: Told | None = None) -> list[Tensor]:
    """Return outputs and the gradients of streams, context and weights."""
    leaves = [part.requires_grad_() for part in streams()]
    torch.manual_seed(seed)
    y1, y2 = stack(*leaves, context)
    leaves += [] if context is None else [context.scale]
    return [y1, y2, *torch.autograd.grad(loss_of(y1, y2), [*leaves, *stack.parameters()])]


def assert_equal_results(got: list, truth: list, bound: float = 1e-10) -> None:
    worst = Worst("reversible = ordinary", bound)
    for mine, its in zip(got, truth, strict=True):
        worst.check(mine, its)


# ---------------------------------------------------------------- the equations


class Fixed(nn.Module):
    """A sublayer made of a plain function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, context: None = None, memo: None = None):
        return self.function(x), None


def test_a_stack_is_the_papers_equations_and_they_can_be_undone():
    functions = [(torch.tanh, torch.sin), (torch.cos, torch.square)]
    blocks = [ReversibleBlock(Fixed(f), Fixed(g)) for f, g in functions]
    x1, x2 = streams()
    for reversible in (True, False):
        y1, y2 = ReversibleStack(blocks, reversible=reversible)(x1, x2)
        expected = oracles.reversible_forward(x1, x2, functions)
        torch.testing.assert_close((y1, y2), expected)
        torch.testing.assert_close(oracles.reversible_inverse(y1, y2, functions), (x1, x2))


def test_a_block_alone_is_one_step_of_the_equations():
    x1, x2 = streams()
    y1, y2 = ReversibleBlock(Fixed(torch.tanh), Fixed(torch.sin))(x1, x2)
    torch.testing.assert_close(y1, x1 + torch.tanh(x2))
    torch.testing.assert_close(y2, x2 + torch.sin(y1))


# ---------------------------------------------------------------- the gradient


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("n_chunks", [1, 4])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("with_context", [False, True])
def test_outputs_and_gradients_equal_ordinary_autograd(depth, n_chunks, dropout, with_context):
    options = {"depth": depth, "dropout": dropout, "n_chunks": n_chunks}
    context = told() if with_context else None
    assert_equal_results(
        results(build(True, **options), context=context),
        results(build(False, **options), context=context),
    )


def test_a_choice_is_replayed_from_its_memo_and_not_made_again():
    stack = build()
    results(stack)
    assert [next(block.f.calls) for block in stack] == [1, 1, 1]


@REVERSIBLE
def test_the_global_generator_stands_where_ordinary_autograd_leaves_it(reversible):
    stack = build(reversible, dropout=0.4)
    torch.manual_seed(5)
    y1, y2 = stack(*(part.requires_grad_() for part in streams()))
    after_forward = torch.get_rng_state()
    loss_of(y1, y2).backward()
    assert torch.equal(torch.get_rng_state(), after_forward)
    torch.manual_seed(5)
    for _ in range(3):  # what the six dropouts of one forward draw
        torch.dropout(torch.zeros(2, 6, WIDTH, dtype=torch.float64), 0.4, True)
        torch.dropout(torch.zeros(2, 6, 7, dtype=torch.float64), 0.4, True)
        torch.dropout(torch.zeros(2, 6, WIDTH, dtype=torch.float64), 0.4, True)
    assert torch.equal(torch.get_rng_state(), after_forward)


def test_numbers_drawn_between_forward_and_backward_do_not_disturb_the_replay():
    truth = results(build(True, dropout=0.4))
    stack = build(True, dropout=0.4)
    leaves = [part.requires_grad_() for part in streams()]
    torch.manual_seed(3)
    y1, y2 = stack(*leaves)
    torch.rand(100)
    gradients = torch.autograd.grad(loss_of(y1, y2), [*leaves, *stack.parameters()])
    assert_equal_results([y1, y2, *gradients], truth, 0.0)


def test_gradients_by_backward_and_by_grad_are_the_same():
    stack = build()
    x1, x2 = (part.requires_grad_() for part in streams())
    loss_of(*stack(x1, x2)).backward()
    by_backward = [x1.grad, x2.grad, *(weight.grad for weight in stack.parameters())]
    assert_equal_results(by_backward, results(build())[2:], 0.0)


def test_gradients_are_returned_for_just_the_weights_asked_for():
    stack, truth = build(), build(False)
    weights = [list(module.parameters())[4] for module in (stack, truth)]
    for module, weight in zip((stack, truth), weights, strict=True):
        loss = loss_of(*module(*streams()))
        (module.asked,) = torch.autograd.grad(loss, weight)
        assert all(other.grad is None for other in module.parameters())
    torch.testing.assert_close(stack.asked, truth.asked)


def test_numerical_derivatives_agree():
    stack = build(depth=1)
    for block in stack:  # one choice for all calls
        block.f.calls = itertools.repeat(0)
    x1, x2 = (part[:1, :3].clone().requires_grad_() for part in streams())
    torch.autograd.gradcheck(stack, (x1, x2))


@pytest.mark.parametrize("which", [0, 1])
def test_one_output_may_stay_unused(which):
    def gradients(reversible: bool) -> list[Tensor]:
        stack = build(reversible)
        leaves = [part.requires_grad_() for part in streams()]
        out = stack(*leaves)[which]
        return [out, *torch.autograd.grad(out.sin().sum(), leaves)]

    assert_equal_results(gradients(True), gradients(False))


def test_both_streams_may_start_as_the_same_tensor():
    def gradients(reversible: bool) -> list[Tensor]:
        x = streams()[0].requires_grad_()
        return [*torch.autograd.grad(loss_of(*build(reversible)(x, x)), x)]

    assert_equal_results(gradients(True), gradients(False))


def test_a_kept_graph_can_be_walked_twice():
    stack = build(dropout=0.3)
    loss = loss_of(*stack(*streams()))
    weights = list(stack.parameters())
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    second = torch.autograd.grad(loss, weights)
    assert_equal_results(list(second), list(first), 0.0)


def test_gradients_accumulate_over_passes():
    stack, truth = build(), build(False)
    for module in (stack, truth):
        for seed in (1, 2):
            loss_of(*module(*streams(seed))).backward()
    mine, its = ([weight.grad for weight in module.parameters()] for module in (stack, truth))
    assert_equal_results(mine, its)


def test_layers_may_share_their_weights():
    def shared(reversible: bool) -> ReversibleStack:
        stack = build(reversible)
        stack[2].f.linear = stack[0].f.linear
        stack[1].g = stack[0].g
        return stack

    assert_equal_results(results(shared(True)), results(shared(False)))


class Unused(Mixing):
    """A sublayer with a weight that its result does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(3))


@REVERSIBLE
def test_a_weight_without_use_has_no_gradient(reversible):
    stack = ReversibleStack([ReversibleBlock(Unused(), Mixing())], reversible=reversible).double()
    loss_of(*stack(*streams())).backward()
    assert stack[0].f.idle.grad is None
    assert stack[0].f.linear.weight.grad is not None


class Constant(nn.Module):
    """A sublayer whose change depends on nothing."""

    def forward(self, x: Tensor, context: None = None, memo: None = None):
        return torch.ones_like(x), None


def test_a_change_that_depends_on_nothing_passes_gradients_by():
    stack = ReversibleStack([ReversibleBlock(Constant(), Constant())])
    x1, x2 = (part.requires_grad_() for part in streams())
    y1, y2 = stack(x1, x2)
    gradients = torch.autograd.grad(2 * y1.sum() + 3 * y2.sum(), (x1, x2))
    assert [set(g.flatten().tolist()) for g in gradients] == [{2.0}, {3.0}]


# ---------------------------------------------------------------- every way of asking


@pytest.mark.parametrize("n_chunks", [1, 3])
def test_frozen_weights_have_no_gradient_and_change_no_other(n_chunks):
    def gradients(reversible: bool) -> list[Tensor | None]:
        stack = build(reversible, n_chunks=n_chunks)
        stack[0].f.linear.weight.requires_grad_(False)
        for weight in stack[1].parameters():
            weight.requires_grad_(False)
        loss_of(*stack(*(part.requires_grad_() for part in streams()))).backward()
        return [weight.grad for weight in stack.parameters()]

    mine, its = gradients(True), gradients(False)
    assert [grad is None for grad in mine] == [grad is None for grad in its]
    assert any(grad is None for grad in mine)
    assert_equal_results([g for g in mine if g is not None], [g for g in its if g is not None])


def test_all_weights_may_be_frozen_while_the_input_wants_a_gradient():
    def gradients(reversible: bool) -> tuple[Tensor, ...]:
        leaves = [part.requires_grad_() for part in streams()]
        return torch.autograd.grad(
            loss_of(*build(reversible).requires_grad_(False)(*leaves)), leaves
        )

    assert_equal_results(gradients(True), gradients(False))


@REVERSIBLE
def test_nothing_to_differentiate_makes_no_graph(reversible):
    y1, y2 = build(reversible).requires_grad_(False)(*streams())
    assert not y1.requires_grad
    assert not y2.requires_grad


def test_the_input_may_be_frozen_while_the_weights_want_gradients():
    def gradients(reversible: bool) -> list[Tensor]:
        stack = build(reversible)
        loss_of(*stack(*streams())).backward()
        return [weight.grad for weight in stack.parameters()]

    assert_equal_results(gradients(True), gradients(False))


@REVERSIBLE
@pytest.mark.parametrize("n_chunks", [1, 3])
def test_backward_works_in_evaluation_mode(reversible, n_chunks):
    options = {"dropout": 0.4, "n_chunks": n_chunks}
    assert_equal_results(results(build(reversible, **options).eval()), results(build(False).eval()))


@pytest.mark.parametrize("n_chunks", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_changing_the_mode_between_forward_and_backward_changes_no_gradient(training, n_chunks):
    def gradients(backward_in_mode: bool) -> list[Tensor]:
        stack = build(dropout=0.4, n_chunks=n_chunks).train(training)
        torch.manual_seed(0)
        loss = loss_of(*stack(*streams()))
        stack.train(backward_in_mode)
        found = list(torch.autograd.grad(loss, list(stack.parameters())))
        assert all(module.training is backward_in_mode for module in stack.modules())
        return found

    assert_equal_results(gradients(not training), gradients(training), 0.0)


@REVERSIBLE
def test_functional_call_runs_and_differentiates_other_weights(reversible):
    stack, other = build(reversible), build(False)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.9).add_(0.01)
    weights = {name: w.detach().clone().requires_grad_() for name, w in other.named_parameters()}
    loss = loss_of(*functional_call(stack, weights, streams()))
    gradients = torch.autograd.grad(loss, list(weights.values()))
    truth = torch.autograd.grad(loss_of(*other(*streams())), list(other.parameters()))
    assert_equal_results(list(gradients), list(truth))
    assert all(weight.grad is None for weight in stack.parameters())


def test_weights_that_were_computed_pass_their_gradient_on():
    def gradient(reversible: bool) -> Tensor:
        stack = build(reversible)
        factor = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
        weights = {name: factor * w.detach() for name, w in stack.named_parameters()}
        loss = loss_of(*functional_call(stack, weights, streams()))
        return torch.autograd.grad(loss, factor)[0]

    torch.testing.assert_close(gradient(True), gradient(False))


@REVERSIBLE
def test_weights_changed_in_place_between_forward_and_backward_are_noticed(reversible):
    stack = build(reversible)
    loss = loss_of(*stack(*streams()))
    with torch.no_grad():
        stack[1].g.piece.w_out.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---------------------------------------------------------------- hooks


@REVERSIBLE
@pytest.mark.parametrize("n_chunks", [1, 3])
def test_hooks_on_weights_see_the_whole_gradient_once(reversible, n_chunks):
    stack, calls = build(reversible, n_chunks=n_chunks), []
    for name, weight in stack.named_parameters():
        weight.register_hook(lambda grad, name=name: calls.append((name, grad)))
    loss_of(*stack(*streams())).backward()
    seen = dict(calls)
    assert len(calls) == len(seen) == len(list(stack.parameters()))
    for name, weight in stack.named_parameters():
        torch.testing.assert_close(seen[name], weight.grad)


@REVERSIBLE
def test_a_hook_on_a_weight_may_change_its_gradient(reversible):
    stack, plain = build(reversible), build(reversible)
    stack[0].f.linear.weight.register_hook(lambda grad: 2 * grad)
    for module in (stack, plain):
        loss_of(*module(*streams())).backward()
    torch.testing.assert_close(stack[0].f.linear.weight.grad, 2 * plain[0].f.linear.weight.grad)


@REVERSIBLE
def test_hooks_after_accumulation_run_once_per_weight(reversible):
    stack, calls = build(reversible), []
    for weight in stack.parameters():
        weight.register_post_accumulate_grad_hook(lambda weight: calls.append(id(weight)))
    loss_of(*stack(*streams())).backward()
    assert sorted(calls) == sorted(map(id, stack.parameters()))


@REVERSIBLE
def test_hooks_on_streams_see_their_gradients(reversible):
    stack, seen = build(reversible), []
    leaves = [part.requires_grad_() for part in streams()]
    outputs = stack(*leaves)
    for part in (*outputs, *leaves):
        part.register_hook(seen.append)
    loss_of(*outputs).backward()
    assert len(seen) == 4


@REVERSIBLE
@pytest.mark.parametrize("n_chunks", [1, 3])
def test_forward_hooks_on_sublayers_see_what_they_return(reversible, n_chunks):
    stack, seen = build(reversible, n_chunks=n_chunks), {}
    for name in ("0.f", "1.g", "2.f.linear", "2.g.piece.w_in"):
        stack.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, []).append(output)
        )
    with torch.no_grad():
        stack(*streams())
        expected, seen = seen, {}
        for name, outputs in expected.items():
            assert len(outputs) == (n_chunks if "piece" in name else 1)
    stack(*streams())
    assert set(expected) == {"0.f", "1.g", "2.f.linear", "2.g.piece.w_in"}


@pytest.mark.parametrize("n_chunks", [1, 3])
@pytest.mark.parametrize("name", ["1.f", "1.f.linear", "1.g", "1.g.piece", "1.g.piece.w_in"])
def test_forward_hooks_that_change_the_output_change_the_gradient_accordingly(name, n_chunks):
    def halved(module, inputs, output):
        return (output[0] / 2, output[1]) if isinstance(output, tuple) else output / 2

    def hooked(reversible: bool) -> ReversibleStack:
        stack = build(reversible, n_chunks=n_chunks)
        stack.get_submodule(name).register_forward_hook(halved)
        return stack

    assert_equal_results(results(hooked(True)), results(hooked(False)))


@pytest.mark.parametrize("n_chunks", [1, 3])
def test_forward_pre_hooks_that_change_the_input_do_so_in_the_replay_too(n_chunks):
    def hooked(reversible: bool) -> ReversibleStack:
        stack = build(reversible, n_chunks=n_chunks)
        for name in ("1.f", "1.g"):
            stack.get_submodule(name).register_forward_pre_hook(
                lambda module, inputs: (inputs[0] * 1.5, *inputs[1:])
            )
        return stack

    assert_equal_results(results(hooked(True)), results(hooked(False)))


@pytest.mark.parametrize("n_chunks", [1, 3])
@pytest.mark.parametrize("name", ["1.f", "1.f.linear", "1.g", "1.g.piece.w_in"])
def test_backward_hooks_that_change_a_gradient_do_so_as_in_ordinary_autograd(name, n_chunks):
    def hooked(reversible: bool) -> ReversibleStack:
        stack = build(reversible, n_chunks=n_chunks)
        stack.get_submodule(name).register_full_backward_hook(
            lambda module, d_inputs, d_outputs: tuple(
                None if d is None else 2 * d for d in d_inputs
            )
        )
        return stack

    assert_equal_results(results(hooked(True)), results(hooked(False)))


@REVERSIBLE
def test_hooks_on_a_block_run_as_well(reversible):
    stack, seen = build(reversible), []
    stack[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    stack(*streams())
    assert len(seen) >= 1


@pytest.mark.parametrize("n_chunks", [1, 3])
def test_backward_hooks_inside_a_sublayer_see_the_gradients_of_ordinary_autograd(n_chunks):
    def seen_by_hooks(reversible: bool) -> list[Tensor]:
        stack, seen = build(reversible, n_chunks=n_chunks), []
        for block in stack:
            block.g.piece.w_out.register_full_backward_hook(
                lambda module, d_in, d_out: seen.extend([*d_in, *d_out])
            )
        results(stack)
        return seen

    mine, its = seen_by_hooks(True), seen_by_hooks(False)
    assert len(mine) == 2 * 3 * n_chunks
    total = [sum(part.abs().sum() for part in seen) for seen in (mine, its)]
    torch.testing.assert_close(total[0], total[1])


# ---------------------------------------------------------------- precision


class Watching(Mixing):
    """A sublayer that notes the autocast state of every call."""

    def forward(self, x: Tensor, context: None = None, memo: Tensor | None = None):
        enabled = torch.is_autocast_enabled("cpu")
        state = torch.get_autocast_dtype("cpu") if enabled else None
        self.__dict__.setdefault("states", []).append((state, x.dtype))
        return super().forward(x, context, memo)


def watching() -> ReversibleStack:
    torch.manual_seed(0)
    return ReversibleStack([ReversibleBlock(Watching(), Watching()) for _ in range(2)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_replay_runs_under_the_autocast_state_of_the_forward(dtype):
    stack = watching()
    with torch.autocast("cpu", dtype):
        y1, y2 = stack(*streams(dtype=torch.float32))
    loss_of(y1, y2).backward()
    for module in stack.modules():
        if isinstance(module, Watching):
            assert module.states == [(dtype, torch.float32)] * 2


def test_a_forward_without_autocast_is_replayed_without_it_inside_autocast():
    stack = watching()
    y1, y2 = stack(*streams(dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        loss_of(y1, y2).backward()
    for module in stack.modules():
        if isinstance(module, Watching):
            assert module.states == [(None, torch.float32)] * 2


@pytest.mark.parametrize("n_chunks", [1, 3])
def test_streams_stay_float32_under_autocast_and_gradients_are_those_of_ordinary_autograd(n_chunks):
    def under_autocast(reversible: bool) -> list[Tensor]:
        stack = build(reversible, dtype=torch.float32, n_chunks=n_chunks)
        leaves = [part.requires_grad_() for part in streams(dtype=torch.float32)]
        with torch.autocast("cpu", torch.bfloat16):
            y1, y2 = stack(*leaves)
        assert y1.dtype == y2.dtype == torch.float32
        gradients = torch.autograd.grad(loss_of(y1, y2), [*leaves, *stack.parameters()])
        return [y1, y2, *gradients]

    mine, its = under_autocast(True), under_autocast(False)
    assert_equal_results(mine[:2], its[:2], 0.0)
    # Inputs rebuilt to float32's last bits are rounded to other bfloat16 neighbours now and then.
    assert_equal_results(mine[2:], its[2:], 0.01)


def test_inputs_are_rebuilt_well_enough_in_float32_at_depth_24():
    mine = results_in_float32(True)
    its = results_in_float32(False)
    assert_equal_results(mine, its, 1e-4)


def results_in_float32(reversible: bool) -> list[Tensor]:
    stack = build(reversible, depth=24, dtype=torch.float32)
    leaves = [part.requires_grad_() for part in streams(dtype=torch.float32)]
    return list(torch.autograd.grad(loss_of(*stack(*leaves)), [*leaves, *stack.parameters()]))


# ---------------------------------------------------------------- what it refuses, what it keeps


def second_derivative(loss: Tensor, leaf: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    return torch.autograd.grad(gradient.sum(), leaf)[0]


@pytest.mark.parametrize("linear", [True, False])
def test_a_second_derivative_is_refused_with_a_sentence(linear):
    stack = build()
    x1, x2 = (part.requires_grad_() for part in streams())
    y1, y2 = stack(x1, x2)
    # Silence would be a wrong number, also where the loss is linear in what the stack returns.
    loss = y1.sum() + (x1**3).sum() if linear else (y1**2 * y2).sum()
    with pytest.raises(RuntimeError, match="once|twice"):
        second_derivative(loss, x1)


def test_function_transforms_are_refused_with_a_sentence():
    stack = build()
    with pytest.raises(RuntimeError, match="functorch|transforms|torch.func"):
        torch.func.grad(lambda x: loss_of(*stack(x, x)))(streams()[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_no_graph_is_kept_and_every_sublayer_runs_once(mode):
    stack, calls = build(), []
    for block in stack:
        block.f.register_forward_hook(lambda *_: calls.append(1))
    with mode():
        y1, _ = stack(*streams())
    assert not y1.requires_grad
    assert len(calls) == 3


def test_without_gradients_nothing_is_noted_for_a_replay(monkeypatch):
    stack = build(dropout=0.4)
    noted = []
    monkeypatch.setattr(torch, "get_rng_state", lambda: noted.append(1))
    with torch.no_grad():
        stack(*streams())
    assert not noted


def kept_bytes(depth: int, reversible: bool, dropout: float = 0.0) -> dict[torch.dtype, int]:
    stack = build(reversible, depth=depth, dropout=dropout)
    x1, x2 = streams(length=64)
    with saved_bytes(besides=[x1, x2, *stack.parameters()]) as kept:
        y1, _ = stack(x1, x2)
    assert y1.requires_grad
    return dict(kept)


def test_what_is_kept_does_not_grow_with_depth_except_for_the_memos():
    one_stream = streams(length=64)[0].nbytes
    for depth in (1, 2, 8):
        kept = kept_bytes(depth, reversible=True)
        assert kept.pop(torch.float64) == 2 * one_stream
        assert kept == {torch.int16: depth * 64 * 2}
    ordinary = [kept_bytes(depth, reversible=False)[torch.float64] for depth in (1, 2, 8)]
    assert ordinary[2] > 3 * ordinary[1] > 4 * ordinary[0]


def test_live_bytes_after_the_forward_grow_only_by_memos_and_random_states():
    def live(depth: int, dropout: float) -> int:
        stack = build(depth=depth, dropout=dropout)
        x1, x2 = streams(batch=4, length=256)
        with LiveBytes() as memory:
            outputs = stack(x1, x2)
            assert outputs[0].requires_grad
            return memory.live

    memo = 256 * 2
    assert live(9, 0.0) - live(1, 0.0) == 8 * memo
    random_state = torch.get_rng_state().nbytes
    assert live(9, 0.4) - live(1, 0.4) <= 8 * (memo + 2 * random_state)


def peak_of(**options) -> int:
    stack = build(**options, dtype=torch.float32)
    for weight in stack.parameters():
        weight.grad = torch.zeros_like(weight)
    x1, x2 = streams(batch=8, length=256, dtype=torch.float32)
    with LiveBytes() as memory:
        loss_of(*stack(x1, x2)).backward()
    return memory.peak


def test_the_peak_of_forward_and_backward_does_not_grow_with_depth():
    assert peak_of(depth=12) < 1.15 * peak_of(depth=3)
    assert peak_of(reversible=False, depth=12) > 2.5 * peak_of(reversible=False, depth=3)


def test_feed_forward_pieces_lower_the_peak_of_the_replay():
    def peak(n_chunks: int) -> int:
        torch.manual_seed(0)
        wide = Widening(8, 512, n_chunks=n_chunks)
        stack = ReversibleStack([ReversibleBlock(Fixed(torch.tanh), wide)])
        x = torch.randn(1, 512, 8)
        with LiveBytes() as memory:
            loss_of(*stack(x, x)).backward()
        return memory.peak

    assert peak(16) < 0.3 * peak(1)


def test_nothing_outlives_a_pass():
    stack = build(dropout=0.3)
    for weight in stack.parameters():
        weight.grad = torch.zeros_like(weight)
    x1, x2 = streams()
    with LiveBytes() as memory:
        stack(x1, x2)  # an unused result
        loss_of(*stack(x1, x2)).backward()
        assert memory.live == 0


# ---------------------------------------------------------------- the last blocks are kept


@pytest.mark.parametrize("n_kept", [1, 2, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("with_context", [False, True])
def test_with_kept_blocks_outputs_and_gradients_equal_ordinary_autograd(
    n_kept, dropout, with_context
):
    context = told() if with_context else None
    assert_equal_results(
        results(build(n_kept=n_kept, dropout=dropout, n_chunks=2), context=context),
        results(build(False, dropout=dropout, n_chunks=2), context=context),
    )


@pytest.mark.parametrize("n_kept", [0, 1, 2, 3])
def test_kept_blocks_run_once_and_the_others_twice(n_kept):
    stack, calls = build(n_kept=n_kept), []
    for number, block in enumerate(stack):
        block.f.register_forward_hook(lambda *_, number=number: calls.append(number))
    results(stack)
    replayed = list(range(3 - n_kept))
    assert calls == [0, 1, 2, *reversed(replayed)]


def test_blocks_may_share_a_weight_with_a_kept_one():
    def shared(**options) -> list[Tensor]:
        stack = build(**options)
        stack[2].f.linear = stack[0].f.linear
        return results(stack)

    assert_equal_results(shared(n_kept=1), shared(reversible=False))


@pytest.mark.parametrize("reversible", [True, False])
def test_kept_or_not_there_is_no_graph_where_no_gradient_is_asked(reversible):
    stack = build(reversible, n_kept=1)
    with torch.no_grad():
        y1, _ = stack(*streams())
    assert not y1.requires_grad


def test_one_kept_block_costs_no_more_than_the_replay_it_saves():
    none, one, four = (peak_of(depth=8, n_kept=n_kept) for n_kept in (0, 1, 4))
    one_stream = 8 * 256 * WIDTH * 4
    assert one <= none + 2 * one_stream
    assert four > 1.5 * none


@pytest.mark.parametrize("n_kept", [-1, 4])
def test_no_more_blocks_are_kept_than_there_are(n_kept):
    with pytest.raises(ValueError, match=f"n_kept must be 0 to 3.*got {n_kept}"):
        build(n_kept=n_kept)


# ---------------------------------------------------------------- a module among modules


def test_a_stack_is_a_list_of_its_blocks():
    stack = build()
    assert len(stack) == 3
    assert all(isinstance(block, ReversibleBlock) for block in stack)


def test_both_ways_have_the_same_state_dict():
    stack, ordinary = build(True), build(False, depth=3)
    for weight in ordinary.parameters():
        weight.data.zero_()
    ordinary.load_state_dict(stack.state_dict())
    assert_equal_results(results(ordinary), results(stack))


def test_a_copy_is_independent():
    stack = build()
    other = copy.deepcopy(stack)
    truth = results(build())
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert_equal_results(results(stack), truth, 0.0)


# ---------------------------------------------------------------- two processes


def _batch(rank: int) -> tuple[Tensor, Tensor]:
    return streams(seed=10 + rank)


def _train_one_step(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    with contextlib.closing(_Group()):
        torch.save(_mean_gradients(rank), f"{folder}/{rank}.pt")


def _mean_gradients(rank: int) -> list[Tensor]:
    """Run two steps; what wraps the stack is gone before its group.

    The other way round torch may hang: the last to hold a group waits for its threads, the wrapper
    does so with Python's lock in hand, and a thread may want that lock to end.
    """
    stack = nn.parallel.DistributedDataParallel(build(dropout=0.0, n_chunks=2))
    for _ in range(2):  # accumulating, and past the first pass, when buckets are rebuilt
        stack.zero_grad()
        loss_of(*stack(*_batch(rank))).backward()
    return [weight.grad for weight in stack.module.parameters()]


class _Group:
    def close(self) -> None:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_end_with_the_mean_gradient_of_their_batches(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_train_one_step, (port, str(tmp_path)), nprocs=2)
    alone = build(False)
    for block in alone:  # the second pass's choice
        next(block.f.calls)
    total = sum(loss_of(*_again(alone, rank)) for rank in (0, 1)) / 2
    truth = list(torch.autograd.grad(total, list(alone.parameters())))
    for rank in (0, 1):
        assert_equal_results(torch.load(tmp_path / f"{rank}.pt"), truth)


def _again(stack: ReversibleStack, rank: int) -> tuple[Tensor, Tensor]:
    """Run with the choices of the second pass, whatever passes there were before."""
    for block in stack:
        block.f.calls = itertools.count(1)
    return stack(*_batch(rank))


# ---------------------------------------------------------------- other devices


@pytest.mark.gpu
@pytest.mark.parametrize("n_chunks", [1, 3])
def test_cuda_replays_dropout_and_equals_ordinary_autograd_there(n_chunks):
    def on_cuda(reversible: bool) -> list[Tensor]:
        stack = build(reversible, dropout=0.4, n_chunks=n_chunks).cuda()
        leaves = [part.cuda().requires_grad_() for part in streams()]
        torch.manual_seed(3)
        y1, y2 = stack(*leaves)
        torch.rand(10, device="cuda")
        return list(torch.autograd.grad(loss_of(y1, y2), [*leaves, *stack.parameters()]))

    assert_equal_results(on_cuda(True), on_cuda(False))
