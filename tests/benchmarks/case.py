"""The words of the benchmark: a case is measured on contestants, each made ready by its adapter."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from reformer_core.hashing import Buckets, default_n_buckets

Part = Literal["attention", "training"]
Kind = Literal["ours", "peer", "full", "bound"]

ALWAYS_IN = {"flash": "bfloat16"}
"""Contestants that have one dtype, whatever the others compute in."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One place of the grid. Every contestant of a part is given the same."""

    part: Part = "attention"
    length: int
    n_hashes: int = 4
    n_heads: int = 8
    d_head: int = 64
    chunk_length: int = 64
    device: str = "cpu"
    dtype: str = "float32"

    def n_buckets(self) -> Buckets:
        """Return 2 * length / chunk_length, factored where large: everybody's number of buckets."""
        return default_n_buckets(self.length, self.chunk_length)

    def smaller(self) -> "Case":
        """Return a case that needs the same code and hardly any time."""
        return replace(self, length=min(self.length, 4 * self.chunk_length))

    def randn(self, *shape: int, leaf: bool = False) -> Tensor:
        """Draw an input."""
        drawn = torch.randn(shape, device=self.device, dtype=getattr(torch, self.dtype))
        return drawn.requires_grad_(leaf)

    def qk_and_values(self, *shape: int) -> tuple[Tensor, Tensor]:
        """Draw the two inputs of every attention, in the layout that its own code asks for."""
        return self.randn(*shape, leaf=True), self.randn(*shape, leaf=True)

    def __str__(self) -> str:
        """Name the case in a line of output."""
        return f"{self.part}, {self.length:,} tokens, {self.n_hashes} rounds"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A contestant whose inputs exist: what these two do is what is timed."""

    forward: Callable[[], object]
    step: Callable[[], object]
    """Forward and backward."""
    forget: Callable[[], None] = lambda: None
    """Drop the gradients of the last step, untimed."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Somebody who can be measured."""

    key: str
    label: str
    kind: Kind
    prepare: Callable[[Case], Ready]
    counts_repeats: bool | None = None
    """Whether a pair that several rounds see weighs more; None where there are no rounds."""
    note: str = ""

    def described(self) -> dict:
        """Return what the results say about a contestant."""
        names = ("key", "label", "kind", "counts_repeats", "note")
        return {name: getattr(self, name) for name in names}


class NotHereError(Exception):
    """A contestant cannot take part in a case; the message is the reason that is recorded."""


def differentiable(forward: Callable[[], Tensor], qk: Tensor, values: Tensor) -> Ready:
    """Make an attention ready, whose output has the values' shape."""
    d_out = torch.randn_like(values)

    def forget() -> None:
        qk.grad = values.grad = None

    return Ready(
        forward=torch.no_grad()(forward), step=lambda: forward().backward(d_out), forget=forget
    )
