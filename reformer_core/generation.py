"""Sampling: a token at a time, from the model's own next-token distribution."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reformer_core.models import ReformerLM, evaluating


@torch.no_grad()
def sample(
    model: ReformerLM,
    prompt: Int[Tensor, "batch length"],
    n_tokens: int,
    *,
    temperature: float | int = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch longer"]:
    """Continue every row of a prompt by `n_tokens` and return prompt and continuation.

    Logits are divided by `temperature`; 0 takes the most likely token. `top_k` keeps that many of
    the most likely tokens, `top_p` the fewest that together have that probability. Draws come from
    `generator`, or from the global one. Each token costs a full forward: what is sampled is exactly
    the model. It samples in evaluation mode and leaves the model's mode as it was. Every row is
    read where the model is, and returned where the prompt is.

    Raises ValueError when the result would be longer than `max_length`.
    """
    _check(model, prompt, n_tokens, temperature, top_k, top_p)
    tokens = prompt
    with evaluating(model):
        for _ in range(n_tokens):
            logits = model(tokens.to(model.head.weight.device))[:, -1].float()
            chosen = _choose(logits, temperature, top_k, top_p, generator)
            tokens = torch.cat([tokens, chosen.to(tokens)], dim=1)
    return tokens


def next_token_probabilities(
    logits: Float[Tensor, "batch vocab"],
    temperature: float | int = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "batch vocab"]:
    """Turn logits into the distribution that is drawn from: temperature, then top-k, then top-p."""
    likely = torch.softmax(logits / temperature, dim=-1)
    ranked, token = torch.sort(likely, dim=-1, descending=True, stable=True)
    if top_k is not None:
        ranked[:, top_k:] = 0
        ranked /= ranked.sum(-1, keepdim=True)
    if top_p is not None and top_p < 1:
        before = ranked.cumsum(-1) - ranked
        ranked[before >= top_p] = 0
        ranked /= ranked.sum(-1, keepdim=True)
    return torch.zeros_like(ranked).scatter_(-1, token, ranked)


def _choose(
    logits: Float[Tensor, "batch vocab"],
    temperature: float | int,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Int[Tensor, "batch 1"]:
    """Draw one token per row."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    probabilities = next_token_probabilities(logits, temperature, top_k, top_p)
    if generator is not None:
        probabilities = probabilities.to(generator.device)
    return torch.multinomial(probabilities, 1, generator=generator)


def _check(
    model: ReformerLM,
    prompt: Int[Tensor, "batch length"],
    n_tokens: int,
    temperature: float | int,
    top_k: int | None,
    top_p: float | None,
) -> None:
    """Refuse what cannot be sampled."""
    longest, length = model.config.max_length, prompt.shape[1]
    if not model.config.causal:
        raise ValueError("sampling needs a causal model, got causal=False: it reads the future")
    if length == 0:
        raise ValueError("prompt must have at least one token, got none: start with any token")
    if n_tokens < 0 or length + n_tokens > longest:
        raise ValueError(
            f"prompt and n_tokens must fit max_length = {longest}, got {length} + {n_tokens}: ask "
            f"for at most {longest - length}, or cut the prompt"
        )
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be at least 0, got {temperature}: 0 is greedy")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}: it is a probability")
