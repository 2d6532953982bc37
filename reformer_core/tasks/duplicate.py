"""Repeat what you read: the paper's 0w0w, which needs a look far back (Sec. 2, synthetic task)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from reformer_core.tasks.batch import Batch, check_lengths, generator_of

HELD_OUT = 256
"""How many sequences the measure is taken over: one wrong symbol of length 64 is 0.01 %."""


@dataclass(frozen=True)
class Duplicate:
    """Offer sequences 0w0w with w drawn evenly from {1..vocab_size-1}^(length/2-1).

    0 separates. Only the predictions of the second w count, because the first cannot be guessed
    and the separators teach nothing. Whoever attends to the place half a length back is always
    right.
    """

    vocab_size: int
    length: int
    name: ClassVar[str] = "duplicate"
    measure_name: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        check_lengths(self.vocab_size, self.length, least=4)
        if self.length % 2:
            raise ValueError(f"length must be even, got {self.length}: 0w0w is two equal halves")

    def batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw sequences, with nothing but the generator."""
        half = self.length // 2
        words = torch.randint(
            1, self.vocab_size, (batch_size, half - 1), generator=generator, dtype=torch.int64
        )
        once = torch.nn.functional.pad(words, (1, 0))
        weights = torch.zeros(batch_size, self.length)
        weights[:, half + 1 :] = 1
        return Batch(torch.cat([once, once], dim=1), weights)

    def held_out(self, batch_size: int) -> Iterator[Batch]:
        """Go through the same sequences every time, drawn from a generator of their own."""
        everything = self.batch(HELD_OUT, generator_of("duplicate", "held out"))
        pairs = zip(
            everything.tokens.split(batch_size), everything.weights.split(batch_size), strict=True
        )
        return (Batch(tokens, weights) for tokens, weights in pairs)

    def measure(self, logits: Float[Tensor, "batch length vocab"], batch: Batch) -> float:
        """Return the accuracy: the share of the second w whose most likely symbol is right."""
        right = logits[:, :-1].argmax(-1) == batch.tokens[:, 1:]
        weights = batch.weights[:, 1:]
        return float((right * weights).sum() / weights.sum())

    def measure_of_loss(self, loss: float) -> None:
        """Return None: a loss does not tell how many symbols are right."""

    def facts(self) -> dict[str, str | int]:
        """Return what tells this task apart from others."""
        return {"name": self.name, "vocab_size": self.vocab_size, "length": self.length}
