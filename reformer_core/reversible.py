"""Reversible layers: the backward computes every input again, so none is kept (Eq. 7-9).

    y1 = x1 + f(x2)        x2 = y2 - g(y1)
    y2 = x2 + g(y1)        x1 = y1 - f(x2)

A *sublayer* is a module `f(x, context, memo=None) -> (change, memo)`. Its memo is what a second run
must not choose anew (attention's buckets); given back, it makes that run an exact repetition.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reformer_core.autograd import differentiable_once


class ReversibleBlock(nn.Module):
    """One layer on two streams: f, usually attention, and then g, usually feed-forward."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x1: Tensor, x2: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        """Return y1 = x1 + f(x2) and y2 = x2 + g(y1) (Eq. 9)."""
        change, _ = self.f(x2, context)
        y1 = x1 + change
        change, _ = self.g(y1, context)
        return y1, x2 + change


class ReversibleStack(nn.ModuleList):
    """Blocks whose activations are computed again in the backward instead of kept.

    Forward and gradients equal those of `reversible=False`, which keeps everything as PyTorch does.
    The whole stack is one node of the autograd graph with its parameters as inputs. It keeps the
    two outputs and, per sublayer, a memo and the state of the random generator if it drew from it.
    The recomputation runs under the parameters, autocast and random state of the forward.

    `context` is None or a frozen dataclass that every sublayer receives; gradients flow to its
    tensors. Differentiable once.
    """

    def __init__(self, blocks: Iterable[ReversibleBlock], reversible: bool = True) -> None:
        super().__init__(blocks)
        self.reversible = reversible

    def forward(self, x1: Tensor, x2: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        """Run all blocks on the pair of streams."""
        if self.reversible and torch.is_grad_enabled():
            tensors = [*_tensors_of(context).values(), *self.parameters()]
            return _Reversible.apply(self, context, x1, x2, *tensors)
        for block in self:
            x1, x2 = block(x1, x2, context)
        return x1, x2

    def extra_repr(self) -> str:
        """Say which backward the stack has."""
        return f"reversible={self.reversible}"


class _Reversible(torch.autograd.Function):
    """The stack as one operation: (context, x1, x2, parameters) -> (y1, y2)."""

    @staticmethod
    def forward(ctx, stack: ReversibleStack, context: Any, x1: Tensor, x2: Tensor, *leaves: Tensor):
        inside = len(_tensors_of(context))
        number = {parameter: inside + i for i, parameter in enumerate(stack.parameters())}
        ctx.context, ctx.replays, ctx.n_leaves = context, [], len(leaves)
        kept = []
        for block in stack:
            for sublayer in (block.f, block.g):
                replay, change, memory = Replay.record(sublayer, x2, context, number)
                ctx.replays.append(replay)
                kept += memory
                x1, x2 = x2, x1 + change
        ctx.save_for_backward(x1, x2, *leaves, *kept)
        return x1, x2

    @staticmethod
    @differentiable_once
    def backward(ctx, d1: Tensor, d2: Tensor):
        y1, y2, *saved = ctx.saved_tensors
        wanted = ctx.needs_input_grad[4:]
        leaves = [
            leaf.detach().requires_grad_(want)
            for leaf, want in zip(saved[: ctx.n_leaves], wanted, strict=True)
        ]
        memories = list(zip(saved[ctx.n_leaves :: 2], saved[ctx.n_leaves + 1 :: 2], strict=True))
        context = _with_tensors(ctx.context, leaves)
        gradients: list[Tensor | None] = [None] * len(leaves)
        for replay, memory in zip(reversed(ctx.replays), reversed(memories), strict=True):
            # The streams change places after every sublayer: (y1, y2) = (x2, x1 + f(x2)).
            change, d_x, parts = replay.run(leaves, y1, context, memory, d2)
            gradients = _added(gradients, parts)
            y1, y2 = y2 - change, y1
            d1, d2 = d2, d1 + d_x
        return None, None, d1, d2, *gradients


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How to run a sublayer again exactly as it ran: with which weights, in which precision."""

    sublayer: nn.Module
    weights: dict[str, int]
    """The number, among the leaves of the stack's Function, of each of its parameters."""
    autocast: dict[str, Any]

    @classmethod
    def record(
        cls, sublayer: nn.Module, x: Tensor, context: Any, number: dict[Tensor, int]
    ) -> tuple["Replay", Tensor, tuple[Tensor | None, Tensor | None]]:
        """Run a sublayer; return how to replay it, its change, and what to keep for that.

        Kept are its memo, and the state of the random generators before it if it drew from them.
        """
        before = _random_state(x.device)
        change, memo = sublayer(x, context)
        drew = not torch.equal(before, _random_state(x.device))
        kind = x.device.type
        replay = cls(
            sublayer=sublayer,
            weights={name: number[weight] for name, weight in sublayer.named_parameters()},
            # No cache: a cached low-precision weight may stem from a pass without gradients.
            autocast={
                "device_type": kind,
                "enabled": torch.is_autocast_enabled(kind),
                "dtype": torch.get_autocast_dtype(kind),
                "cache_enabled": False,
            },
        )
        return replay, change, (memo, before if drew else None)

    def run(
        self,
        leaves: list[Tensor],
        x: Tensor,
        context: Any,
        memory: tuple[Tensor | None, Tensor | None],
        d_change: Tensor,
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Run the sublayer again; return its change and the gradients of x and of the leaves.

        A sublayer that has a `piece` and `n_chunks` runs piece by piece, each forward and backward
        in turn, so that what one piece needs for its backward is gone before the next.
        """
        n_chunks = getattr(self.sublayer, "n_chunks", 1)
        memo, random_state = memory
        weights = {name: leaves[i] for name, i in self.weights.items()}
        changes, d_x, gradients = [], [], [None] * len(leaves)
        with _random_state_set(random_state, x.device), torch.enable_grad():
            for piece, d_piece in zip(
                x.chunk(n_chunks, 1), d_change.chunk(n_chunks, 1), strict=True
            ):
                piece = piece.detach().requires_grad_()
                with torch.autocast(**self.autocast):
                    if n_chunks == 1:
                        inputs = (piece, context, memo)
                        change, _ = functional_call(self.sublayer, weights, inputs)
                    else:
                        names = {name.removeprefix("piece."): w for name, w in weights.items()}
                        change = functional_call(self.sublayer.piece, names, (piece,))
                d_input, *parts = _gradients(change, [piece, *leaves], d_piece)
                changes.append(change.detach())
                d_x.append(torch.zeros_like(piece) if d_input is None else d_input)
                gradients = _added(gradients, parts)
        return torch.cat(changes, 1), torch.cat(d_x, 1), gradients


def _gradients(output: Tensor, inputs: list[Tensor], d_output: Tensor) -> list[Tensor | None]:
    """Return the gradient of every input; None for one that asks for none or was not used."""
    wanted = [leaf for leaf in inputs if leaf.requires_grad]
    if not output.requires_grad:
        return [None] * len(inputs)
    d_output = d_output.to(output.dtype)
    found = iter(torch.autograd.grad(output, wanted, d_output, allow_unused=True))
    return [next(found) if leaf.requires_grad else None for leaf in inputs]


def _added(total: list[Tensor | None], parts: list[Tensor | None]) -> list[Tensor | None]:
    """Add gradients, None counting as zero."""
    return [
        old if new is None else new if old is None else old + new
        for old, new in zip(total, parts, strict=True)
    ]


def _tensors_of(context: Any) -> dict[str, Tensor]:
    """Return the tensors of a context by the names of their fields."""
    if context is None:
        return {}
    named = {field.name: getattr(context, field.name) for field in fields(context)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _with_tensors(context: Any, tensors: list[Tensor]) -> Any:
    """Return the same context holding the first of these tensors."""
    names = _tensors_of(context)
    return replace(context, **dict(zip(names, tensors, strict=False))) if names else context


def _random_state(device: torch.device) -> Tensor:
    """Return the state of the generators that a sublayer on this device may draw from."""
    state = torch.get_rng_state()
    return torch.cat([torch.cuda.get_rng_state(device), state]) if device.type == "cuda" else state


@contextlib.contextmanager
def _random_state_set(state: Tensor | None, device: torch.device):
    """Set the generators to an earlier state for a while; leave them as they were found."""
    if state is None:
        yield
        return
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        if on_cuda:
            size = torch.cuda.get_rng_state(device).numel()
            torch.cuda.set_rng_state(state[:size], device)
            state = state[size:]
        torch.set_rng_state(state)
        yield
