"""Attention with weights: modules that project, attend and project back."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from reformer_core.attention import full_attention, lsh_attention
from reformer_core.bucketing import BucketPlan, Window, check_rule, plan_chunks
from reformer_core.feed_forward import FeedForward
from reformer_core.hashing import (
    EVALUATION,
    Buckets,
    default_n_buckets,
    draw_rotations,
    hash_generator,
    hash_vectors,
    rotations_at,
)
from reformer_core.linear import Linear
from reformer_core.local import local_attention


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every sublayer is told about a batch."""

    padding: Bool[Tensor, "batch length"] | None = None
    """True where a token is padding."""
    step: int | Int[Tensor, ""] = EVALUATION
    """Which rotations to hash with: the training step, or EVALUATION for the fixed ones."""


class LSHSelfAttention(nn.Module):
    """Attend within buckets, in `n_hashes` rounds (Sec. 2): shared query-keys, values, output.

    In evaluation the rotations are fixed, from `hash_seed` and `layer` alone; in training each
    `context.step` has its own. `n_buckets=None` is 2 * max_length / chunk_length. The memo is the
    buckets, in the smallest signed integers that hold them.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_head: int,
        *,
        max_length: int,
        n_hashes: int = 4,
        n_buckets: Buckets | None = None,
        chunk_length: int = 64,
        chunks_before: int = 1,
        chunks_after: int | None = None,
        window: Window = "chunks",
        within_bucket: bool = True,
        count_repeats: bool = False,
        causal: bool = True,
        dropout: float = 0.0,
        hash_seed: int = 0,
        layer: int = 0,
    ) -> None:
        super().__init__()
        if chunks_after is None:
            chunks_after = 0 if causal else 1
        check_rule(chunk_length, causal, chunks_before, chunks_after, window)
        if n_buckets is None:
            n_buckets = default_n_buckets(max_length, chunk_length)
        self.n_heads, self.d_head, self.n_hashes = n_heads, d_head, n_hashes
        self.hash_seed, self.layer = hash_seed, layer
        self.count_repeats, self.dropout = count_repeats, dropout
        self.rule = {
            "chunk_length": chunk_length,
            "chunks_before": chunks_before,
            "chunks_after": chunks_after,
            "window": window,
            "within_bucket": within_bucket,
            "causal": causal,
            "n_buckets": n_buckets,
        }
        self.qk = Linear(d_model, n_heads * d_head, bias=False)
        self.values = Linear(d_model, n_heads * d_head, bias=False)
        self.out = Linear(n_heads * d_head, d_model, bias=False)
        self.register_buffer("evaluation_rotations", self._draw(EVALUATION), persistent=False)

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        context: Context | None = None,
        memo: Int[Tensor, "batch heads rounds length"] | None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], Int[Tensor, "batch heads rounds length"]]:
        """Return the change to every position, and the buckets that led to it."""
        context = context or Context()
        qk, values = self.project(x)
        plan = self.plan(qk, context, memo)
        dropout = self.dropout if self.training else 0.0
        attended = lsh_attention(
            qk, values, plan, count_repeats=self.count_repeats, dropout=dropout
        )
        return self.out(_merge_heads(attended)), _compact(plan)

    def project(
        self, x: Float[Tensor, "batch length d_model"]
    ) -> tuple[
        Float[Tensor, "batch heads length d_head"], Float[Tensor, "batch heads length d_head"]
    ]:
        """Return the shared query-keys and the values of every head."""
        return tuple(_split_heads(linear(x), self.n_heads) for linear in (self.qk, self.values))

    def plan(
        self,
        qk: Float[Tensor, "batch heads length d_head"],
        context: Context,
        memo: Int[Tensor, "batch heads rounds length"] | None = None,
    ) -> BucketPlan:
        """Plan who sees whom: by hashing, or by the buckets of an earlier pass."""
        if memo is None:
            buckets = hash_vectors(qk, self.rotations(context.step), self.rule["n_buckets"])
        else:
            buckets = memo.long()
        return plan_chunks(buckets, padding=context.padding, **self.rule)

    def rotations(
        self, step: int | Int[Tensor, ""]
    ) -> Float[Tensor, "heads rounds d_head half_buckets"]:
        """Return the directions to hash with at a step."""
        if isinstance(step, int) and step == EVALUATION:
            return self.evaluation_rotations
        return self._draw(step).to(self.evaluation_rotations)

    def _draw(
        self, step: int | Int[Tensor, ""]
    ) -> Float[Tensor, "heads rounds d_head half_buckets"]:
        sizes = self.n_hashes, self.n_heads, self.d_head, self.rule["n_buckets"]
        if isinstance(step, Tensor):
            return rotations_at(step, self.hash_seed, self.layer, *sizes)
        return draw_rotations(*sizes, hash_generator(self.hash_seed, self.layer, step))


class LocalSelfAttention(nn.Module):
    """Attend to nearby positions, with separate queries and keys."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_head: int,
        *,
        chunk_length: int = 64,
        window: Window = "chunks",
        causal: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_heads, self.chunk_length, self.window = n_heads, chunk_length, window
        self.causal, self.dropout = causal, dropout
        self.queries = Linear(d_model, n_heads * d_head, bias=False)
        self.keys = Linear(d_model, n_heads * d_head, bias=False)
        self.values = Linear(d_model, n_heads * d_head, bias=False)
        self.out = Linear(n_heads * d_head, d_model, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        context: Context | None = None,
        memo: None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], None]:
        """Return the change to every position; there is nothing to remember."""
        attended = local_attention(
            *(_split_heads(linear(x), self.n_heads) for linear in (self.queries, self.keys)),
            self.project_values(x),
            chunk_length=self.chunk_length,
            causal=self.causal,
            window=self.window,
            padding=context.padding if context else None,
            dropout=self.dropout if self.training else 0.0,
        )
        return self.out(_merge_heads(attended)), None

    def project_values(
        self, x: Float[Tensor, "batch length d_model"]
    ) -> Float[Tensor, "batch heads length d_head"]:
        """Return the values of every head."""
        return _split_heads(self.values(x), self.n_heads)


