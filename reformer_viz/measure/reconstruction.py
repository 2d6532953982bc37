"""Look how exactly a reversible stack computes its inputs again, layer after layer (Eq. 9)."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from reformer_core.config import ReformerConfig
from reformer_core.models import ReformerLM
from reformer_viz.measure.step_kinds import model_of_kind, new_model, new_tokens

Precision = Literal["float32", "bfloat16", "autocast"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

LABELS: dict[Precision, str] = {
    "float32": "all in float32",
    "autocast": "products in bfloat16, streams in float32",
    "bfloat16": "all in bfloat16",
}
"""How the precisions are called in pictures and sentences."""

_KEPT_IN: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "autocast": torch.float32,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How far from the forward's the streams are that the backward computes again."""

    undone: Int[np.ndarray, " layers"]
    """How many layers lay between what was kept and the stream: 1 is the last layer's input."""
    errors: dict[Precision, Float[np.ndarray, " layers"]]
    """|again - x2| / |x2| of the stream that the layer's attention reads, in root mean squares."""
    gradients: dict[Precision, float]
    """The same of all gradients of parameters, against the standard stack's in that precision."""
    rounding: dict[Precision, float]
    """The largest relative error of one rounding of a stream."""
    batch_size: int
    length: int

    def describe(self) -> str:
        """Say how the error grows, in powers of ten, which do not depend on the machine."""
        deep = int(self.undone[-1])
        said = [
            f"{LABELS[kind].capitalize()}: below {_power_above(errors[-1])} of the stream, and "
            f"below {_power_above(self.gradients[kind])} of the gradients."
            for kind, errors in self.errors.items()
        ]
        layers = f"{deep} layer{'s' * (deep != 1)}"
        return " ".join([f"Computed again through {layers}, streams are off by little.", *said])


def measure_reconstruction(
    config: ReformerConfig | ReformerLM,
    precisions: Sequence[str] = PRECISIONS,
    *,
    batch_size: int = 1,
    length: int | None = None,
) -> Reconstruction:
    """Run a reversible step, and compare what the backward feeds every layer with the forward's.

    Nothing is computed beside the model: the streams are those that its own forward and backward
    give to its attentions. Precisions are "float32", "bfloat16" for weights and streams alike, and
    "autocast", where products are bfloat16 and streams stay float32, as in training on a GPU. Given
    a model instead of a config, copies of it are run. The caller's random state is left as it was.

    Raises ValueError for an unknown precision, and for a batch that the model cannot read.
    """
    if not precisions or not set(precisions) <= set(PRECISIONS):
        raise ValueError(f"precisions must be some of {PRECISIONS}, got {tuple(precisions)}")
    model = config if isinstance(config, ReformerLM) else new_model(config)
    length = model.config.max_length if length is None else length
    tokens = new_tokens(model.config, batch_size, length).to(model.hash_step.device)
    measured = {precision: _measure(model, tokens, precision) for precision in precisions}
    return Reconstruction(
        undone=np.arange(1, model.config.n_layers + 1),
        errors={precision: errors for precision, (errors, _) in measured.items()},
        gradients={precision: gradients for precision, (_, gradients) in measured.items()},
        rounding={p: torch.finfo(_KEPT_IN[p]).eps / 2 for p in measured},
        batch_size=batch_size,
        length=length,
    )


def _measure(
    model: ReformerLM, tokens: Int[Tensor, "batch length"], precision: Precision
) -> tuple[Float[np.ndarray, " layers"], float]:
    """Return the errors of the streams, the last layer's first, and that of the gradients."""
    steps, is_auto = {}, precision == "autocast"
    for kind in ("standard", "reversible"):
        of_kind = model_of_kind(model, kind).to(_KEPT_IN[precision])
        with torch.random.fork_rng(), torch.enable_grad(), _inputs(of_kind) as inputs:
            torch.manual_seed(0)
            with torch.autocast(tokens.device.type, torch.bfloat16, enabled=is_auto):
                loss = of_kind.loss(tokens)
            loss.backward()
        steps[kind] = inputs, [p.grad for p in of_kind.parameters() if p.grad is not None]
    inputs, gradients = steps["reversible"]
    n_layers = model.config.n_layers
    forward, backward = inputs[:n_layers], inputs[n_layers:]
    pairs = zip(backward, reversed(forward), strict=True)
    errors = [_relative([again], [once]) for again, once in pairs]
    return np.array(errors), _relative(gradients, steps["standard"][1])


@contextlib.contextmanager
def _inputs(model: ReformerLM) -> Iterator[list[Tensor]]:
    """Collect what every attention sublayer is given, in the order in which they are run."""
    given: list[Tensor] = []
    attentions = {block.f for block in model.layers}

    def look(module: nn.Module, inputs: tuple) -> None:
        if module in attentions:
            given.append(inputs[0].detach().clone())

    hook = register_module_forward_pre_hook(look)
    try:
        yield given
    finally:
        hook.remove()


def _relative(got: list[Tensor], wanted: list[Tensor]) -> float:
    """Return |got - wanted| / |wanted| over all numbers of all tensors."""
    off = sum(
        float((a.double() - b.double()).square().sum()) for a, b in zip(got, wanted, strict=True)
    )
    return math.sqrt(off / sum(float(b.double().square().sum()) for b in wanted))


def _power_above(number: float) -> str:
    """Write the power of ten above a number."""
    return f"1e{math.floor(math.log10(number)) + 1}" if number > 0 else "1e-16"
