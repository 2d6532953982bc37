"""Lesson 01: the bytes of the scores, attention over all pairs, nearest keys, the weight found."""

import math

import torch
from torch import Tensor

from reformer_core import BucketPlan, full_attention, keys_from, plan_chunks
from reformer_viz import measure_sparsity
from reformer_viz.lessons.example import sixteen_tokens
from reformer_viz.lessons.exercise import Exercise, Mistake


def _score_bytes(batch: int, n_heads: int, length: int) -> int:
    qk = torch.zeros(batch, n_heads, length, 1)
    return (qk @ keys_from(qk).mT).nbytes


# Arguments: batch, n_heads, length.
score_bytes = Exercise(
    right=_score_bytes,
    cases=lambda: [(1, 1, 16), (1, 4, 100), (2, 8, 50)],
    mistakes=[
        Mistake(
            lambda batch, n_heads, length: 4 * batch * n_heads * length,
            "that grows with the length: how many scores does one query have, and how many "
            "queries are there?",
        ),
        Mistake(
            lambda batch, n_heads, length: batch * n_heads * length**2,
            "those are numbers, not bytes: how many bytes has a float32?",
        ),
        Mistake(
            lambda batch, n_heads, length: 32 * batch * n_heads * length**2,
            "those are bits: a byte has eight of them",
        ),
        Mistake(
            lambda batch, n_heads, length: 4 * batch * length**2,
            "those are one head's scores: every head has its own",
        ),
        Mistake(
            lambda batch, n_heads, length: 4 * n_heads * length**2,
            "those are one sequence's scores: every sequence of the batch has its own",
        ),
        Mistake(
            lambda batch, n_heads, length: 2 * batch * n_heads * length * (length - 1),
            "those are the pairs that a causal mask leaves: the product computes all scores "
            "first, and masks then",
        ),
    ],
    insight="what doubles with the batch and the heads goes up four times with the length",
)


def _two_heads() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(2, 2, 5, 4, generator=generator) * 4 - 2 for _ in range(2))


def _attend(
    qk: Tensor,
    values: Tensor,
    *,
    keys: Tensor | None = None,
    scale: float = 1.0,
    diagonal: int = -1,
    hidden: float = -math.inf,
    axis: int = -1,
) -> Tensor:
    """Attend with one thing done otherwise; the first row is whatever the softmax makes of it."""
    length = qk.shape[-2]
    seen = torch.ones(length, length, dtype=torch.bool).tril(diagonal)
    scores = scale * qk @ (keys_from(qk) if keys is None else keys).mT
    return scores.masked_fill(~seen, hidden).softmax(axis) @ values


def _with_first(attended: Tensor, values: Tensor, scale: float = 1.0) -> Tensor:
    """Let the first token attend to itself, or to nothing."""
    return torch.cat([scale * values[..., :1, :], attended[..., 1:, :]], dim=-2)


# Arguments: qk and values, "batch heads length width".
attention = Exercise(
    right=lambda qk, values: full_attention(qk, values, causal=True),
    cases=lambda: [(2 * sixteen_tokens(), sixteen_tokens(noise=1.0)), _two_heads()],
    mistakes=[
        Mistake(
            _attend,
            "the first token's row is not a number: every score of it is masked, and the softmax "
            "divides nothing by nothing",
        ),
        Mistake(
            lambda qk, values: _with_first(_attend(qk, values), values, 0.0),
            "the first token gets zeros: whoever has nobody else attends to itself",
        ),
        Mistake(
            lambda qk, values: _attend(qk, values, hidden=-1e9),
            "the first token attends to all tokens alike, later ones included: where every score "
            "is the same large negative number, the softmax sees no difference",
        ),
        Mistake(
            lambda qk, values: _attend(qk, values, diagonal=0),
            "every token attends to itself as well: its own key points exactly its way, and takes "
            "the largest weight of all",
        ),
        Mistake(
            lambda qk, values: _with_first(_attend(qk, values, keys=qk), values),
            "the keys are as long as the queries: here a key is a direction only",
        ),
        Mistake(
            lambda qk, values: _with_first(_attend(qk, values, scale=qk.shape[-1] ** -0.5), values),
            "the scores are divided by the square root of d_head as well: keys of length one "
            "have done that work",
        ),
        Mistake(
            lambda qk, values: full_attention(qk, values, causal=False),
            "tokens look at later ones",
        ),
        Mistake(
            lambda qk, values: _attend(qk, values, axis=-2),
            "each key's weights sum to one, over the queries: the softmax belongs to a query's "
            "row, over the keys",
        ),
    ],
    insight="this is what every fast version in this course has to agree with",
)


