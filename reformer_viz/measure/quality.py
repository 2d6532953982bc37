"""How good models get with more layers: what the left panel of the paper's Figure 5 shows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from reformer_core.config import AttentionKind, ReformerConfig, TrainConfig
from reformer_core.tasks import Task
from reformer_core.training import TrainingRun
from reformer_core.training import train as run_training
from reformer_viz.measure.speed import SpeedReading, machine_name, read_record
from reformer_viz.measure.step_kinds import new_model
from reformer_viz.measure.words import count

Way = Literal["lsh", "full"]
WAYS: tuple[Way, ...] = ("lsh", "full")
LABELS: dict[Way, str] = {"lsh": "LSH attention", "full": "full attention"}

_SCHEMA = "reformer_viz quality 1"
_ARRAYS = ("depths", "steps", "measure", "loss", "parameters", "seconds")
_FACTS = ("ways", "measure_name", "task", "length", "n_hashes", "machine", "date")


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """What models of several depths reached on held-out data, all trained in the same way."""

    ways: tuple[Way, ...]
    """What attends where the config says "lsh": LSH attention, and full attention beside it."""
    depths: Int[np.ndarray, " depths"]
    steps: Int[np.ndarray, " evaluations"]
    """After how many steps of training the models were evaluated."""
    measure: Float[np.ndarray, "ways depths evaluations"]
    """Held out; in the units of `measure_name`: a share for an accuracy, or bits per byte."""
    loss: Float[np.ndarray, "ways depths evaluations"]
    """Held out, in nats."""
    parameters: Int[np.ndarray, " depths"]
    seconds: Float[np.ndarray, "ways depths"]
    """What training and evaluating took."""
    measure_name: str
    task: str
    length: int
    n_hashes: int
    machine: str = ""
    date: str = ""

    @property
    def last(self) -> Float[np.ndarray, "ways depths"]:
        """What was reached at the end."""
        return self.measure[..., -1]

    @property
    def more_is_better(self) -> bool:
        """Whether a greater measure is a better one."""
        return self.measure_name == "accuracy"

    def words(self) -> str:
        """Name the measure in words."""
        return self.measure_name.replace("_", " ")

    def in_units(self, measure: float) -> str:
        """Write a value of the measure: an accuracy in percent, all else with three digits."""
        return f"{measure:.1%}" if self.more_is_better else f"{measure:.3g}"

    def best(self, way: int) -> int:
        """Return the place of the depth that got furthest."""
        last = self.last[way]
        return int(last.argmax() if self.more_is_better else last.argmin())

    def describe(self) -> str:
        """Say in a few sentences what depth does for quality."""
        said = [self._of_way(row, way) for row, way in enumerate(self.ways)]
        return (
            f"Held-out {self.words()} after {count(int(self.steps[-1]), 'step')} on {self.task}, "
            f"{self.length:,} tokens, {count(self.n_hashes, 'round')}. {' '.join(said)}"
        )

    def _of_way(self, row: int, way: Way) -> str:
        reached = ", ".join(
            f"{self.in_units(measure)} with {count(int(depth), 'layer')}"
            for depth, measure in zip(self.depths, self.last[row], strict=True)
        )
        best = count(int(self.depths[self.best(row)]), "layer")
        name = LABELS[way][0].upper() + LABELS[way][1:]
        return f"{name}: {reached}; best with {best}."

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, for `read_quality`."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        facts = {name: getattr(self, name) for name in _FACTS}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = {"schema": _SCHEMA, **facts, **arrays}.items()
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in entries)
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return path


@dataclass(frozen=True, kw_only=True, eq=False)
class FigureFive:
    """Both panels of the paper's Figure 5: quality by depth, and speed by length."""

    quality: Quality
    speed: SpeedReading

    def describe(self) -> str:
        """Say what depth does for quality, then read out the times."""
        return f"{self.quality.describe()} {self.speed.describe()}"


def measure_quality(
    config: ReformerConfig,
    task: Task,
    depths: Sequence[int] = (1, 2, 4),
    *,
    train: TrainConfig,
    ways: Sequence[str] = WAYS,
) -> Quality:
    """Train models of several depths on a task, from scratch and alike, and evaluate them.

    Sec. 5 of the paper, Figure 5, left. With the way "full" every LSH layer of the config attends
    to all pairs instead; nothing else differs. `train.evaluate_every` says at which steps learning
    is looked at. Takes as long as so many training runs. The caller's random state is left as it
    was.

    Raises ValueError for a config without LSH layers, for depths or ways that are none, twice or
    not there, and for a `folder`, where every run would find another's checkpoint. Ctrl-C ends all
    of it.
    """
    _check(config, depths, ways, train)
    runs = [[_train(config, task, depth, way, train) for depth in depths] for way in ways]
    of_evaluations = {
        name: np.array(
            [[[getattr(e, name) for e in run.evaluations] for run in of_way] for of_way in runs]
        )
        for name in ("measure", "loss")
    }
    evaluations = runs[0][0].evaluations
    return Quality(
        ways=tuple(ways),
        depths=np.array(depths),
        steps=np.array([evaluation.step for evaluation in evaluations]),
        **of_evaluations,
        parameters=np.array([_n_parameters(run) for run in runs[0]]),
        seconds=np.array([[run.seconds for run in of_way] for of_way in runs]),
        measure_name=evaluations[0].measure_name,
        task=task.name,
        length=task.length,
        n_hashes=config.n_hashes,
        machine=machine_name(runs[0][0].device),
    )


def read_quality(path: str | Path) -> Quality:
    """Read what `Quality.save` wrote. Raises ValueError for a file that is missing or another."""
    record = read_record(path, _SCHEMA, "Quality.save")
    arrays = {name: np.array(record[name]) for name in _ARRAYS}
    facts = {name: record[name] for name in _FACTS}
    return Quality(**arrays, **facts | {"ways": tuple(facts["ways"])})


def _check(
    config: ReformerConfig, depths: Sequence[int], ways: Sequence[str], train: TrainConfig
) -> None:
    """Refuse what cannot be compared."""
    if "lsh" not in config.attention:
        raise ValueError(f'config must have "lsh" in its attention, got {config.attention}')
    if not len(depths) or min(depths) < 1 or len(set(depths)) < len(depths):
        raise ValueError(f"depths must be at least 1, each once, got {tuple(depths)}")
    if not ways or not set(ways) <= set(WAYS) or len(set(ways)) < len(ways):
        raise ValueError(f"ways must be one or more of {WAYS}, each once, got {tuple(ways)}")
    if train.folder is not None:
        raise ValueError(
            f"train must name no folder, got {str(train.folder)!r}: every run would find the "
            f"checkpoint of another one there"
        )


def _train(
    config: ReformerConfig, task: Task, depth: int, way: Way | str, train: TrainConfig
) -> TrainingRun:
    """Train one model."""
    attention: tuple[AttentionKind, ...] = tuple(
        "full" if kind == "lsh" and way == "full" else kind for kind in config.attention
    )
    model = new_model(replace(config, n_layers=depth, attention=attention))
    run = run_training(model, task, train)
    if run.stopped == "interrupted":
        raise KeyboardInterrupt
    return run


def _n_parameters(run: TrainingRun) -> int:
    return sum(parameter.numel() for parameter in run.model.parameters())
