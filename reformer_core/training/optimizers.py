"""How weights move: torch's own optimisers, and a learning rate that is a function of the step."""

import math

import torch
from torch import Tensor, nn

from reformer_core.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 0: a linear warm-up, then the schedule.

    "constant" stays, "cosine" falls to 0 at the end of the run, "inverse_sqrt" falls with the
    square root of the step.
    """
    warm_up = min(1.0, (step + 1) / max(1, config.warmup_steps))
    after = max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    factor = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * min(1.0, after))) / 2,
        "inverse_sqrt": math.sqrt(max(1, config.warmup_steps) / max(config.warmup_steps, step + 1)),
    }
    return config.learning_rate * warm_up * factor[config.schedule]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimiser, in which only matrices that are no embeddings decay."""
    learning = [(name, w) for name, w in model.named_parameters() if w.requires_grad]
    if not learning:
        raise ValueError("at least one parameter must require a gradient, got a frozen model")
    decays = {name for name, w in learning if w.ndim > 1 and not name.startswith("embed.")}
    groups = [
        {"params": [w for name, w in learning if name in decays]},
        {"params": [w for name, w in learning if name not in decays], "weight_decay": 0.0},
    ]
    kinds = {"adamw": torch.optim.AdamW, "adafactor": torch.optim.Adafactor}
    return kinds[config.optimizer](
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Name what the optimiser remembers after the parameter that it is about."""
    return {
        f"{name}/{what}": optimizer.state[weight][what]
        for name, weight in model.named_parameters()
        for what in optimizer.state.get(weight, ())
    }


def put_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Give the optimiser back what it remembered, on the devices where it wants it."""
    names = {weight: name for name, weight in model.named_parameters()}
    order = [names[weight] for group in optimizer.param_groups for weight in group["params"]]
    remembered: dict[str, dict[str, Tensor]] = {}
    for whole, tensor in tensors.items():
        name, what = whole.rsplit("/", 1)
        remembered.setdefault(name, {})[what] = tensor
    state = {i: remembered[name] for i, name in enumerate(order) if name in remembered}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
