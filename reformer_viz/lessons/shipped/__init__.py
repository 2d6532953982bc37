"""The trained models that come with the lessons, each with the command that made it and its run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reformer_core.checkpoints import checkpoint_path, model_of, read_checkpoint, save_checkpoint
from reformer_core.config import TrainConfig
from reformer_core.models import ReformerLM
from reformer_core.tasks import Duplicate, Task, TextBytes
from reformer_core.training import Evaluation, TrainingRun
from reformer_core.training.records import history_of, history_tensors
from reformer_core.training.resuming import grouped, training_facts, ungrouped
from reformer_viz.measure.recording import FILE as SNAPSHOTS
from reformer_viz.measure.recording import Recording, load_recording
from reformer_viz.measure.training import Training, collect_training

FOLDER = Path(__file__).parent
"""Where a model has a folder of its own: its weights, and the snapshots of its training."""

_TASKS: dict[str, Callable[[dict[str, Any]], Task]] = {
    Duplicate.name: lambda said: Duplicate(said["vocab_size"], said["length"]),
    TextBytes.name: lambda said: TextBytes(said["length"]),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Shipped:
    """Hold a trained model, and where it comes from."""

    name: str
    model: ReformerLM
    """In evaluation mode, on the CPU."""
    task: Task
    """What it was trained on. A text is that of the Python that runs, a little different in each.
    """
    how: TrainConfig
    """How it was trained."""
    command: str
    """What made it, to be typed at the top of the project."""
    metrics: Evaluation
    """How well it did on all that is held out, on the machine that trained it."""
    training: Training
    """Its run, for `explore_training`; the snapshots are of its LSH layers, if it has any."""
    seconds: float
    """How long the training took, evaluations included."""
    device: str

    def describe(self) -> str:
        """Say what it is, how good it is, and how it came about."""
        return (
            f"{self.name}: held-out {self.training.words()} "
            f"{self.training.in_units(self.metrics.measure)} after {len(self.training.steps):,} "
            f"steps, {self.seconds:.0f} s on {self.device}; made by: {self.command}"
        )


def names() -> tuple[str, ...]:
    """List what `load` knows."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/checkpoint.safetensors")))


def load(name: str) -> Shipped:
    """Load a model that comes with the lessons, and everything about it.

    Raises ValueError for a name that is not among `names()`.
    """
    if name not in names():
        raise ValueError(f"name must be one of {', '.join(names())}, got {name!r}")
    return read(FOLDER / name)


def read(folder: Path) -> Shipped:
    """Read what `write` wrote to a folder."""
    checkpoint = read_checkpoint(folder)
    facts = checkpoint.facts
    task = facts["task"]
    recording = load_recording(folder) if (folder / SNAPSHOTS).exists() else None
    return Shipped(
        name=facts["name"],
        model=model_of(checkpoint),
        task=_TASKS[task["name"]](task),
        how=TrainConfig(**facts["training"]),
        command=facts["command"],
        metrics=Evaluation(**facts["metrics"]),
        training=collect_training(
            history_of(grouped(checkpoint.tensors)["history"]),
            [Evaluation(**said) for said in facts["evaluations"]],
            recording,
            facts["stopped"],
        ),
        seconds=facts["seconds"],
        device=facts["device"],
    )


def write(
    folder: Path,
    run: TrainingRun,
    task: Task,
    *,
    command: str,
    metrics: Evaluation,
    recording: Recording | None = None,
) -> None:
    """Write a trained model to a folder of its name: weights, history and facts, but no optimiser.

    Replaces what the folder held.
    """
    facts = training_facts(task, run.config) | {
        "name": folder.name,
        "command": command,
        "metrics": vars(metrics),
        "evaluations": [vars(evaluation) for evaluation in run.evaluations],
        "stopped": run.stopped,
        "seconds": run.seconds,
        "device": run.device,
    }
    tensors = ungrouped({"history": history_tensors(list(run.history))})
    save_checkpoint(folder, run.model, tensors=tensors, facts=facts)
    (folder / SNAPSHOTS).unlink(missing_ok=True)
    if recording is not None:
        recording.save(folder)


def size_in_bytes() -> int:
    """Count the bytes of everything that is shipped."""
    folders = [checkpoint_path(FOLDER / name).parent for name in names()]
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())
