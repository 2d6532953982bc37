"""The same weights with another attention: more rounds, fewer, or all pairs."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from reformer_core.config import AttentionKind
from reformer_core.hashing import EVALUATION, draw_rotations, hash_generator
from reformer_core.layers import LSHSelfAttention
from reformer_core.models import ReformerLM


def with_config(model: ReformerLM, **changes) -> ReformerLM:
    """Build a model of another config with copies of the same weights, in evaluation mode."""
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    with torch.device("meta"):  # nothing is drawn, and nothing of the global random state moves
        copied = ReformerLM(replace(model.config, **changes))
    copied.load_state_dict(weights, assign=True)
    return copied.to(model.head.weight.device).eval()


def with_attention(
    model: ReformerLM, n_hashes: int | None, pattern: tuple[AttentionKind, ...] | None = None
) -> ReformerLM:
    """Copy a model whose LSH layers hash in so many rounds, or attend to all pairs (None).

    Where there is no LSH layer the full ones hash: they have the same weights. Rounds are the first
    of the model's own, and beyond those more are drawn. `pattern` says which layers are LSH layers,
    full or local, in place of the model's config.
    """
    pattern = model.config.attention if pattern is None else pattern
    if n_hashes is None:
        return with_config(model, attention=_replaced(pattern, "lsh", "full"))
    if "lsh" not in pattern:
        pattern = _replaced(pattern, "full", "lsh")
    copied = with_config(model, attention=pattern)
    for attention in hashing_layers(copied):
        own = attention.evaluation_rotations
        sizes = attention.n_heads, attention.d_head, attention.rule["n_buckets"]
        for round in range(own.shape[1], n_hashes):
            # Steps below EVALUATION belong to nobody; each round has its own, whatever follows it.
            step = EVALUATION - 1 - round
            generator = hash_generator(attention.hash_seed, attention.layer, step)
            own = torch.cat([own, draw_rotations(1, *sizes, generator).to(own)], dim=1)
        attention.evaluation_rotations = own[:, :n_hashes]
    return copied


def hashing_layers(model: ReformerLM) -> Iterator[LSHSelfAttention]:
    """Go through the attentions that hash."""
    for block in model.layers:
        if isinstance(block.f.attention, LSHSelfAttention):
            yield block.f.attention


def _replaced(pattern: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    return tuple(new if kind == old else kind for kind in pattern)
