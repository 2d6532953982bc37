"""LSH attention and full attention: functions without weights, one signature."""

from jaxtyping import Float, Int
from torch import Tensor

from reformer_core.attention.dense import (
    check_belongs,
    dense_lsh_attention,
    full_attention,
    keys_from,
)
from reformer_core.attention.dropout import check_dropout, draw_seed
from reformer_core.attention.operation import fused_lsh_attention
from reformer_core.attention.rule import Rule
from reformer_core.bucketing import BucketPlan

__all__ = ["dense_lsh_attention", "full_attention", "keys_from", "lsh_attention"]


def lsh_attention(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    plan: BucketPlan,
    *,
    count_repeats: bool = False,
    dropout: float = 0.0,
    seed: int | Int[Tensor, ""] | None = None,
) -> Float[Tensor, "batch heads length d_value"]:
    """Attend from every position to the union of what the plan's rounds show it (Eq. 3-6).

    One softmax over all pairs seen in any round: o_i = sum_j exp(q_i . k_j - z_i) v_j, with keys
    k = q / |q| of unit length and no further scale. A pair counts once, or with `count_repeats` as
    often as rounds show it. A position attends to itself only when it sees nobody in any round;
    padding gets zeros. Memory grows with the length, not with its square, forward and backward.

    `dropout` drops pairs: whether one is dropped depends on `seed`, its head and its two positions
    alone, so that repeats are dropped together; `seed=None` draws one from the global generator.
    Softmax and sums are computed in at least float32, and the result has the values' dtype.

    qk, its squares and values must be finite, but in padding, which is never read: a NaN or an
    infinity may spread to all whose scores are computed together. Raises ValueError when plan, qk
    and values do not belong together. Differentiable once.
    """
    check_belongs(qk, values, plan)
    check_dropout(dropout, seed)
    if seed is None:
        seed = draw_seed() if dropout else 0
    rule = Rule(plan=plan, count_repeats=count_repeats, dropout=dropout, seed=seed)
    return fused_lsh_attention(qk, values, rule)
