"""Teach a model a task: a run that repeats bit for bit, stops when asked, and goes on later."""

from reformer_core.checkpoints import load_checkpoint, save_checkpoint
from reformer_core.training.evaluation import evaluate
from reformer_core.training.loop import train
from reformer_core.training.optimizers import learning_rate
from reformer_core.training.records import Evaluation, Progress, StepRecord, TrainingRun

__all__ = [
    "Evaluation",
    "Progress",
    "StepRecord",
    "TrainingRun",
    "evaluate",
    "learning_rate",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
