"""Exercises on text: its unit, its bar, and how the next byte is drawn."""

import lzma
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reformer_core.generation import next_token_probabilities
from reformer_core.tasks import TextBytes
from reformer_core.tasks.batch import Batch, weighted_loss
from reformer_core.tasks.text import Text
from reformer_viz.lessons.exercise import Exercise, Mistake


def _bits_per_byte(
    logits: Float[Tensor, "batch length vocab"], tokens: Int[Tensor, "batch length"]
) -> float:
    return weighted_loss(logits, Batch(tokens, torch.ones(tokens.shape))) / math.log(2)


def _guesses() -> Iterator[tuple[Tensor, Tensor]]:
    for batch, length, seed in ((1, 4, 0), (3, 7, 1)):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(8, (batch, length), generator=generator)
        yield 6 * torch.rand(batch, length, 8, generator=generator), tokens


def _log_shares(logits: Tensor, tokens: Tensor, axis: int = -1) -> Tensor:
    """Return what every next token was given, in nats."""
    return logits.log_softmax(axis)[:, :-1].gather(-1, tokens[:, 1:, None])


bits_per_byte = Exercise(
    right=_bits_per_byte,
    cases=_guesses,
    mistakes=[
        Mistake(
            lambda logits, tokens: -_log_shares(logits, tokens).mean(),
            "These are nats: the natural logarithm. A bit is a choice between two.",
        ),
        Mistake(
            lambda logits, tokens: (
                -logits.log_softmax(-1).gather(-1, tokens[..., None]).mean() / math.log(2)
            ),
            "You ask how likely each byte was after it had been read. The logits at t are about "
            "the byte at t + 1.",
        ),
        Mistake(
            lambda logits, tokens: -_log_shares(logits, tokens).sum() / math.log(2),
            "That is the length of the whole text. Bits per byte are a mean.",
        ),
        Mistake(
            lambda logits, tokens: -_log_shares(logits, tokens, 1).mean() / math.log(2),
            "The shares add up to 1 along the text, not over the 256 possible bytes.",
        ),
    ],
    insight="a loss in bits is the length of the text as this model would compress it",
)
"""The mean of -log2 p(next byte)."""


def _xz_bits(training: bytes, held_out: bytes) -> float:
    return TextBytes(2, Text(training, held_out)).xz_bits_per_byte()


def _texts() -> Iterator[tuple[bytes, bytes]]:
    words = b"the cat sat on the mat and the dog sat on the log by the cat. "
    yield 20 * words, 3 * b"the dog sat by the mat and the cat sat on the dog. "
    yield bytes(range(256)) + words, b"by the log the cat and the dog sat on the mat. "


def _size(content: bytes) -> int:
    return len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


xz_bits = Exercise(
    right=_xz_bits,
    cases=_texts,
    mistakes=[
        Mistake(
            lambda training, held_out: 8 * _size(held_out) / len(held_out),
            "Here xz has not seen the training text, and our model has: let it read that first.",
        ),
        Mistake(
            lambda training, held_out: (
                (_size(training + held_out) - _size(training)) / len(held_out)
            ),
            "These are bytes per byte: eight times too good.",
        ),
        Mistake(
            lambda training, held_out: 8 * _size(training + held_out) / len(training + held_out),
            "That is both texts together. Only what the held-out text adds counts.",
        ),
        Mistake(
            lambda training, held_out: (
                8 * (_size(training + held_out) - _size(training)) / len(training + held_out)
            ),
            "The growth belongs to the held-out bytes alone: divide by their number.",
        ),
    ],
    insight="both have read the same text, and both are charged for the same bytes",
)
"""What xz needs for the held-out text once it has seen the training text, in bits per byte."""


def _sharpened(logits: Float[Tensor, "batch vocab"], temperature: float) -> Tensor:
    return next_token_probabilities(logits, temperature)


def _logits() -> Iterator[tuple[Tensor, float]]:
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.5, 1.0, 2.0):
        yield 4 * torch.rand(2, 6, generator=generator), temperature


sharpened = Exercise(
    right=_sharpened,
    cases=_logits,
    mistakes=[
        Mistake(
            lambda logits, temperature: (logits * temperature).softmax(-1),
            "The wrong way round: a low temperature must make the likeliest byte likelier still.",
        ),
        Mistake(
            lambda logits, temperature: logits.softmax(-1) / temperature,
            "Divided after the softmax, the numbers no longer add up to 1.",
        ),
        Mistake(
            lambda logits, temperature: logits.softmax(-1) ** (1 / temperature),
            "The right shape, but it does not add up to 1: normalise after the power.",
        ),
        Mistake(
            lambda logits, temperature: logits.softmax(-1),
            "The temperature is not used.",
        ),
    ],
    insight="temperature 0 would be the likeliest byte, and infinity a die of 256 sides",
)
"""The distribution at a temperature."""


def _nucleus(probabilities: Float[Tensor, "batch vocab"], top_p: float) -> Tensor:
    return next_token_probabilities(probabilities.log(), top_p=top_p)


def _distributions() -> Iterator[tuple[Tensor, float]]:
    first = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.25, 0.15, 0.55]])
    for top_p in (0.6, 0.9, 1.0):
        yield first, top_p


def _kept(keeps, *, normalised: bool = True):
    """Return a filter that keeps what `keeps(share so far, own share, top_p)` says."""

    def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
        ranked, token = probabilities.sort(dim=-1, descending=True)
        ranked = ranked * keeps(ranked.cumsum(-1), ranked, top_p)
        ranked = ranked / ranked.sum(-1, keepdim=True) if normalised else ranked
        return torch.zeros_like(probabilities).scatter(-1, token, ranked)

    return nucleus


nucleus = Exercise(
    right=_nucleus,
    cases=_distributions,
    mistakes=[
        Mistake(
            _kept(lambda so_far, own, top_p: so_far - own < 1 - top_p + 1e-6),
            "The threshold is inverted: with top_p = 0.9 this keeps a tenth of the probability. A "
            "well-known implementation did the same.",
        ),
        Mistake(
            _kept(lambda so_far, own, top_p: so_far <= top_p + 1e-6),
            "The byte that crosses the threshold is missing: what is kept must reach top_p.",
        ),
        Mistake(
            _kept(lambda so_far, own, top_p: so_far - own < top_p, normalised=False),
            "The right bytes, but what is kept must add up to 1 again.",
        ),
        Mistake(
            _kept(lambda so_far, own, top_p: own >= 1 - top_p - 1e-6),
            "That compares each byte's own share with a threshold. Top-p adds them up, from the "
            "likeliest down.",
        ),
    ],
    insight="how many bytes remain depends on how sure the model is",
)
"""The fewest likeliest bytes that together have at least `top_p`, and nothing else."""
