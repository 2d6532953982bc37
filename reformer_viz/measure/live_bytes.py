"""Count the bytes of tensors while they live: every storage is seen to come and to go."""

import weakref
from numbers import Real

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Where an operation's own code stands, behind autograd and modes.
_BACKEND = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def in_units(n_bytes: Real) -> str:
    """Write a number of bytes with three digits and its unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 999.5 or unit == "GiB":
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    raise AssertionError("the last unit returns")


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
        kwargs = kwargs or {}
        given = {key_of(tensor) for tensor in _tensors_in((args, kwargs))}
        if operation.namespace == "reformer":  # one to torch, but its working memory is memory too
            with self:
                made = operation.redispatch(_BACKEND, *args, **kwargs)
        else:
            made = operation(*args, **kwargs)
        for tensor in _tensors_in(made):
            key = key_of(tensor)
            if key not in given and key not in self._known:
                self._count(tensor, key)
        self.peak = max(self.peak, self.floats + self.integers)
        return made

    def _count(self, tensor: Tensor, key: int) -> None:
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


def key_of(tensor: Tensor) -> int:
    """Return what all tensors that share a storage have in common while it lives."""
    return tensor.untyped_storage()._cdata


def _tensors_in(what: object) -> list[Tensor]:
    """Find the tensors that have a storage, in lists, tuples and dictionaries as well."""
    found, open_ends = [], [what]
    while open_ends:
        part = open_ends.pop()
        if isinstance(part, Tensor):
            if part.layout == torch.strided:
                found.append(part)
        elif isinstance(part, list | tuple):
            open_ends.extend(part)
        elif isinstance(part, dict):
            open_ends.extend(part.values())
    return found
