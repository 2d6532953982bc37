"""What attention is told: vectors of a kind it can attend to, who sees whom, what that weighs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reformer_core.bucketing import BucketPlan

_DTYPES = torch.float16, torch.bfloat16, torch.float32, torch.float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """Who sees whom, and what that weighs."""

    plan: BucketPlan
    count_repeats: bool = False
    """Whether a pair counts as often as rounds show it, or once."""
    dropout: float = 0.0
    seed: int | Tensor = 0
    """Which pairs are dropped (see `dropout.py`)."""


def check_vectors(
    qk: Tensor, values: Tensor, shape: tuple[int, int, int], device: torch.device, whose: str
) -> None:
    """Refuse vectors that cannot be attended to, or are not of a (batch, heads, length)."""
    for name, tensor in (("qk", qk), ("values", values)):
        if tensor.dim() != 4 or tensor.shape[:3] != shape:
            raise ValueError(
                f"{name} must be (batch, heads, length, width) with {whose} {tuple(shape)}, got "
                f"{tuple(tensor.shape)}: make qk, values and plan of one input"
            )
        if tensor.dtype not in _DTYPES:
            raise ValueError(
                f"{name} must be of float16, bfloat16, float32 or float64, got {tensor.dtype}: "
                f"convert it, say with {name}.float()"
            )
        if tensor.device != device:
            raise ValueError(
                f"{name} must be on {whose} device {device}, got {tensor.device}: move it"
            )


def accumulated_in(qk: Tensor, values: Tensor) -> torch.dtype:
    """Return the dtype of softmax, sums and output: the inputs', but at least float32."""
    return torch.promote_types(torch.promote_types(qk.dtype, values.dtype), torch.float32)
