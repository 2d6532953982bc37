"""What every task is made of: sequences of tokens, and how much each prediction counts."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold sequences, and for every token how much the prediction *of* it counts.

    `weights[:, 0]` is never used: nothing predicts a first token.
    """

    tokens: Int[Tensor, "batch length"]
    weights: Float[Tensor, "batch length"]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on a device."""
        return Batch(self.tokens.to(device), self.weights.to(device))


@runtime_checkable
class Task(Protocol):
    """Say what a task offers: batches to learn from, batches held out, and its own measure."""

    name: str
    vocab_size: int
    length: int
    measure_name: str

    def batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw a batch to learn from, with nothing but the generator."""

    def held_out(self, batch_size: int) -> Iterator[Batch]:
        """Go through what is never learned from, every time the same."""

    def measure(self, logits: Float[Tensor, "batch length vocab"], batch: Batch) -> float:
        """Return the task's own measure of a batch: a weighted mean."""

    def measure_of_loss(self, loss: float) -> float | None:
        """Return the own measure where the loss alone tells it, else None."""

    def facts(self) -> dict[str, str | int]:
        """Return what tells this task apart from others, for a checkpoint."""


def generator_of(*numbers: int | str) -> torch.Generator:
    """Make a generator that is a function of these numbers and words alone, on any machine."""
    digest = hashlib.blake2b("/".join(map(str, numbers)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def weighted_loss(logits: Float[Tensor, "batch length vocab"], batch: Batch) -> float:
    """Return the weighted mean of -log p(token) in nats: what `ReformerLM.loss` minimises."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    log_shares = logits[:, :-1].to(exact).log_softmax(-1)
    of_the_token = log_shares.gather(-1, batch.tokens[:, 1:, None]).squeeze(-1)
    weights = batch.weights[:, 1:]
    return float(-(of_the_token * weights).sum() / weights.sum())


def check_lengths(vocab_size: int, length: int, least: int) -> None:
    """Refuse a vocabulary or a length that leaves nothing to predict."""
    if vocab_size < 2:
        raise ValueError(f"vocab_size must be at least 2, got {vocab_size}: one token says nothing")
    if length < least:
        raise ValueError(f"length must be at least {least}, got {length}")
