"""The Reformer as a language model: embed, reversible layers, one head on both streams."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reformer_core.bucketing import BucketPlan, check_padding
from reformer_core.config import ReformerConfig
from reformer_core.feed_forward import in_pieces
from reformer_core.hashing import EVALUATION
from reformer_core.layers import (
    AttentionSublayer,
    Context,
    FeedForwardSublayer,
    FullSelfAttention,
    LocalSelfAttention,
    LSHSelfAttention,
)
from reformer_core.linear import Linear
from reformer_core.positions import AxialPositions, LearnedPositions
from reformer_core.reversible import ReversibleBlock, ReversibleStack


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerTrace:
    """What one layer's attention saw; `qk` is None where it is local, `plan` unless it is LSH."""

    qk: Float[Tensor, "batch heads length d_head"] | None
    values: Float[Tensor, "batch heads length d_head"]
    plan: BucketPlan | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What one pass of a model saw, layer by layer."""

    logits: Float[Tensor, "batch length vocab"]
    layers: tuple[LayerTrace, ...]


class Embedding(nn.Module):
    """Token vectors plus position vectors."""

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        if config.axial_shape is None:
            self.positions = LearnedPositions(config.max_length, config.d_model)
        else:
            self.positions = AxialPositions(config.axial_shape, config.axial_dims)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length d_model"]:
        """Return the vector of every token in its place."""
        return self.dropout(self.tokens(tokens)) + self.positions(tokens.shape[1])


class ReformerLM(nn.Module):
    """A causal Reformer language model (or, with causal=False, one that looks both ways).

    `logits[:, t]` predicts `tokens[:, t + 1]`; nothing shifts inside. Both streams start as the
    embedding; the head reads both, side by side. Any length up to `config.max_length`.
    """

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embedding(config)
        self.layers = ReversibleStack(
            (_block(config, layer) for layer in range(config.n_layers)),
            reversible=config.reversible,
            n_kept=config.kept_layers,
        )
        self.norm = nn.LayerNorm(2 * config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.head = Linear(2 * config.d_model, config.vocab_size)
        self.register_buffer("hash_step", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length vocab"]:
        """Return the logits of every position's next token."""
        return self._logits(self._hidden(tokens, padding))

    def loss(
        self,
        tokens: Int[Tensor, "batch length"],
        weights: Float[Tensor, "batch length"] | None = None,
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy, in nats, of predicting each token from those before it.

        `weights[:, t]` weighs the prediction *of* tokens[:, t]; nothing predicts the first token,
        and what is padding, or would be predicted from padding, weighs nothing. Head and loss run
        in `config.loss_chunks` pieces along the length, forward and backward: logits of the whole
        sequence never exist.
        """
        _check_tokens(tokens)
        if tokens.shape[1] < 2:
            raise ValueError(
                f"a loss needs at least 2 tokens, got {tokens.shape[1]}: nothing predicts the first"
            )
        if weights is not None and weights.shape != tokens.shape:
            raise ValueError(
                f"weights must have the tokens' shape {tuple(tokens.shape)}, got "
                f"{tuple(weights.shape)}: one weight for the prediction of every token"
            )
        hidden = self._hidden(tokens, padding)[:, :-1]
        weights = hidden.new_ones(tokens.shape) if weights is None else weights.to(hidden)
        targets, weights = tokens[:, 1:].long(), weights[:, 1:]
        if padding is not None:
            weights = weights.masked_fill(padding[:, 1:] | padding[:, :-1], 0)
        total = weights.sum()
        if not torch.compiler.is_compiling() and not total > 0:
            raise ValueError(
                f"weights must leave something to predict, got a sum of {float(total)} over "
                f"tokens[:, 1:]: nothing predicts the first token, and padding does not count"
            )
        n_chunks = self.config.loss_chunks
        pieces = zip(
            *(part.chunk(n_chunks, dim=1) for part in (hidden, targets, weights)), strict=True
        )
        if n_chunks == 1 or not torch.is_grad_enabled():
            losses = [self._piece_of_loss(*piece) for piece in pieces]
        else:
            losses = [
                checkpoint(self._piece_of_loss, *piece, use_reentrant=False) for piece in pieces
            ]
        return torch.stack(losses).sum() / total

    @torch.no_grad()
    def trace(
        self,
        tokens: Int[Tensor, "batch length"],
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Trace:
        """Run the model once and keep what every layer's attention saw.

        Train or eval as the model stands, with the rotations that the next pass would use. Neither
        their step nor the random state moves on: looking changes nothing. The tokens are taken to
        where the model is: `train` may have left it on a GPU.
        """
        device = self.head.weight.device
        tokens, padding = tokens.to(device), None if padding is None else padding.to(device)
        with torch.random.fork_rng(_cuda_of(tokens), enabled=self.training):
            *layers, hidden = self._layer_by_layer(tokens, self._context(tokens, padding))
            return Trace(logits=self._logits(hidden), layers=tuple(layers))

    def trace_layers(
        self,
        tokens: Int[Tensor, "batch length"],
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Iterator[LayerTrace]:
        """Yield the layers of `trace`, and run the model no further than to the one that is asked.

        For a model that evaluates: what training drew in between would come from the caller's
        random state.
        """
        if self.training:
            raise ValueError("trace_layers needs a model that evaluates: call eval(), or use trace")
        context = self._context(tokens, padding)
        return islice(self._layer_by_layer(tokens, context), len(self.layers))

    def _layer_by_layer(
        self, tokens: Int[Tensor, "batch length"], context: Context
    ) -> Iterator[LayerTrace | Tensor]:
        """Yield what every layer is about to see, and after the last one both streams.

        Gradients are off inside, and as the caller has them where he is given something.
        """
        with torch.no_grad():
            x1 = x2 = self.embed(tokens)
        for block in self.layers:
            with torch.no_grad():
                layer = _look(block.f, x2, context)
            yield layer
            with torch.no_grad():
                change, _ = block.f(x2, context, None if layer.plan is None else layer.plan.buckets)
                x1 = x1 + change
                change, _ = block.g(x1, context)
                x2 = x2 + change
        yield torch.cat([x1, x2], -1)

    def _hidden(
        self, tokens: Int[Tensor, "batch length"], padding: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length both_streams"]:
        """Return both streams after the last layer, side by side."""
        context = self._context(tokens, padding)
        if self.training:
            self.hash_step += 1
        x = self.embed(tokens)
        y1, y2 = self.layers(x, x, context)
        hidden = torch.cat([y1, y2], -1)
        if not torch.compiler.is_compiling() and not _is_finite(hidden):
            self._blame(x, context)
        return hidden

    def _logits(
        self, hidden: Float[Tensor, "batch length both_streams"]
    ) -> Float[Tensor, "batch length vocab"]:
        """Return the logits of every position."""
        return in_pieces(self._piece_of_logits, hidden, self.config.loss_chunks)

    def _piece_of_logits(
        self, hidden: Float[Tensor, "batch piece both_streams"]
    ) -> Float[Tensor, "batch piece vocab"]:
        return self.head(self.dropout(self.norm(hidden)))

    def _piece_of_loss(
        self,
        hidden: Float[Tensor, "batch piece both_streams"],
        targets: Int[Tensor, "batch piece"],
        weights: Float[Tensor, "batch piece"],
    ) -> Float[Tensor, ""]:
        logits = self._piece_of_logits(hidden)
        nats = nn.functional.cross_entropy(logits.mT, targets, reduction="none")
        return (nats * weights).sum()

    def _context(
        self, tokens: Int[Tensor, "batch length"], padding: Bool[Tensor, "batch length"] | None
    ) -> Context:
        """Check a batch, and say what every layer is told about it."""
        _check_batch(tokens, padding, self.config)
        if not self.training:
            step = EVALUATION
        elif torch.compiler.is_compiling():  # a graph cannot read the number that it holds
            step = self.hash_step.clone()
        else:
            step = int(self.hash_step)
        return Context(padding=padding, step=step)

    @torch.no_grad()
    def _blame(self, x: Float[Tensor, "batch length d_model"], context: Context) -> None:
        """Find the layer whose activations stopped being finite, and say so."""
        _check_finite(x, "the embedding")
        x1 = x2 = x
        for layer, block in enumerate(self.layers):
            kind = self.config.attention_of(layer)
            y1, y2 = block(x1, x2, context)
            _check_finite(y1, f"layer {layer}'s {kind} attention")
            _check_finite(y2, f"layer {layer}'s feed-forward")
            x1, x2 = y1, y2
        raise ValueError("activations must be finite, got NaN or infinity that did not come again")


def _block(config: ReformerConfig, layer: int) -> ReversibleBlock:
    """Build one layer."""
    attention = AttentionSublayer(config.d_model, _attention(config, layer), config.dropout)
    feed_forward = FeedForwardSublayer(
        config.d_model,
        4 * config.d_model if config.d_ff is None else config.d_ff,
        config.activation,
        config.ff_chunks,
        config.dropout,
    )
    return ReversibleBlock(attention, feed_forward)


def _attention(config: ReformerConfig, layer: int) -> nn.Module:
    """Build the attention that the pattern gives a layer."""
    sizes = config.d_model, config.n_heads, config.resolved_d_head()
    both = {"causal": config.causal, "dropout": config.attention_dropout}
    kind = config.attention_of(layer)
    if kind == "full":
        return FullSelfAttention(*sizes, **both)
    if kind == "local":
        chunk_length = config.local_chunk_length or config.chunk_length
        return LocalSelfAttention(*sizes, chunk_length=chunk_length, window=config.window, **both)
    return LSHSelfAttention(
        *sizes,
        max_length=config.max_length,
        n_hashes=config.n_hashes,
        n_buckets=config.n_buckets,
        chunk_length=config.chunk_length,
        chunks_before=config.chunks_before,
        chunks_after=config.resolved_chunks_after(),
        window=config.window,
        within_bucket=config.within_bucket,
        count_repeats=config.count_repeats,
        hash_seed=config.hash_seed,
        layer=layer,
        **both,
    )


def _look(
    sublayer: AttentionSublayer, x: Float[Tensor, "batch length d_model"], context: Context
) -> LayerTrace:
    """Return what a layer's attention would see."""
    attention, x = sublayer.attention, sublayer.norm(x)
    if isinstance(attention, LocalSelfAttention):
        return LayerTrace(qk=None, values=attention.project_values(x), plan=None)
    qk, values = attention.project(x)
    plan = attention.plan(qk, context) if isinstance(attention, LSHSelfAttention) else None
    return LayerTrace(qk=qk, values=values, plan=plan)


def _check_batch(
    tokens: Int[Tensor, "batch length"],
    padding: Bool[Tensor, "batch length"] | None,
    config: ReformerConfig,
) -> None:
    """Refuse tokens that the model cannot read, and say why."""
    _check_tokens(tokens)
    batch, length = tokens.shape
    if batch == 0 or not 0 < length <= config.max_length:
        raise ValueError(
            f"tokens must be (batch, length) with 1 to max_length = {config.max_length} tokens in "
            f"at least one row, got {tuple(tokens.shape)}: cut the input, or build with a larger "
            f"max_length"
        )
    if padding is not None and padding.shape != tokens.shape:
        raise ValueError(
            f"padding must have the tokens' shape {tuple(tokens.shape)}, got {tuple(padding.shape)}"
        )
    if padding is not None:
        check_padding(padding, batch, length, tokens.device)
    if torch.compiler.is_compiling():
        return
    low, high = (int(edge) for edge in tokens.aminmax())
    if low < 0 or high >= config.vocab_size:
        raise ValueError(
            f"token ids must be 0 to vocab_size - 1 = {config.vocab_size - 1}, got "
            f"{low if low < 0 else high}: encode with the model's own vocabulary"
        )
    if padding is not None and padding.all(-1).any():
        rows = padding.all(-1).nonzero().flatten().tolist()
        raise ValueError(
            f"every row needs a token that is not padding, got only padding in rows {rows}: drop "
            f"them, or mark True only where a token is padding"
        )


def _check_tokens(tokens: Tensor) -> None:
    """Refuse what is no batch of token ids."""
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise ValueError(
            f"tokens must be integers of shape (batch, length), got {tokens.dtype} of shape "
            f"{tuple(tokens.shape)}: for one sequence of ids say ids[None]"
        )


def _cuda_of(tokens: Tensor) -> list[torch.device]:
    """Return the devices besides the CPU that a pass over these tokens draws on."""
    return [tokens.device] if tokens.is_cuda else []


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while; leave every module's mode as it was found."""
    found = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in found.items():
            module.training = training


def _check_finite(x: Tensor, where: str) -> None:
    if not _is_finite(x):
        raise ValueError(
            f"activations must be finite, got NaN or infinity in {where}: look at its weights and "
            f"gradients; a lower learning rate or gradient clipping avoids most of these"
        )


def _is_finite(x: Tensor) -> bool:
    """Say whether all numbers are. Their sum mostly knows, and is made in one pass."""
    return bool(x.sum().isfinite() or x.isfinite().all())