def _top(likeness: Tensor, n: int, *, diagonal: int = -1, axis: int = -1) -> Tensor:
    """Mark the n keys of the largest likeness among those at and below a diagonal."""
    length = likeness.shape[-1]
    seen = torch.ones(length, length, dtype=torch.bool).tril(diagonal)
    top = likeness.masked_fill(~seen, -math.inf).topk(min(n, length), axis).indices
    return torch.zeros_like(likeness, dtype=torch.bool).scatter(axis, top, True) & seen


def _weights(qk: Tensor) -> Tensor:
    """Return full attention's weights: where every token's value is its place, they come out."""
    places = torch.eye(qk.shape[-2]).expand(*qk.shape[:2], -1, -1)
    return full_attention(qk, places, causal=True)


def _cosines(qk: Tensor) -> Tensor:
    return keys_from(qk) @ keys_from(qk).mT


def _uneven() -> Tensor:
    """Stretch the sixteen tokens, so that the longest are not the nearest."""
    generator = torch.Generator().manual_seed(2)
    return sixteen_tokens() * (0.3 + 3 * torch.rand(16, 1, generator=generator))


# Arguments: qk "batch heads length d_head", and a number of keys.
nearest = Exercise(
    right=lambda qk, n: _top(_weights(qk), n),
    cases=lambda: [(sixteen_tokens(), 1), (_uneven(), 3)],
    mistakes=[
        Mistake(
            lambda qk, n: _top(qk @ qk.mT, n),
            "those keys have the largest product q · k, to which their length counts: the angle "
            "does not know it",
        ),
        Mistake(
            lambda qk, n: _top(_cosines(qk), n, diagonal=0),
            "each token's nearest is itself: it is not among its own keys",
        ),
        Mistake(
            lambda qk, n: _top(_cosines(qk), n, diagonal=qk.shape[-2]),
            "there are later tokens among them",
        ),
        Mistake(
            lambda qk, n: _top(-_cosines(qk), n),
            "those are the keys furthest away: a small angle has a large cosine",
        ),
        Mistake(
            lambda qk, n: _top(_cosines(qk), n, axis=-2),
            "those are the nearest queries of each key: go along a query's row",
        ),
        Mistake(
            lambda qk, n: torch.ones_like(_cosines(qk), dtype=torch.bool).tril(-1).triu(-n),
            "those are the last tokens before each: that is a local window, which looks at no "
            "vector at all",
        ),
    ],
    insight="and it took all pairs to find them: a hash must do it without",
)


def _found(qk: Tensor, seen: Tensor) -> Tensor:
    """Return the share of its weight that each query finds."""
    return (_weights(qk) * seen).sum(-1)[0, 0]


def _plan(n_rounds: int, chunk_length: int) -> BucketPlan:
    generator = torch.Generator().manual_seed(3)
    buckets = torch.randint(4, (1, 1, n_rounds, 16), generator=generator)
    return plan_chunks(buckets, chunk_length=chunk_length, causal=True, n_buckets=4)


# Arguments: qk "1 1 length d_head", and a causal plan.
mass_found = Exercise(
    right=lambda qk, plan: measure_sparsity(plan, qk).mass_found,
    cases=lambda: [(4 * sixteen_tokens(), _plan(1, 16)), (4 * sixteen_tokens(), _plan(3, 4))],
    mistakes=[
        Mistake(
            lambda qk, plan: measure_sparsity(plan).visible_fraction,
            "that is the share of the pairs: a pair counts as much as its weight",
        ),
        Mistake(
            lambda qk, plan: _found(qk, plan.visible().any(2)).mean(),
            "the first token is in the average: it has nobody to find, and is left out",
        ),
        Mistake(
            lambda qk, plan: _found(qk, plan.visible().any(2)).sum(),
            "that is the sum over the queries, more than one can be a share of: take the average",
        ),
        Mistake(
            lambda qk, plan: _found(qk, plan.visible()[:, :, 0])[1:].mean(),
            "those are the pairs of the first round: what any round sees is seen",
        ),
        Mistake(
            lambda qk, plan: _found(qk, plan.times_seen())[1:].mean(),
            "pairs that two rounds see are counted twice: a pair is seen or it is not",
        ),
    ],
    insight="this one number says what a plan is worth, and lesson 04 draws it against its cost",
)
