"""Exact counts of bytes and of errors: the same on every machine, unlike a clock or the OS."""

import contextlib
import sys
import weakref
from collections.abc import Iterable, Iterator

import jaxtyping
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Where an operation's own code stands, behind autograd and modes.
_BACKEND = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all tensors made inside that still live, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):  # what came from outside is not ours to count
                self._notice(leaf.untyped_storage(), size=0)
        if function.namespace == "reformer":  # one call to torch: what happens inside counts too
            with self:
                result = function.redispatch(_BACKEND, *args, **(kwargs or {}))
        else:
            result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._notice(leaf.untyped_storage(), leaf.untyped_storage().nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _notice(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.live += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@contextlib.contextmanager
def saved_bytes(besides: Iterable[torch.Tensor] = ()) -> Iterator[dict[torch.dtype, int]]:
    """Count the bytes that autograd keeps for the backward, by dtype, each storage once."""
    besides = {tensor.untyped_storage().data_ptr() for tensor in besides}
    kept: dict[torch.dtype, int] = {}
    alive = {}  # keeps addresses from being used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in besides and storage.data_ptr() not in alive:
            alive[storage.data_ptr()] = tensor
            kept[tensor.dtype] = kept.get(tensor.dtype, 0) + storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


class Worst:
    """Remember the worst error over many cases; relative where the truth is above 1."""

    def __init__(self, what: str, bound: float) -> None:
        self.what, self.bound = what, bound
        self.error, self.cases = 0.0, 0

    def check(self, got: torch.Tensor, truth: torch.Tensor) -> None:
        assert got.shape == truth.shape
        assert torch.isfinite(got).all(), f"{self.what}: not finite"
        self.cases += 1
        if not truth.numel():
            return
        truth = truth.to(got.dtype)
        error = ((got - truth).abs().max() / truth.abs().max().clamp_min(1)).item()
        self.error = max(self.error, error)
        assert error <= self.bound, f"{self.what}: {error:.2e} > {self.bound:.0e}"

    def __str__(self) -> str:
        return f"{self.what}: worst error {self.error:.1e} over {self.cases} comparisons"


@contextlib.contextmanager
def without_shape_checker() -> Iterator[None]:
    """Run as users do, without the checker that tests have: its own errors are what they see."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def say(*lines: object) -> None:
    """Write lines that `pytest -s` shows."""
    sys.stdout.write("".join(f"\n  {line}" for line in lines))
