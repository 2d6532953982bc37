"""Lesson 03: the order, the chunks, who sees whom, runs of slots, and the merging of rounds."""

import torch
from torch import Tensor

from reformer_core import draw_rotations, hash_vectors, keys_from, plan_chunks
from reformer_viz.lessons.example import sixteen_tokens
from reformer_viz.lessons.exercise import Exercise, Mistake

N_BUCKETS, CHUNK = 4, 4


def _buckets(n_hashes: int = 1) -> Tensor:
    """Hash the sixteen tokens: "rounds length"."""
    rotations = draw_rotations(n_hashes, 1, 8, N_BUCKETS, torch.Generator().manual_seed(1))
    return hash_vectors(sixteen_tokens(), rotations)[0, 0]


def _drawn(length: int, n_buckets: int, seed: int) -> Tensor:
    return torch.randint(n_buckets, (length,), generator=torch.Generator().manual_seed(seed))


def _plan(buckets: Tensor, chunk_length: int = CHUNK):
    return plan_chunks(
        buckets[None, None, None],
        n_buckets=int(buckets.max()) + 1,
        chunk_length=chunk_length,
        causal=True,
    )


# ---------------------------------------------------------------------------------- sorting


def _in_any_order(buckets: Tensor) -> Tensor:
    """Sort by bucket, ties in some other order than that of reading."""
    ties = torch.rand(len(buckets), generator=torch.Generator().manual_seed(0))
    return (buckets + ties).argsort()


def _only_ties_differ(got: Tensor, expected: Tensor, buckets: Tensor) -> bool:
    """Say whether the buckets ascend as they should, and only positions within them differ."""
    return bool((got.sort().values == expected.sort().values).all()) and bool(
        (buckets[got] == buckets[expected]).all()
    )


# Arguments: the buckets of one round, "length".
sorted_positions = Exercise(
    right=lambda buckets: _plan(buckets).order[0, 0, 0].long(),
    cases=lambda: [(_buckets()[0],), (_drawn(40, 3, 0),)],
    mistakes=[
        Mistake(
            lambda buckets: buckets.sort().values,
            "these are the buckets in sorted order: which positions do they belong to?",
        ),
        Mistake(
            lambda buckets: _plan(buckets).slot[0, 0, 0].long(),
            "that says at which slot each position stands; asked is which position stands at each "
            "slot, the inverse",
        ),
        Mistake(
            lambda buckets: (len(buckets) * buckets - torch.arange(len(buckets))).argsort(),
            "within a bucket the later positions come first: ties have to stay in reading order",
        ),
        Mistake(
            lambda buckets: (len(buckets) * -buckets + torch.arange(len(buckets))).argsort(),
            "the last bucket comes first",
        ),
        Mistake(
            _in_any_order,
            "the buckets ascend, but within one the positions are mixed: plain `argsort` may put "
            "ties in any order, and reading order has to be asked for",
            shows=_only_ties_differ,
        ),
    ],
    insight="bucket-mates stand next to each other now, the earlier ones first",
)


# ------------------------------------------------------------------------------ who sees whom


def _sees(buckets: Tensor, chunk_length: int) -> Tensor:
    return _plan(buckets, chunk_length).visible()[0, 0, 0]


def _without(rule: str, buckets: Tensor, chunk_length: int) -> Tensor:
    """Say who sees whom by comparing everybody, leaving out one of the rules."""
    order = (len(buckets) * buckets + torch.arange(len(buckets))).argsort()
    chunk = order.argsort() // chunk_length
    if rule == "sorting":
        chunk = torch.arange(len(buckets)) // chunk_length
    back = chunk[:, None] - chunk[None, :]
    near = (back == 0) | ((back == 1) & (rule != "back"))
    if rule == "window":
        near = torch.ones_like(near)
    mates = buckets[:, None] == buckets[None, :]
    if rule == "buckets":
        mates = torch.ones_like(mates)
    earlier = torch.ones_like(mates).tril(-1)
    if rule == "causality":
        earlier = earlier | earlier.mT
    if rule == "others":
        earlier = earlier | torch.eye(len(buckets), dtype=torch.bool)
    return near & mates & earlier


# Arguments: the buckets of one round, "length", and the chunk length.
visible = Exercise(
    right=_sees,
    cases=lambda: [(_buckets()[0], CHUNK), (_drawn(30, 3, 1), 4)],
    mistakes=[
        Mistake(
            lambda buckets, chunk_length: _without("sorting", buckets, chunk_length),
            "the text was cut into chunks before it was sorted: chunks are pieces of sorted order",
        ),
        Mistake(
            lambda buckets, chunk_length: _without("back", buckets, chunk_length),
            "everybody sees its own chunk only: a bucket that a border divides needs the one "
            "before",
        ),
        Mistake(
            lambda buckets, chunk_length: _without("window", buckets, chunk_length),
            "that is every earlier bucket-mate, however far away in sorted order",
        ),
        Mistake(
            lambda buckets, chunk_length: _without("buckets", buckets, chunk_length),
            "the neighbours in a chunk may be of another bucket: they are not seen",
        ),
        Mistake(
            lambda buckets, chunk_length: _without("causality", buckets, chunk_length),
            "later tokens are seen as well",
        ),
        Mistake(
            lambda buckets, chunk_length: _without("others", buckets, chunk_length),
            "everybody sees itself; a plan never shows a token to itself, that comes later",
        ),
    ],
    insight="four comparisons: bucket, chunk, the chunk before, position",
)


