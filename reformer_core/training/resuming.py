"""What a run writes down to go on later, and what must be as it was when it does."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from reformer_core.checkpoints import Checkpoint, checkpoint_path
from reformer_core.config import ReformerConfig, TrainConfig
from reformer_core.tasks.batch import Task

_FREE_TO_CHANGE = {
    "steps",
    "folder",
    "resume",
    "device",
    "evaluate_every",
    "evaluation_batches",
    "checkpoint_every",
}
"""What a resumed run may say differently, because no number of the steps depends on it."""


def wants_to_resume(config: TrainConfig) -> bool:
    """Say whether there is a checkpoint to go on from; refuse to overwrite one unasked."""
    if config.folder is None or not checkpoint_path(config.folder).exists():
        return False
    if not config.resume:
        raise ValueError(
            f"{config.folder} must not hold a checkpoint already, or that run would be lost: say "
            f"resume=True to go on from it, or name another folder"
        )
    return True


def training_facts(task: Task, config: TrainConfig) -> dict[str, Any]:
    """Return in JSON's words which task is taught and how."""
    how = asdict(config) | {"folder": None if config.folder is None else str(config.folder)}
    return {"task": task.facts(), "training": how}


def check_same(checkpoint: Checkpoint, model: ReformerConfig, now: dict[str, Any]) -> None:
    """Refuse to go on with another model, task or training than the checkpoint's."""
    saved = checkpoint.facts
    if "training" not in saved:
        raise ValueError(
            "a checkpoint to go on from must hold a training run, got a model alone: load it with "
            "load_checkpoint, and train it with another folder"
        )
    # A cosine ends with the run, so that there the number of steps is part of every step.
    free = _FREE_TO_CHANGE - ({"steps"} if now["training"]["schedule"] == "cosine" else set())
    differing = (
        _differences(asdict(checkpoint.config), asdict(model), set())
        + _differences(saved["task"], now["task"], set())
        + _differences(saved["training"], now["training"], free)
    )
    if differing:
        raise ValueError(
            f"a run must go on as it began, but {', '.join(differing)}: say the same as then, or "
            f"name another folder"
        )


def ungrouped(groups: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Turn two levels of names into "group/name"."""
    return {f"{group}/{name}": t for group, of in groups.items() for name, t in of.items()}


def grouped(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Turn "group/name" into two levels of names."""
    groups: dict[str, dict[str, Tensor]] = {}
    for whole, tensor in tensors.items():
        group, name = whole.split("/", 1)
        groups.setdefault(group, {})[name] = tensor
    return groups


def _differences(then: dict[str, Any], now: dict[str, Any], free: set[str]) -> list[str]:
    """Name what differs and how."""
    return [
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in then | now
        if name not in free and then.get(name) != now.get(name)
    ]
