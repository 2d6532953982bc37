"""How well a model does on what it never learned from."""

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor

from reformer_core.models import ReformerLM, evaluating
from reformer_core.tasks.batch import Batch, Task, weighted_loss
from reformer_core.training.isolation import beside_the_cpu
from reformer_core.training.records import Evaluation


def evaluate(
    model: ReformerLM, task: Task, *, batch_size: int = 16, n_batches: int | None = None
) -> Evaluation:
    """Measure a model on the held-out batches, the first `n_batches` of them (None: all).

    In evaluation mode and without autocast. The model's mode and the random state are left as they
    were.
    """
    for name, number in (("batch_size", batch_size), ("n_batches", n_batches)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}: nothing would be measured")
    return evaluate_batches(model, task, islice(task.held_out(batch_size), n_batches))


def evaluate_batches(
    model: ReformerLM, task: Task, batches: Iterable[Batch], step: int | None = None
) -> Evaluation:
    """Average loss and measure over batches, each by how much it counts."""
    device = next(model.parameters()).device
    total = torch.zeros(3, dtype=torch.float64)
    aside = torch.random.fork_rng(beside_the_cpu(device))
    with evaluating(model), aside, torch.no_grad():
        for batch in batches:
            total += _counted(model, task, batch.to(device))
    loss, measure = (total[:2] / total[2]).tolist()
    return Evaluation(loss=loss, measure=measure, measure_name=task.measure_name, step=step)


def _counted(model: ReformerLM, task: Task, batch: Batch) -> Tensor:
    """Return a batch's loss and measure times how much it counts, and how much it counts."""
    logits, counts = model(batch.tokens), float(batch.weights[:, 1:].sum())
    means = [weighted_loss(logits, batch), task.measure(logits, batch), 1.0]
    return counts * torch.tensor(means, dtype=torch.float64)
