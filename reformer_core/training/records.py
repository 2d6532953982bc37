"""What a training run leaves behind: a record of every step, evaluations, and where it stands."""

from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from torch import Tensor

from reformer_core.config import TrainConfig
from reformer_core.models import ReformerLM


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """Say what one step did. `step` counts from 1; `loss` is in nats, before the update."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    """Before clipping."""
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Say how well a model does on what it never learned from."""

    loss: float
    """In nats per counted prediction."""
    measure: float
    """What the task calls `measure_name`: accuracy, or bits per byte."""
    measure_name: str
    step: int | None = None
    """After how many steps of training, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Say where a run is, right after a step: what a view may read while it goes on."""

    steps: int
    """How many there will be."""
    latest: StepRecord
    tokens_per_second: float
    seconds_left: float
    evaluation: Evaluation | None
    """The latest one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """Hold what a training run did, and the model as it is now."""

    model: ReformerLM = field(repr=False)
    config: TrainConfig
    history: tuple[StepRecord, ...] = field(repr=False)
    evaluations: tuple[Evaluation, ...]
    stopped: Literal["finished", "interrupted"]
    seconds: float
    """Of training and evaluating, earlier parts of a resumed run included."""
    device: str

    @property
    def losses(self) -> list[float]:
        """Return the loss of every step."""
        return [record.loss for record in self.history]


def history_tensors(history: list[StepRecord]) -> dict[str, Tensor]:
    """Turn the record of the steps into columns."""
    return {
        column.name: torch.tensor(
            [getattr(record, column.name) for record in history], dtype=torch.float64
        )
        for column in fields(StepRecord)
    }


def history_of(columns: dict[str, Tensor]) -> list[StepRecord]:
    """Turn columns into the record of the steps."""
    kinds = {column.name: column.type for column in fields(StepRecord)}
    values = {name: [kinds[name](x) for x in columns[name].tolist()] for name in kinds}
    return [
        StepRecord(**dict(zip(kinds, row, strict=True)))
        for row in zip(*values.values(), strict=True)
    ]
