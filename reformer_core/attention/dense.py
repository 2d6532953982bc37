"""The definition: one softmax over the pairs that a plan shows. Builds length x length."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core.attention.dropout import check_dropout, draw_seed, kept_share, pair_keys
from reformer_core.attention.rule import check_vectors
from reformer_core.bucketing import BucketPlan, check_padding


def keys_from(
    qk: Float[Tensor, "batch heads length d_head"],
) -> Float[Tensor, "batch heads length d_head"]:
    """Scale shared query-keys to exactly unit length: k = q / |q| (Sec. 2, shared-QK).

    Normalised in at least float32 and returned so; a zero row has a zero key and passes no
    gradient.
    """
    qk = qk.to(torch.promote_types(qk.dtype, torch.float32))
    norm = torch.linalg.vector_norm(qk, dim=-1, keepdim=True)
    some = norm > 0
    return qk / torch.where(some, norm, 1) * some


def dense_lsh_attention(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    plan: BucketPlan,
    *,
    count_repeats: bool = False,
    dropout: float = 0.0,
    seed: int | Int[Tensor, ""] | None = None,
) -> Float[Tensor, "batch heads length d_value"]:
    """Attend by the definition that every faster version is checked against.

    With N_ij the number of rounds in which i may see j, the weights are one softmax of
    q_i . k_j + log 1[N_ij > 0]: each pair counts once, however many rounds show it.
    `count_repeats` counts a pair as often as it is seen: q_i . k_j + log N_ij. A position attends
    to itself only when it sees nobody else in any round; padding gets zeros.
    """
    check_belongs(qk, values, plan)
    times_seen = plan.times_seen()
    counts = times_seen if count_repeats else times_seen > 0
    return _attend(qk, values, counts, plan.padding, dropout, seed)


def check_belongs(qk: Tensor, values: Tensor, plan: BucketPlan) -> None:
    """Refuse vectors that a plan was not made for."""
    batch, heads, _, length = plan.slot.shape
    check_vectors(qk, values, (batch, heads, length), plan.slot.device, "the plan's")


def full_attention(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    *,
    causal: bool,
    padding: Bool[Tensor, "batch length"] | None = None,
    dropout: float = 0.0,
    seed: int | Int[Tensor, ""] | None = None,
) -> Float[Tensor, "batch heads length d_value"]:
    """Attend over all pairs with LSH attention's semantics: unit keys, oneself last.

    What LSH attention becomes as the rounds see every pair, and so what to compare it with.
    """
    check_vectors(qk, values, qk.shape[:3], qk.device, "qk's")
    batch, heads, length, _ = qk.shape
    if padding is not None:
        check_padding(padding, batch, length, qk.device)
    everyone = torch.ones(length, length, dtype=torch.bool, device=qk.device)
    counts = everyone.tril(-1)
    if not causal:
        counts = counts | counts.mT
    counts = counts.expand(batch, heads, length, length)
    if padding is not None:
        counts = counts & ~padding[:, None, None, :] & ~padding[:, None, :, None]
    return _attend(qk, values, counts, padding, dropout, seed)


def _attend(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    counts: Tensor,
    padding: Bool[Tensor, "batch length"] | None,
    dropout: float,
    seed: int | Int[Tensor, ""] | None,
) -> Float[Tensor, "batch heads length d_value"]:
    """Softmax over the pairs with a count, each weighing exp(score) * count."""
    check_dropout(dropout, seed)
    dtype = values.dtype
    if padding is not None:
        qk, values = (part.masked_fill(padding[:, None, :, None], 0) for part in (qk, values))
    with torch.autocast(qk.device.type, enabled=False):
        keys = keys_from(qk)
        values = values.to(torch.promote_types(dtype, keys.dtype))
        scores = qk.to(keys.dtype) @ keys.mT + counts.to(keys.dtype).log()
        alone = (counts == 0).all(-1, keepdim=True)
        weights = torch.softmax(scores.masked_fill(alone, 0), -1).masked_fill(alone, 0)
        if dropout:
            seed = draw_seed() if seed is None else seed
            pairs = [
                part.unflatten(0, qk.shape[:2])
                for part in pair_keys(seed, *qk.shape[:3], qk.device)
            ]
            weights = weights * kept_share(*pairs, dropout, weights.dtype)
        attended = weights.to(values.dtype) @ values + alone * values
    if padding is not None:
        attended = attended.masked_fill(padding[:, None, :, None], 0)
    return attended.to(dtype)
