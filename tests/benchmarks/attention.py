"""Who attends: every LSH attention there is, hashing and sorting included, and what limits it.

All have 8 heads of 64, chunks of 64 with one look back, and are causal. Inputs lie as each one's
own code wants them, so that nobody pays for another's layout.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from tests.benchmarks.case import ALWAYS_IN, Case, Contestant, NotHereError, Ready, differentiable

TILES_AT_ONCE = 64
"""How many tiles the products take at once: two megabytes of scores, which stay in the cache."""


def prepare_ours(case: Case, count_repeats: bool = False) -> Ready:
    """Ready this project's attention, with new rotations every time as in training."""
    from reformer_viz.measure.speed import hash_and_attend  # brings pictures: only ours waits

    qk, values = case.qk_and_values(1, case.n_heads, case.length, case.d_head)
    steps = itertools.count()

    def attend() -> Tensor:
        return hash_and_attend(
            qk,
            values,
            n_hashes=case.n_hashes,
            chunk_length=case.chunk_length,
            count_repeats=count_repeats,
            step=next(steps),
        )

    return differentiable(attend, qk, values)


def lucidrains(case: Case, once: bool = False, own_buckets: bool = False) -> nn.Module:
    """Make lucidrains' attention, within buckets. Its scores are smaller by sqrt(d_head).

    It hashes into length / chunk_length buckets, half of what the paper has, and nobody can tell it
    otherwise; unless `own_buckets`, it is given the number that all others have. It shares its
    rotations between heads, and never factors.
    """
    from reformer_pytorch import LSHAttention

    class Attention(LSHAttention):
        def hash_vectors(self, n_buckets: int, *args, **kwargs) -> Tensor:
            return super().hash_vectors(n_buckets * (1 if own_buckets else 2), *args, **kwargs)

    return Attention(
        bucket_size=case.chunk_length,
        n_hashes=case.n_hashes,
        causal=True,
        allow_duplicate_attention=not once,
        attend_across_buckets=False,
    ).to(case.device)


def prepare_lucidrains(case: Case, **how: bool) -> Ready:
    """Ready lucidrains' attention.

    Its numbers of repeats are float32, and so are then its weights, which it cannot multiply by
    other values: autocast makes them what the values are.
    """
    qk, values = case.qk_and_values(case.n_heads, case.length, case.d_head)
    attention = lucidrains(case, **how)
    dtype = getattr(torch, case.dtype)
    is_mixed = how.get("once", False) and dtype in (torch.bfloat16, torch.float16)

    def attend() -> Tensor:
        with torch.autocast(case.device, dtype if is_mixed else None, enabled=is_mixed):
            return attention(qk, values)[0].to(values.dtype)

    return differentiable(attend, qk, values)


