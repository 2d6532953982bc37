"""Reversible layers: the backward computes every input again, so none is kept (Eq. 7-9).

    y1 = x1 + f(x2)        x2 = y2 - g(y1)
    y2 = x2 + g(y1)        x1 = y1 - f(x2)

A *sublayer* is a module `f(x, context, memo=None) -> (change, memo)`. Its memo is what a second run
must not choose anew (attention's buckets); given back, it makes that run an exact repetition.
"""

import contextlib
from collections.abc import Callable, Iterable
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

    def forward(
        self, x1: Tensor, x2: Tensor, context: Any = None, run: Callable[..., Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return y1 = x1 + f(x2) and y2 = x2 + g(y1) (Eq. 9).

        `run(sublayer, x, context)` returns a sublayer's change; a stack records replays with it.
        """
        run = run or _change
        y1 = x1 + run(self.f, x2, context)
        return y1, x2 + run(self.g, y1, context)


def _change(sublayer: nn.Module, x: Tensor, context: Any) -> Tensor:
    """Run a sublayer and forget its memo."""
    change, _ = sublayer(x, context)
    return change


class ReversibleStack(nn.ModuleList):
    """Blocks whose activations are computed again in the backward instead of kept.

    Forward and gradients equal those of `reversible=False`, which keeps everything as PyTorch does.
    All of it is one node of the autograd graph with its parameters as inputs. It keeps the
    two outputs and, per sublayer, a memo and the state of the random generator if it drew from it.
    The recomputation runs under the forward's parameters, autocast, random state and train or eval
    mode. Forward hooks on sublayers and below run again with it; a hook on a block itself runs in
    the forward only, so it may look at the streams but not change them.

    The last `n_kept` blocks keep what their backward needs: it comes next, so that one kept block
    needs hardly more memory than any block's replay, and one replay less is less to wait for.

    `context` is None or a frozen dataclass that every sublayer receives; gradients flow to its
    tensors. Differentiable once. Raises ValueError where `n_kept` is no number of its blocks.
    """

    def __init__(
        self, blocks: Iterable[ReversibleBlock], reversible: bool = True, n_kept: int = 0
    ) -> None:
        super().__init__(blocks)
        if not 0 <= n_kept <= len(self):
            raise ValueError(f"n_kept must be 0 to {len(self)}, the number of blocks, got {n_kept}")
        self.reversible, self.n_kept = reversible, n_kept

    def forward(self, x1: Tensor, x2: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        """Run all blocks on the pair of streams."""
        replays = self.reversible and torch.is_grad_enabled()
        n_replayed = len(self) - self.n_kept if replays else 0
        if n_replayed:
            x1, x2 = _run_reversible(self, n_replayed, context, x1, x2)
        for block in list(self)[n_replayed:]:
            x1, x2 = block(x1, x2, context)
        return x1, x2


class _Reversible(torch.autograd.Function):
    """Blocks as one operation: (blocks, context, x1, x2, leaves) -> (y1, y2)."""

    @staticmethod
    def forward(ctx, blocks: nn.ModuleList, context: Any, x1: Tensor, x2: Tensor, *leaves: Tensor):
        inside = len(_tensors_of(context))
        number = {parameter: inside + i for i, parameter in enumerate(blocks.parameters())}
        ctx.context, ctx.replays, ctx.n_leaves = context, [], len(leaves)
        kept = []

        def record(sublayer: nn.Module, x: Tensor, context: Any) -> Tensor:
            replay, change, memory = Replay.record(sublayer, x, context, number)
            ctx.replays.append(replay)
            kept.extend(memory)
            return change

        for block in blocks:
            x1, x2 = block(x1, x2, context, record)
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
            # Seen from its end, each sublayer was the g of (y1, y2): a block ends with its g, and
            # with the streams exchanged what is left ends with its f.
            change, d_x, parts = replay.run(leaves, y1, context, memory, d2)
            gradients = _added(gradients, parts)
            y1, y2 = y2 - change, y1
            d1, d2 = d2, d1 + d_x
        return None, None, d1, d2, *gradients


@torch.compiler.disable
def _run_reversible(
    stack: ReversibleStack, n_blocks: int, context: Any, x1: Tensor, x2: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a stack's first blocks as one operation, also in a compiled model: a graph keeps all."""
    blocks = nn.ModuleList(list(stack)[:n_blocks])
    leaves = [*_tensors_of(context).values(), *blocks.parameters()]
    return _Reversible.apply(blocks, context, x1, x2, *leaves)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How to run a sublayer again exactly as it ran: with which weights, in which precision."""

    sublayer: nn.Module
    weights: dict[str, int]
    """The number, among the leaves of the stack's Function, of each of its parameters."""
    autocast: dict[str, Any]
    modes: tuple[bool, ...]
    """Whether each module of the sublayer was in training mode."""

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
            modes=tuple(module.training for module in sublayer.modules()),
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
        n_chunks = self._n_pieces()
        memo, random_state = memory
        weights = {name: leaves[i] for name, i in self.weights.items()}
        changes, d_x, gradients = [], [], [None] * len(leaves)
        with _random_state_set(random_state, x.device), self._modes_set(), torch.enable_grad():
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
        return _whole(changes), _whole(d_x), gradients

    def _n_pieces(self) -> int:
        """Return how many pieces to run in turn; hooks on the sublayer want to see all of it."""
        when = ("forward_pre", "forward", "backward_pre", "backward")
        hooked = any(getattr(self.sublayer, f"_{which}_hooks") for which in when)
        return 1 if hooked else getattr(self.sublayer, "n_chunks", 1)

    @contextlib.contextmanager
    def _modes_set(self):
        """Put the sublayer into the mode it ran in; leave it as it was found."""
        modules = list(self.sublayer.modules())
        found = [module.training for module in modules]
        try:
            for module, mode in zip(modules, self.modes, strict=True):
                module.training = mode
            yield
        finally:
            for module, mode in zip(modules, found, strict=True):
                module.training = mode


def _gradients(output: Tensor, inputs: list[Tensor], d_output: Tensor) -> list[Tensor | None]:
    """Return the gradient of every input; None for one that asks for none or was not used."""
    wanted = [leaf for leaf in inputs if leaf.requires_grad]
    if not output.requires_grad:
        return [None] * len(inputs)
    d_output = d_output.to(output.dtype)
    found = iter(torch.autograd.grad(output, wanted, d_output, allow_unused=True))
    return [next(found) if leaf.requires_grad else None for leaf in inputs]


def _whole(pieces: list[Tensor]) -> Tensor:
    """Join pieces along the length; a single one is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)


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
    states = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return torch.cat([*states, torch.get_rng_state()])


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
