"""One model, four ways to remember: the same weights and function, other bytes and other times."""

import copy
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reformer_core.config import ReformerConfig
from reformer_core.models import ReformerLM
from reformer_core.reversible import ReversibleStack

Kind = Literal["standard", "checkpointed", "reversible", "chunked"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LABELS: dict[Kind, str] = {
    "standard": "standard",
    "checkpointed": "checkpointed",
    "reversible": "reversible",
    "chunked": "reversible, chunked",
}
"""How the kinds are called in pictures."""

DEFAULT_PIECES = 8
"""Into how many pieces the chunked kind cuts feed-forward and loss where the config does not."""


class CheckpointedStack(ReversibleStack):
    """The ordinary way to save memory: keep every layer's input, and run the layer again from it.

    `torch.utils.checkpoint` around every block. It draws the same random numbers and hashes with
    the same rotations again, so function and gradients are the standard stack's. The generator
    states that it keeps for that, a few kilobytes a layer, come from no operation: nobody who
    watches operations counts them.
    """

    def forward(self, x1: Tensor, x2: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        """Run all blocks on the pair of streams."""
        for block in self:
            x1, x2 = checkpoint(block, x1, x2, context, use_reentrant=False)
        return x1, x2


def model_of_kind(model: ReformerLM, kind: Kind) -> ReformerLM:
    """Return a copy of a model, in training mode, that remembers in one of the four ways.

    "standard" keeps what autograd keeps, "checkpointed" every layer's input, "reversible" the last
    layer's output; these three compute feed-forward and loss in one piece. "chunked" is reversible
    with both in pieces: as many as the model's config says, or `DEFAULT_PIECES` where it says 1.
    """
    model = copy.deepcopy(model).train()
    model.config = config_of_kind(model.config, kind)
    if kind == "checkpointed":
        model.layers = CheckpointedStack(model.layers, reversible=False)
    model.layers.reversible, model.layers.n_kept = model.config.reversible, 0
    for block in model.layers:
        block.g.n_chunks = model.config.ff_chunks
    return model


def config_of_kind(config: ReformerConfig, kind: Kind) -> ReformerConfig:
    """Return what a config becomes in one of the four ways."""
    pieces = {
        name: (getattr(config, name) if getattr(config, name) > 1 else DEFAULT_PIECES)
        if kind == "chunked"
        else 1
        for name in ("ff_chunks", "loss_chunks")
    }
    is_reversible = kind in ("reversible", "chunked")
    return replace(config, reversible=is_reversible, kept_layers=0, **pieces)


def check_kinds(kinds: tuple[str, ...]) -> None:
    """Refuse what is none of the four ways, or none at all."""
    if not kinds or not set(kinds) <= set(KINDS) or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds must be one or more of {KINDS}, each once, got {tuple(kinds)}")


def check_batch(batch_size: int, length: int) -> None:
    """Refuse sizes that no batch has."""
    if batch_size < 1 or length < 1:
        raise ValueError(
            f"a step needs a sequence of at least 2 tokens, got {batch_size} of {length:,}"
        )


def new_model(config: ReformerConfig) -> ReformerLM:
    """Build the model that a config describes, the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ReformerLM(config)


def new_tokens(config: ReformerConfig, batch_size: int, length: int) -> Tensor:
    """Draw tokens to step on, the same every time."""
    check_batch(batch_size, length)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.vocab_size, (batch_size, length), generator=generator)