def hugging_face(case: Case, values: Tensor) -> nn.Module:
    """Make Hugging Face's attention, whose projections hand on qk and these values.

    It sees across buckets: it has no mask within its window. Its look-back wraps around.
    """
    from transformers import ReformerConfig
    from transformers.models.reformer.modeling_reformer import LSHSelfAttention

    n_buckets = case.n_buckets()
    config = ReformerConfig(
        is_decoder=True,
        hidden_size=case.n_heads * case.d_head,
        num_attention_heads=case.n_heads,
        attention_head_size=case.d_head,
        lsh_attn_chunk_length=case.chunk_length,
        lsh_num_chunks_before=1,
        lsh_num_chunks_after=0,
        lsh_attention_probs_dropout_prob=0.0,
        num_hashes=case.n_hashes,
        num_buckets=n_buckets if isinstance(n_buckets, int) else list(n_buckets),
        max_position_embeddings=case.length,
    )

    class HandOn(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            return values

    attention = LSHSelfAttention(config, layer_idx=0).to(case.device)
    attention.query_key, attention.value = nn.Identity(), HandOn()
    return attention


def prepare_hugging_face(case: Case) -> Ready:
    """Ready Hugging Face's attention."""
    qk, values = case.qk_and_values(1, case.length, case.n_heads * case.d_head)
    attention = hugging_face(case, values)
    return differentiable(lambda: attention(qk).hidden_states, qk, values)


def prepare_full(case: Case) -> Ready:
    """Ready torch's own full causal attention."""
    qk, values = case.qk_and_values(1, case.n_heads, case.length, case.d_head)
    return differentiable(
        lambda: scaled_dot_product_attention(qk, qk, values, is_causal=True), qk, values
    )


def prepare_flash(case: Case) -> Ready:
    """Ready full causal attention by FlashAttention, in bfloat16 whatever the others compute in."""
    if case.device != "cuda":
        raise NotHereError("FlashAttention needs CUDA")
    qk, values = (
        torch.randn(
            (1, case.n_heads, case.length, case.d_head),
            device=case.device,
            dtype=getattr(torch, ALWAYS_IN["flash"]),
            requires_grad=True,
        )
        for _ in range(2)
    )

    def attend() -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return scaled_dot_product_attention(qk, qk, values, is_causal=True)

    return differentiable(attend, qk, values)


def prepare_products(case: Case) -> Ready:
    """Ready the matrix products of whole tiles alone: chunk_length queries, two chunks of keys.

    Two forward: q k^T and p v. Five backward: q k^T again, dout v^T, dq, dk and dv. Operands are
    there already, and stay in the cache: an implementation that computes whole tiles cannot be
    faster.
    """
    queries, window = case.chunk_length, 2 * case.chunk_length
    n_tiles = case.n_heads * case.n_hashes * -(-case.length // queries)
    at_once = n_tiles if case.device == "cuda" else min(TILES_AT_ONCE, n_tiles)
    q, d_out = (case.randn(at_once, queries, case.d_head) for _ in range(2))
    k, v = (case.randn(at_once, window, case.d_head) for _ in range(2))
    p = case.randn(at_once, queries, window)
    out, to_keys, scores = (torch.empty_like(x) for x in (q, k, p))
    forward = ((q, k.mT, scores), (p, v, out))
    backward = (
        (q, k.mT, scores),
        (d_out, v.mT, scores),
        (p, k, out),
        (p.mT, q, to_keys),
        (p.mT, d_out, to_keys),
    )

    def multiply(products: tuple) -> None:
        for _ in range(-(-n_tiles // at_once)):
            for left, right, result in products:
                torch.bmm(left, right, out=result)

    return Ready(forward=lambda: multiply(forward), step=lambda: multiply(forward + backward))


ATTENTION = (
    Contestant(
        key="ours_once",
        label="ours, each pair once",
        kind="ours",
        counts_repeats=False,
        prepare=prepare_ours,
    ),
    Contestant(
        key="ours_repeats",
        label="ours, repeats counted",
        kind="ours",
        counts_repeats=True,
        prepare=lambda case: prepare_ours(case, count_repeats=True),
    ),
    Contestant(
        key="lucidrains_once",
        label="lucidrains, each pair once",
        kind="peer",
        counts_repeats=False,
        prepare=lambda case: prepare_lucidrains(case, once=True),
        note="2 * length / chunk buckets, like the others; where not in float32, under autocast",
    ),
    Contestant(
        key="lucidrains_repeats",
        label="lucidrains, repeats counted",
        kind="peer",
        counts_repeats=True,
        prepare=prepare_lucidrains,
        note="2 * length / chunk buckets, like the others",
    ),
    Contestant(
        key="lucidrains_own_buckets",
        label="lucidrains as installed",
        kind="peer",
        counts_repeats=True,
        prepare=lambda case: prepare_lucidrains(case, own_buckets=True),
        note="length / chunk buckets, half of everybody's, which nobody can tell it otherwise",
    ),
    Contestant(
        key="hugging_face",
        label="Hugging Face",
        kind="peer",
        counts_repeats=True,
        prepare=prepare_hugging_face,
        note="projections removed; it cannot mask other buckets",
    ),
    Contestant(
        key="full",
        label="full causal attention, torch SDPA",
        kind="full",
        prepare=prepare_full,
    ),
    Contestant(
        key="flash",
        label="FlashAttention, torch SDPA in bfloat16",
        kind="full",
        prepare=prepare_flash,
    ),
    Contestant(
        key="products",
        label="the products of whole tiles alone",
        kind="bound",
        prepare=prepare_products,
        note="two forward, five backward, no hashing, sorting, gathering or softmax",
    ),
)