class FullSelfAttention(nn.Module):
    """Attend over all pairs with LSH attention's semantics: what its rounds approach."""

    def __init__(
        self, d_model: int, n_heads: int, d_head: int, *, causal: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.n_heads, self.causal, self.dropout = n_heads, causal, dropout
        self.qk = Linear(d_model, n_heads * d_head, bias=False)
        self.values = Linear(d_model, n_heads * d_head, bias=False)
        self.out = Linear(n_heads * d_head, d_model, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        context: Context | None = None,
        memo: None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], None]:
        """Return the change to every position; there is nothing to remember."""
        attended = full_attention(
            *self.project(x),
            causal=self.causal,
            padding=context.padding if context else None,
            dropout=self.dropout if self.training else 0.0,
        )
        return self.out(_merge_heads(attended)), None

    project = LSHSelfAttention.project


class AttentionSublayer(nn.Module):
    """The f of a reversible block: normalise, attend, drop."""

    def __init__(self, d_model: int, attention: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(d_model), attention
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        context: Context | None = None,
        memo: Tensor | None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], Tensor | None]:
        """Return the change to every position, and attention's memo."""
        change, memo = self.attention(self.norm(x), context, memo)
        return self.dropout(change), memo


class FeedForwardSublayer(FeedForward):
    """The g of a reversible block: feed-forward has no context and no memo."""

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        context: Context | None = None,
        memo: None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], None]:
        """Return the change to every position; there is nothing to remember."""
        return super().forward(x), None


def _split_heads(
    x: Float[Tensor, "batch length width"], n_heads: int
) -> Float[Tensor, "batch heads length d_head"]:
    return rearrange(x, "batch length (heads d_head) -> batch heads length d_head", heads=n_heads)


def _merge_heads(
    x: Float[Tensor, "batch heads length d_head"],
) -> Float[Tensor, "batch length width"]:
    return rearrange(x, "batch heads length d_head -> batch length (heads d_head)")


def _compact(plan: BucketPlan) -> Int[Tensor, "batch heads rounds length"]:
    """Return a plan's buckets in the smallest signed integers that hold them."""
    for dtype in (torch.int8, torch.int16, torch.int32):
        if plan.n_buckets - 1 <= torch.iinfo(dtype).max:
            return plan.buckets.to(dtype)
    return plan.buckets
