"""Trained with one attention, used with another: the paper's Table 2, for models of any size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from reformer_core.models import ReformerLM
from reformer_core.tasks import Duplicate, Task
from reformer_core.training import evaluate
from reformer_viz.measure.rounds import with_attention
from reformer_viz.measure.words import count

_BATCH = 16
_PAPER_ROUNDS = (None, 8, 4, 2, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer:
    """How often models copy rightly when another attention takes the place of their own."""

    trained: tuple[str, ...]
    """What each model was trained with: its row's name."""
    used: tuple[str, ...]
    """The attention in use: "full", or "LSH-4" with four rounds."""
    accuracy: Float[np.ndarray, "trained used"]
    vocab_size: int
    length: int
    n_sequences: int | None
    """How many were copied, where that is known."""

    @property
    def chance(self) -> float:
        """The accuracy of guessing any symbol but the separator."""
        return 1 / (self.vocab_size - 1)

    def describe(self) -> str:
        """Say the whole matrix, row by row."""
        sequences = "" if self.n_sequences is None else f"{count(self.n_sequences, 'sequence')} of "
        rows = [
            f"trained with {name}: {', '.join(f'{share:.1%}' for share in row)}"
            for name, row in zip(self.trained, self.accuracy, strict=True)
        ]
        return (
            f"{sequences}length {self.length:,}, {self.vocab_size:,} symbols; right when used with "
            f"{', '.join(self.used)}; {'; '.join(rows)}. Guessing: {self.chance:.1%}."
        )


@torch.no_grad()
def measure_transfer(
    models: Mapping[str, ReformerLM],
    task: Task,
    *,
    n_hashes: Sequence[int | None] = _PAPER_ROUNDS,
    n_batches: int | None = None,
) -> Transfer:
    """Let every model copy held-out sequences with full attention (None) and with LSH attention.

    `models` are called by what they were trained with. Rounds are a model's own first ones, and
    more are drawn for more. A batch has 16 sequences; `n_batches=None` takes all that are held out.
    Works on copies in evaluation mode: the models are only read.

    Raises ValueError for another task, and where there is no model or no attention to use.
    """
    if not isinstance(task, Duplicate):
        raise ValueError(
            f"task must be Duplicate, whose answers are right or wrong, got {type(task).__name__}: "
            f"for a text use measure_miss_cost"
        )
    if not models or not n_hashes:
        raise ValueError(
            f"give at least one model and one n_hashes, got {len(models)} and {len(n_hashes)}"
        )
    if any(n is not None and n < 1 for n in n_hashes):
        raise ValueError(f"n_hashes must be at least 1, or None for all pairs, got {[*n_hashes]}")
    batches = [batch.tokens for batch in task.held_out(_BATCH)][:n_batches]

    def accuracy(model: ReformerLM, n: int | None) -> float:
        used = with_attention(model, n)
        return evaluate(used, task, batch_size=_BATCH, n_batches=n_batches).measure

    return Transfer(
        trained=tuple(models),
        used=tuple("full" if n is None else f"LSH-{n}" for n in n_hashes),
        accuracy=np.array([[accuracy(model, n) for n in n_hashes] for model in models.values()]),
        vocab_size=task.vocab_size,
        length=task.length,
        n_sequences=sum(len(tokens) for tokens in batches),
    )


def transfer_of_paper() -> Transfer:
    """Return Table 2 of the paper as it is printed there."""
    per_cent = [
        [100.0, 94.8, 92.5, 76.9, 52.5],
        [0.8, 100.0, 99.9, 99.4, 91.9],
        [0.8, 100.0, 99.9, 98.1, 86.8],
        [0.8, 99.9, 99.6, 94.8, 77.9],
    ]
    return Transfer(
        trained=("full", "LSH-4", "LSH-2", "LSH-1"),
        used=("full", "LSH-8", "LSH-4", "LSH-2", "LSH-1"),
        accuracy=np.array(per_cent) / 100,
        vocab_size=128,
        length=1024,
        n_sequences=None,
    )
