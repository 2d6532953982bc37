"""Exercises on copying: where the answer stands, what counts, who was seen, what a miss costs."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reformer_core import BucketPlan, plan_chunks
from reformer_core.tasks import Duplicate
from reformer_core.tasks.batch import Batch
from reformer_viz.lessons.exercise import Exercise, Mistake


def _needed(length: int) -> Int[Tensor, " answers"]:
    half = length // 2
    return torch.arange(half, length - 1) - (half - 1)


needed = Exercise(
    right=_needed,
    cases=lambda: [(8,), (16,), (256,)],
    mistakes=[
        Mistake(
            lambda length: torch.arange(length // 2, length - 1) - length // 2,
            "That is where the same symbol stood before. The answer is what came after it.",
        ),
        Mistake(
            lambda length: torch.arange(length // 2, length - 1) - length // 2 + 2,
            "That is one too far: you went back from the place of the answer, not from the place "
            "that gives it.",
        ),
        Mistake(
            lambda length: torch.arange(length // 2, length) - length // 2 + 1,
            "The last position gives no answer that counts: nothing follows it.",
        ),
        Mistake(
            lambda length: torch.arange(length // 2 + 1, length),
            "Those are the answers themselves, in the second half: nobody may look there.",
        ),
    ],
    insight="each position of the second half needs one of the first, and no two need the same",
)
"""Where the right answer stands, for every position of the second half but the last."""


def _accuracy(
    logits: Float[Tensor, "batch length vocab"], tokens: Int[Tensor, "batch length"]
) -> float:
    length, vocab_size = logits.shape[1:]
    weights = torch.zeros(tokens.shape)
    weights[:, length // 2 + 1 :] = 1
    return Duplicate(vocab_size, length).measure(logits, Batch(tokens, weights))


def _answers() -> Iterator[tuple[Tensor, Tensor]]:
    """Make guesses that are right more often in the second half."""
    for length, vocab_size, seed in ((8, 5, 0), (16, 9, 1)):
        generator = torch.Generator().manual_seed(seed)
        tokens = Duplicate(vocab_size, length).batch(3, generator).tokens
        logits = torch.rand(3, length, vocab_size, generator=generator)
        knows = torch.rand(3, length - 1, generator=generator) < torch.linspace(0.1, 1, length - 1)
        logits[:, :-1].scatter_add_(2, tokens[:, 1:, None], 2.0 * knows[..., None])
        yield logits, tokens


def _share_from(start: int, shift: int = 1):
    """Return an accuracy that begins so many symbols after the half, or does not shift."""

    def accuracy(logits: Tensor, tokens: Tensor) -> float:
        first = tokens.shape[1] // 2 + start
        guesses = logits[:, first - shift : tokens.shape[1] - shift].argmax(-1)
        return float((guesses == tokens[:, first:]).float().mean())

    return accuracy


accuracy = Exercise(
    right=_accuracy,
    cases=_answers,
    mistakes=[
        Mistake(
            _share_from(1, shift=0),
            "You compare each guess with the symbol that the model has just read. The logits at t "
            "are about the symbol at t + 1.",
        ),
        Mistake(
            _share_from(0),
            "The separator is among the answers: it always stands at the same place, and knowing "
            "that is no copying.",
        ),
        Mistake(
            lambda logits, tokens: float(
                (logits[:, :-1].argmax(-1) == tokens[:, 1:]).float().mean()
            ),
            "The first half is counted as well: it is random, and nobody can guess it.",
        ),
    ],
    insight="only what can be known is counted, so that 100 % means what it says",
)
"""The share of the second w that is predicted rightly."""


def _seen(
    plan: BucketPlan, queries: Int[Tensor, " pairs"], keys: Int[Tensor, " pairs"]
) -> Bool[Tensor, "batch pairs"]:
    return plan.visible()[..., queries, keys].any(dim=(1, 2))


def _plans() -> Iterator[tuple[BucketPlan, Tensor, Tensor]]:
    """Plan random buckets of two sequences, and ask for every needed pair."""
    for length, rounds, seed in ((16, 2, 0), (32, 3, 1)):
        generator = torch.Generator().manual_seed(seed)
        buckets = torch.randint(6, (2, 3, rounds, length), generator=generator)
        keys = _needed(length)
        yield plan_chunks(buckets, chunk_length=4, causal=True), keys + length // 2 - 1, keys


seen = Exercise(
    right=_seen,
    cases=_plans,
    mistakes=[
        Mistake(
            lambda plan, queries, keys: plan.visible()[:, :, 0, queries, keys].any(1),
            "That is what the first round shows. A pair counts as seen if any round shows it.",
        ),
        Mistake(
            lambda plan, queries, keys: plan.visible()[..., queries, keys].any(2).all(1),
            "That asks every head to see the key. One head is enough to read an answer.",
        ),
        Mistake(
            lambda plan, queries, keys: plan.visible()[..., queries, keys].all(2).any(1),
            "That asks every round to see the key. Attention is over the union of the rounds.",
        ),
        Mistake(
            lambda plan, queries, keys: plan.visible()[..., keys, queries].any((1, 2)),
            "Query and key are the wrong way round: visible()[..., i, j] says whether i sees j.",
        ),
    ],
    insight="a miss is a property of the plan: it can be counted before a single weight is known",
)
"""Whether any head in any round shows each query its key."""


def _expected(p: float, n_rounds: int, vocab_size: int) -> float:
    found = 1 - (1 - p) ** n_rounds
    return found + (1 - found) / (vocab_size - 1)


expected = Exercise(
    right=_expected,
    cases=lambda: [(0.5, 1, 5), (0.5, 2, 5), (0.3, 4, 32), (1.0, 8, 128)],
    mistakes=[
        Mistake(
            lambda p, n_rounds, vocab_size: 1 - (1 - p) ** n_rounds,
            "A miss is not always a wrong answer: who has to guess is right now and then.",
        ),
        Mistake(
            lambda p, n_rounds, vocab_size: 1 - (1 - 1 / vocab_size) * (1 - p) ** n_rounds,
            "The guess is among too many symbols: the separator is never the answer.",
        ),
        Mistake(
            lambda p, n_rounds, vocab_size: (
                min(1.0, n_rounds * p) + max(0.0, 1 - n_rounds * p) / (vocab_size - 1)
            ),
            "Adding up the rounds counts a key twice that two of them see.",
        ),
        Mistake(
            lambda p, n_rounds, vocab_size: p**n_rounds + (1 - p**n_rounds) / (vocab_size - 1),
            "That is the case where every round sees the key; one of them is enough.",
        ),
    ],
    insight="what misses cost shrinks by the same factor with every further round",
)
"""The accuracy of who answers rightly where the key was seen, and guesses elsewhere."""
