"""Count the bytes of one training step: what waits for the backward, and how high it gets."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch
from jaxtyping import Int
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reformer_core.config import ReformerConfig
from reformer_core.models import ReformerLM

# Where an operation's own code stands, behind autograd and modes.
_BACKEND = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


@dataclass(frozen=True, kw_only=True)
class BackwardMemory:
    """What the steps of models of growing depth took, all in bytes."""

    floats: Int[np.ndarray, " depths"]
    """Activations that are alive between forward and backward."""
    integers: Int[np.ndarray, " depths"]
    """Buckets, plans, tokens and random states that are alive there."""
    peak: Int[np.ndarray, " depths"]
    """The most that was alive at any moment of the step, gradients included, parameters not."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one training step against depth, reversible and standard."""

    depths: Int[np.ndarray, " depths"]
    parameters: Int[np.ndarray, " depths"]
    """Bytes of the parameters; their gradients take the same again."""
    standard: BackwardMemory
    reversible: BackwardMemory
    batch_size: int
    length: int

    def describe(self) -> str:
        """Say in a sentence what the curves show."""
        shallow, deep = int(self.depths[0]), int(self.depths[-1])
        grows = [
            (memory.floats[-1] - memory.floats[0]) / max(1, deep - shallow)
            for memory in (self.standard, self.reversible)
        ]
        return (
            f"Kept for the backward at {self.batch_size} x {self.length} tokens: from {shallow} to "
            f"{deep} layers a standard stack grows by {in_units(grows[0])} of activations a layer, "
            f"a reversible one by {in_units(grows[1])}. At {deep} layers that is "
            f"{in_units(self.standard.floats[-1])} against {in_units(self.reversible.floats[-1])}, "
            f"and the step's peak {in_units(self.standard.peak[-1])} against "
            f"{in_units(self.reversible.peak[-1])}."
        )


def in_units(n_bytes: Real) -> str:
    """Write a number of bytes with three digits and its unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 999.5 or unit == "GiB":
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    raise AssertionError("the last unit returns")


def measure_memory(
    config: ReformerConfig,
    depths: Sequence[int] = (1, 2, 4, 8),
    *,
    batch_size: int = 1,
    length: int | None = None,
) -> Memory:
    """Run one training step at every depth, reversible and standard, and count its bytes.

    Counted are the tensors themselves, storage by storage, while they live: the numbers are exact
    and the same on every run and machine. `length` defaults to `config.max_length`. Both stacks
    are the same function with the same weights. The caller's random state is left as it was.

    Raises ValueError for a depth below 1 or no depth at all.
    """
    if not depths or min(depths) < 1:
        raise ValueError(f"depths must be one or more numbers of layers, got {tuple(depths)}")
    length = config.max_length if length is None else length
    at_depth = {
        reversible: [
            _measure_step(
                replace(config, n_layers=depth, reversible=reversible), batch_size, length
            )
            for depth in depths
        ]
        for reversible in (False, True)
    }
    standard, reversible = (
        BackwardMemory(**{name: np.array([step[name] for step in steps]) for name in steps[0]})
        for steps in ([step for step, _ in at_depth[kind]] for kind in (False, True))
    )
    return Memory(
        depths=np.array(depths),
        parameters=np.array([n_bytes for _, n_bytes in at_depth[True]]),
        standard=standard,
        reversible=reversible,
        batch_size=batch_size,
        length=length,
    )


def _measure_step(
    config: ReformerConfig, batch_size: int, length: int
) -> tuple[dict[str, int], int]:
    """Count one step of one model; also return the bytes of its parameters."""
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        model = ReformerLM(config)
        tokens = torch.randint(config.vocab_size, (batch_size, length))
        with LiveBytes() as live:
            loss = model.loss(tokens)
            kept = {"floats": live.floats, "integers": live.integers}
            loss.backward()
    n_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return {**kept, "peak": live.peak}, n_bytes


class LiveBytes(TorchDispatchMode):
    """Count the bytes of the tensors that operations inside the `with` made and that still live.

    A storage counts once, however many tensors share it, from the operation that made it until
    nobody holds it. `floats` and `integers` are what lives now, `peak` the most that ever did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.floats = self.integers = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run an operation and count what it made."""
        given = {self._key(leaf) for leaf in tree_leaves((args, kwargs)) if _has_storage(leaf)}
        if operation.namespace == "reformer":  # one to torch, but its working memory is memory too
            with self:
                made = operation.redispatch(_BACKEND, *args, **(kwargs or {}))
        else:
            made = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if _has_storage(leaf) and (key := self._key(leaf)) not in given | self._known:
                self._count(leaf, key)
        self.peak = max(self.peak, self.floats + self.integers)
        return made

    def _count(self, tensor: torch.Tensor, key: int) -> None:
        """Count a new storage until it goes."""
        storage = tensor.untyped_storage()
        kind = "floats" if tensor.is_floating_point() else "integers"
        n_bytes = storage.nbytes()
        self._known.add(key)
        setattr(self, kind, getattr(self, kind) + n_bytes)

        def forget() -> None:
            self._known.discard(key)
            setattr(self, kind, getattr(self, kind) - n_bytes)

        weakref.finalize(storage, forget)

    @staticmethod
    def _key(tensor: torch.Tensor) -> int:
        return tensor.untyped_storage()._cdata


def _has_storage(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided
