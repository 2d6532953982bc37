"""What a fused attention is told besides its tensors: who sees whom, and what that weighs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reformer_core.bucketing import BucketPlan


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """Who sees whom, and what that weighs."""

    plan: BucketPlan
    count_repeats: bool = False
    """Whether a pair counts as often as rounds show it, or once."""
    dropout: float = 0.0
    seed: int | Tensor = 0
    """Which pairs are dropped (see `dropout.py`)."""


def accumulated_in(qk: Tensor, values: Tensor) -> torch.dtype:
    """Return the dtype of softmax, sums and output: the inputs', but at least float32."""
    return torch.promote_types(torch.promote_types(qk.dtype, values.dtype), torch.float32)
