"""Lesson 06's exercises: keys that are queries of unit length, and what follows from that."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from reformer_core.attention import full_attention, keys_from
from reformer_viz.lessons.exercise import Exercise, Mistake


def _vectors(*shape: int, seed: int) -> Tensor:
    return 4 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 2


# ------------------------------------------------------------------------------ 1. keys


def _queries() -> list[tuple[Tensor]]:
    some_zero = _vectors(1, 2, 4, 3, seed=1)
    some_zero[0, 1, 2] = 0
    return [(_vectors(1, 1, 5, 4, seed=0),), (some_zero,)]


unit_keys = Exercise(
    right=keys_from,
    cases=_queries,
    mistakes=[
        Mistake(
            lambda qk: qk / qk.shape[-1] ** 0.5,
            "that is the usual scale by the head's size: the keys still have many lengths",
        ),
        Mistake(
            lambda qk: qk / qk.norm(dim=-2, keepdim=True),
            "the length was taken over the tokens; each token's own vector has to have length 1",
        ),
        Mistake(
            lambda qk: qk / qk.norm(),
            "one length was taken for all vectors together; each has its own",
        ),
        Mistake(
            lambda qk: qk / qk.square().sum(-1, keepdim=True),
            "divided by the squared length: a long query's key comes out short",
        ),
        Mistake(
            lambda qk: qk / qk.norm(dim=-1, keepdim=True),
            "right for every vector but one of zeros, where 0 / 0 is not a number: that key should "
            "be zero",
        ),
    ],
    insight="every key has length 1, and points where its query points",
)
"""Make keys of unit length from shared query-keys; a zero vector has a zero key."""


# ------------------------------------------------------------------- 2. the other direction

other_score = Exercise(
    right=lambda score, norm_i, norm_j: score / norm_i * norm_j,
    cases=lambda: [(1.5, 1.0, 2.0), (-0.6, 3.0, 0.5), (2.0, 4.0, 4.0)],
    mistakes=[
        Mistake(
            lambda score, norm_i, norm_j: score,
            "the cosine is the same both ways; the score is the cosine times the length of the one "
            "who asks",
        ),
        Mistake(
            lambda score, norm_i, norm_j: score * norm_i / norm_j,
            "the ratio is upside down: take away the length of i, which asked first, and put j's "
            "in its place",
        ),
        Mistake(
            lambda score, norm_i, norm_j: score / (norm_i * norm_j),
            "keys have length 1 already: only one of the two lengths is in a score",
        ),
    ],
    insight="both ways the same cosine: only the asker's length differs",
)
"""Give the score of key i for query j, from that of key j for query i and both lengths."""


# --------------------------------------------------------------------------- 3. attention


def _attend(
    qk: Tensor,
    values: Tensor,
    keys: Tensor | None = None,
    scale: float = 1.0,
    itself: bool = False,
) -> Tensor:
    """Attend to earlier tokens, with the mistakes that one may make."""
    keys = normalize(qk, dim=-1) if keys is None else keys
    visible = torch.ones(len(qk), len(qk), dtype=torch.bool).tril(0 if itself else -1)
    visible[0, 0] = True
    return (scale * qk @ keys.T).masked_fill(~visible, -torch.inf).softmax(-1) @ values


def _full(qk: Tensor, values: Tensor) -> Tensor:
    return full_attention(qk[None, None], values[None, None], causal=True)[0, 0]


def _unseen(qk: Tensor, values: Tensor) -> Tensor:
    hidden = torch.ones(len(qk), len(qk), dtype=torch.bool).triu()
    return (qk @ normalize(qk, dim=-1).T).masked_fill(hidden, -torch.inf).softmax(-1) @ values


attend = Exercise(
    right=_full,
    cases=lambda: [
        (_vectors(5, 4, seed=2), _vectors(5, 3, seed=3)),
        (_vectors(9, 4, seed=4), _vectors(9, 4, seed=5)),
    ],
    mistakes=[
        Mistake(
            lambda qk, values: _attend(qk, values, scale=qk.shape[-1] ** -0.5),
            "divided by the root of the head's size once more: unit keys are the whole scale, and "
            "this makes attention much flatter",
        ),
        Mistake(
            lambda qk, values: _attend(qk, values, keys=qk),
            "the keys are the queries at their full length: a long vector draws everybody's "
            "attention",
        ),
        Mistake(
            lambda qk, values: _attend(normalize(qk, dim=-1), values),
            "the queries were scaled to length 1 as well: then no score exceeds 1, and no head can "
            "be sharp",
        ),
        Mistake(
            lambda qk, values: _attend(qk, values, itself=True),
            "every token sees itself, and nobody is nearer to it than that: its own value drowns "
            "the others",
        ),
        Mistake(
            lambda qk, values: _attend(qk, values, qk, qk.shape[-1] ** -0.5, itself=True),
            "that is an ordinary Transformer's attention with equal queries and keys: here keys "
            "have length 1, nothing else scales, and oneself comes last",
        ),
        Mistake(
            _unseen,
            "the first token sees nobody, and its softmax is not a number: it has to see itself",
        ),
    ],
    tolerance=1e-4,
    insight="this is what LSH attention becomes when the rounds see everything",
)
"""Attend causally with shared query-keys "length d_head" and values, oneself last."""


# ---------------------------------------------------------------------------- 4. gradient


def _key_gradient(q: Tensor, d_key: Tensor) -> Tensor:
    q = q.clone().requires_grad_()
    key = keys_from(q[None, None])[0, 0]
    return torch.autograd.grad(key, q, d_key)[0]


def _along(key: Tensor, d_key: Tensor) -> Tensor:
    return key * (key * d_key).sum(-1, keepdim=True)


def _length(q: Tensor) -> Tensor:
    return q.norm(dim=-1, keepdim=True)


key_gradient = Exercise(
    right=_key_gradient,
    cases=lambda: [
        (_vectors(3, 2, seed=6), _vectors(3, 2, seed=7)),
        (_vectors(6, 5, seed=8), _vectors(6, 5, seed=9)),
    ],
    mistakes=[
        Mistake(
            lambda q, d_key: d_key / _length(q),
            "that treats the length as a constant: a step along q changes no key, so nothing along "
            "it may come back",
        ),
        Mistake(
            lambda q, d_key: d_key - _along(normalize(q, dim=-1), d_key),
            "the direction is right and the size is not: the longer q is, the less a step turns it",
        ),
        Mistake(
            lambda q, d_key: (d_key - _along(q, d_key)) / _length(q),
            "what is taken away was measured along q at its full length: use the unit key",
        ),
        Mistake(
            lambda q, d_key: d_key,
            "that is the key's gradient unchanged, as if there were no normalisation",
        ),
    ],
    insight="only turning q matters to its key, and a long q turns slowly",
)
"""Take a key's gradient back to its query, through k = q / |q|: "length d_head" each."""


# -------------------------------------------------------------------- 5. what one head can do

expressible = Exercise(
    right=(True, False, True, True),
    mistakes=[
        Mistake(
            (False, False, True, True),
            "in a causal head only one of the two directions of a pair is ever used: nothing asks "
            "the earlier token to look back",
        ),
        Mistake(
            (True, True, True, True),
            "go once around the ring: each cosine would have to be larger than the one before it, "
            "the first one included",
        ),
        Mistake(
            (True, False, False, True),
            "many tokens may share a nearest neighbour: think of spokes around a hub",
        ),
        Mistake(
            (True, False, True, False),
            "this is the easy one: what is nearest to each other looks at each other",
        ),
        Mistake(
            (False, True, False, False),
            "the other way round: symmetry helps whoever looks at each other, and forbids a ring",
        ),
    ],
    insight="symmetry costs a head that reads both ways, and hardly one that reads back only",
)
"""Say which patterns one head with shared, freely chosen vectors can put nearly all weight on."""
