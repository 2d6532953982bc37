"""Train a model that comes with the lessons: python tools/train_shipped.py duplicate_lsh4."""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reformer_core import ReformerConfig, ReformerLM, TrainConfig, train
from reformer_core.tasks import Duplicate, Task, TextBytes
from reformer_core.training import evaluate
from reformer_viz import Recorder
from reformer_viz.lessons import shipped
from reformer_viz.measure.microscope import label_bytes

COPYING = Duplicate(vocab_size=32, length=256)
COPIER = ReformerConfig(
    vocab_size=COPYING.vocab_size,
    d_model=128,
    n_layers=1,
    n_heads=4,
    chunk_length=32,
    max_length=COPYING.length,
)
COPY_TRAINING = TrainConfig(
    steps=700,
    batch_size=16,
    learning_rate=5e-3,
    schedule="cosine",
    evaluate_every=50,
    evaluation_batches=4,
)
WRITER = ReformerConfig(
    vocab_size=TextBytes.vocab_size,
    d_model=128,
    n_layers=4,
    n_heads=4,
    attention=("local", "lsh"),
    n_hashes=4,
    chunk_length=32,
    max_length=256,
)
WRITE_TRAINING = TrainConfig(
    steps=1500,
    batch_size=16,
    learning_rate=3e-3,
    schedule="cosine",
    evaluate_every=100,
    evaluation_batches=6,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Say what is trained on what, and how."""

    task: str
    """Of the model's vocabulary and greatest length: duplicate or text."""
    model: ReformerConfig
    how: TrainConfig
    look_every: int
    """How many steps lie between two snapshots."""

    def make_task(self) -> Task:
        """Make the task, which for a text takes a moment."""
        length = self.model.max_length
        if self.task == TextBytes.name:
            return TextBytes(length)
        return Duplicate(self.model.vocab_size, length)


RECIPES = {
    "duplicate_full": Recipe(
        task="duplicate",
        model=replace(COPIER, attention=("full",)),
        how=COPY_TRAINING,
        look_every=50,
    ),
    **{
        f"duplicate_lsh{n_hashes}": Recipe(
            task="duplicate",
            model=replace(COPIER, n_hashes=n_hashes),
            how=COPY_TRAINING,
            look_every=50,
        )
        for n_hashes in (4, 2, 1)
    },
    "text": Recipe(task="text", model=WRITER, how=WRITE_TRAINING, look_every=300),
}


def command_for(name: str) -> str:
    """Return what makes this model, to be typed at the top of the project."""
    return f"python tools/train_shipped.py {name}"


def train_shipped(name: str, folder: Path, steps: int | None = None) -> None:
    """Train a model as its recipe says, or for fewer steps, and write it to a folder."""
    recipe = RECIPES[name]
    how = recipe.how if steps is None else replace(recipe.how, steps=steps)
    task = recipe.make_task()
    torch.manual_seed(how.seed)
    model = ReformerLM(recipe.model)
    recorder = _recorder(model, task, range(0, how.steps + 1, recipe.look_every))
    run = train(model, task, how, on_step=recorder)
    shipped.write(
        folder / name,
        run,
        task,
        command=command_for(name),
        metrics=evaluate(model, task),
        recording=None if recorder is None else recorder.recording,
    )


def _recorder(model: ReformerLM, task: Task, at: range) -> Recorder | None:
    """Watch the first held-out sequence, if the model hashes."""
    if "lsh" not in model.config.attention:
        return None
    probe = next(task.held_out(1)).tokens
    labels = label_bytes(probe[0].tolist()) if isinstance(task, TextBytes) else None
    return Recorder(model, probe, at=at, labels=labels)


def main() -> int:
    """Train what the command line says, into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--folder", type=Path, default=shipped.FOLDER)
    asked = parser.parse_args()
    train_shipped(asked.name, asked.folder)
    print(shipped.read(asked.folder / asked.name).describe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