# ------------------------------------------------------------------------------------- runs


def _first(buckets: Tensor, chunk_length: int) -> Tensor:
    return _plan(buckets, chunk_length).first[0, 0, 0].long()


def _start_of_bucket(buckets: Tensor) -> Tensor:
    in_order = buckets.sort().values
    return torch.searchsorted(in_order, in_order)


def _start_of_window(length: int, chunk_length: int, back: int = 1) -> Tensor:
    return ((torch.arange(length) // chunk_length - back) * chunk_length).clamp(min=0)


# Arguments: the buckets of one round, "length", and the chunk length.
first_slots = Exercise(
    right=_first,
    cases=lambda: [(_buckets()[0], CHUNK), (_drawn(30, 3, 1), 4)],
    mistakes=[
        Mistake(
            lambda buckets, chunk_length: _start_of_window(len(buckets), chunk_length),
            "that is where the chunk before begins; the bucket may begin later",
        ),
        Mistake(
            lambda buckets, chunk_length: _start_of_bucket(buckets),
            "that is where the bucket begins; the window may begin later",
        ),
        Mistake(
            lambda buckets, chunk_length: torch.minimum(
                _start_of_bucket(buckets), _start_of_window(len(buckets), chunk_length)
            ),
            "both borders hold, so the later of the two is the first slot that is seen",
        ),
        Mistake(
            lambda buckets, chunk_length: torch.maximum(
                _start_of_bucket(buckets), _start_of_window(len(buckets), chunk_length, back=0)
            ),
            "the window begins with the chunk before the slot's own",
        ),
    ],
    insight="with this, who sees whom is two whole numbers a slot, and no matrix",
)


# ----------------------------------------------------------------------------------- merging


def _cases_of_rounds() -> list[tuple]:
    """Make scores "rounds length length", values, and who sees whom, each pair in one round."""
    qk = sixteen_tokens()
    plan = plan_chunks(
        _buckets(3)[None, None], n_buckets=N_BUCKETS, chunk_length=CHUNK, causal=True
    )
    seen = plan.visible()[0, 0]
    once = seen & (seen.cumsum(0) == 1)
    scores = (qk @ keys_from(qk).mT)[0, 0]
    values = torch.rand(16, 3, generator=torch.Generator().manual_seed(2))
    some = once.any(0).any(-1)
    return [(scale * scores[some], values, once[:, some]) for scale in (1.0, 400.0)]


def _per_round(scores: Tensor, values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return each round's output, zero where it shows nobody, and its log-sum-exp."""
    masked = scores.masked_fill(~seen, -torch.inf)
    z = masked.logsumexp(-1)
    return (masked - z[..., None]).exp().nan_to_num() @ values, z


def _merged(scores: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """Attend once, over the union of the rounds."""
    return scores.masked_fill(~seen.any(0), -torch.inf).softmax(-1) @ values


def _by_answer(answer, scores: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """Give an answer the rounds' outputs and log-sums; the right one attends to the union."""
    return (
        _merged(scores, values, seen)
        if answer is _merged
        else answer(*_per_round(scores, values, seen))
    )


def _without_shift(outputs: Tensor, z: Tensor) -> Tensor:
    share = z.exp() / z.exp().sum(0)
    return (share[..., None] * outputs).sum(0)


def _by_z(outputs: Tensor, z: Tensor) -> Tensor:
    share = z.masked_fill(z.isinf(), 0)
    return ((share / share.sum(0))[..., None] * outputs).sum(0)


# Arguments of an answer: the rounds' outputs "rounds length d", their log-sum-exp "rounds length".
merge = Exercise(
    right=_merged,
    observe=_by_answer,
    cases=_cases_of_rounds,
    tolerance=1e-4,
    mistakes=[
        Mistake(
            lambda outputs, z: outputs.mean(0),
            "every round got the same say, also one that shows a token nobody",
        ),
        Mistake(
            lambda outputs, z: outputs.sum(0),
            "each round's weights add up to 1, so their sum weighs as many times too much",
        ),
        Mistake(
            _by_z,
            "z is a logarithm: a round's share grows with exp(z), not with z",
        ),
        Mistake(
            _without_shift,
            "right for small scores, but exp(z) of large ones is infinite: subtract the total "
            "before you exponentiate",
        ),
    ],
    insight="rounds that were computed apart are one softmax over the union",
)
