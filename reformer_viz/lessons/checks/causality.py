"""Lesson 05's exercises: who may look at whom, and what later tokens may not change."""

import torch
from torch import Tensor

from reformer_core.bucketing import Window, plan_chunks
from reformer_viz.lessons.exercise import Exercise, Mistake


def _buckets(length: int, n_buckets: int, seed: int) -> Tensor:
    """Draw buckets "batch heads rounds length" of one sequence, head and round."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(n_buckets, (1, 1, 1, length), generator=generator)


# -------------------------------------------------------------- 1. positions, not slots


def _orders() -> list[tuple[Tensor]]:
    sizes = [(6, 3, 0), (12, 4, 1)]
    return [
        (plan_chunks(_buckets(*size), chunk_length=4, causal=True).order[0, 0, 0],)
        for size in sizes
    ]


def _slots(order: Tensor) -> Tensor:
    return torch.arange(len(order))


earlier = Exercise(
    right=lambda order: order[:, None] > order,
    cases=_orders,
    mistakes=[
        Mistake(
            lambda order: _slots(order)[:, None] > _slots(order),
            "that compares slots: in sorted order a later token may well stand before an earlier "
            "one",
        ),
        Mistake(
            lambda order: order[:, None] >= order,
            "a token is not earlier than itself: it would always look at its own key",
        ),
        Mistake(
            lambda order: order[:, None] < order,
            "queries are the rows and keys the columns; here every query sees the later keys",
        ),
        Mistake(
            lambda order: order.argsort()[:, None] > order.argsort(),
            "`order` already says which position each slot holds; sorting it once more gives the "
            "slot of each position",
        ),
    ],
    insight="a comparison of positions, wherever sorting has put the tokens",
)
"""Say for every slot (rows) which slots (columns) hold an earlier token, from the order."""


# ------------------------------------------------------------- 2. one's own chunk and the last


def _window(length: int, chunk_length: int, **rule) -> Tensor:
    """Say which slots each slot's window covers."""
    plan = plan_chunks(
        torch.zeros(1, 1, 1, length, dtype=torch.long),
        chunk_length=chunk_length,
        causal=False,
        within_bucket=False,
        **rule,
    )
    first, last = plan.first[0, 0, 0, :, None], plan.last[0, 0, 0, :, None]
    slot = torch.arange(length)
    return (first <= slot) & (slot <= last)


def _wraps(length: int, chunk_length: int) -> Tensor:
    chunk = torch.arange(length) // chunk_length
    n_chunks = -(-length // chunk_length)
    return (chunk == chunk[:, None]) | (chunk == (chunk[:, None] - 1) % n_chunks)


def _counts_slots(length: int, chunk_length: int) -> Tensor:
    slot = torch.arange(length)
    return (slot[:, None] - chunk_length <= slot) & (slot <= slot[:, None])


own_and_previous = Exercise(
    right=_window,
    cases=lambda: [(6, 2), (10, 4), (3, 4)],
    mistakes=[
        Mistake(
            _wraps,
            "the first chunk has nobody before it: here it looks at the last one, as if the "
            "sequence were a ring",
        ),
        Mistake(
            lambda length, chunk_length: _window(length, chunk_length, chunks_before=0),
            "only one's own chunk is covered: neighbours across a border would never meet",
        ),
        Mistake(
            lambda length, chunk_length: _window(length, chunk_length, chunks_after=1),
            "the chunk after one's own is covered as well: Eq. 5 looks at one side only",
        ),
        Mistake(
            _counts_slots,
            "that counts slots back from the query: the paper's window begins where a chunk does",
        ),
    ],
    insight="Eq. 5, cut at the start: nothing wraps around",
)
"""Say which slots (columns) a slot's window covers (rows), by the paper's chunk rule (Eq. 5)."""


# --------------------------------------------------------------------- 3. oneself last


def _weights(scores: Tensor, visible: Tensor) -> Tensor:
    alone = ~visible.any(-1, keepdim=True)
    hidden = ~(visible | alone & torch.eye(len(scores), dtype=torch.bool))
    return scores.masked_fill(hidden, -torch.inf).softmax(-1)


def _scores_and_visible() -> list[tuple[Tensor, Tensor]]:
    cases = []
    for length, n_buckets, seed in ((6, 2, 2), (10, 4, 3)):
        plan = plan_chunks(_buckets(length, n_buckets, seed), chunk_length=4, causal=True)
        generator = torch.Generator().manual_seed(seed)
        scores = 4 * torch.rand(length, length, generator=generator) - 2
        cases.append((scores, plan.visible()[0, 0, 0]))
    return cases


def _itself(scores: Tensor) -> Tensor:
    return torch.eye(len(scores), dtype=torch.bool)


weights = Exercise(
    right=_weights,
    cases=_scores_and_visible,
    mistakes=[
        Mistake(
            lambda scores, visible: scores.masked_fill(~visible, -torch.inf).softmax(-1),
            "a query that sees nobody has no largest score, and softmax answers with NaN",
        ),
        Mistake(
            lambda scores, visible: scores.masked_fill(~visible, -1e9).softmax(-1),
            "a query that sees nobody looks at everybody here, the future included: with a large "
            "number in place of infinity all its scores are equal",
        ),
        Mistake(
            lambda scores, visible: (
                scores.masked_fill(~visible, -torch.inf).softmax(-1).nan_to_num(0)
            ),
            "the weights of a query that sees nobody add up to 0: it must fall back on itself",
        ),
        Mistake(
            lambda scores, visible: scores.masked_fill(
                ~(visible | _itself(scores)), -torch.inf
            ).softmax(-1),
            "a token sees itself also where it sees others: it should come last, not among them",
        ),
    ],
    insight="oneself only when alone, decided by logic and not by a large number",
)
"""Turn scores into weights over what is visible; a token that sees nobody sees itself."""


# ------------------------------------------------------------------- 4. the sliding rule


def _runs(buckets: Tensor, chunk_length: int, window: Window = "sliding") -> tuple[Tensor, Tensor]:
    plan = plan_chunks(
        buckets[None, None, None], chunk_length=chunk_length, causal=True, window=window
    )
    return plan.first[0, 0, 0], plan.last[0, 0, 0]


def _without_buckets(buckets: Tensor, chunk_length: int) -> tuple[Tensor, Tensor]:
    slot = torch.arange(len(buckets))
    return (slot - chunk_length).clamp(min=0), slot - 1


def _one_short(buckets: Tensor, chunk_length: int) -> tuple[Tensor, Tensor]:
    first, last = _runs(buckets, chunk_length)
    return torch.maximum(first, last - chunk_length + 2), last


sliding_runs = Exercise(
    right=_runs,
    cases=lambda: [
        (_buckets(12, 3, 4)[0, 0, 0].sort().values, 3),
        (_buckets(20, 4, 5)[0, 0, 0].sort().values, 4),
    ],
    mistakes=[
        Mistake(
            _without_buckets,
            "the run goes on into the bucket before: it must not begin before the query's own "
            "bucket does",
        ),
        Mistake(
            lambda buckets, chunk_length: (
                _runs(buckets, chunk_length)[0],
                torch.arange(len(buckets)),
            ),
            "the run ends with the query itself: it must end one slot earlier",
        ),
        Mistake(
            lambda buckets, chunk_length: _runs(buckets, chunk_length, "chunks"),
            "that run begins where a chunk does, and borders move when later tokens change: count "
            "from the query",
        ),
        Mistake(
            _one_short,
            "the run is one slot short: it covers `chunk_length` slots before the query's own",
        ),
    ],
    insight="first and last of a slot depend on its own bucket's earlier tokens alone",
)
"""Give the first and the last slot that each slot sees: bucket-mates, at most so many before."""


# ------------------------------------------------------------------------ 5. who leaks


def _leaks(window: Window, within_bucket: bool) -> bool:
    """Say whether other later tokens change whom some earlier token sees."""
    before, drawn = _buckets(64, 4, 6), _buckets(64, 4, 7)
    after = torch.cat([before[..., :52], drawn[..., 52:]], dim=-1)
    rule = {"causal": True, "n_buckets": 4, "window": window, "within_bucket": within_bucket}
    seen = [
        [plan_chunks(x, chunk_length=m, **rule).visible()[..., :52, :] for x in (before, after)]
        for m in (4, 16)  # shorter than a bucket, and longer than what changes in one
    ]
    return not all(torch.equal(*pair) for pair in seen)


leaks = Exercise(
    right=tuple(
        _leaks(window, within_bucket)
        for window in ("chunks", "sliding")
        for within_bucket in (True, False)
    ),
    mistakes=[
        Mistake(
            (False, False, False, False),
            "no later token gets weight, true; but ask what one does to the slots, and so to the "
            "borders between chunks",
        ),
        Mistake(
            (True, True, True, True),
            "one of them counts only tokens of the query's own bucket that come before it: what "
            "could a later token do to those?",
        ),
        Mistake(
            (True, True, False, False),
            "across buckets the slots just before the query may hold anybody: ask whether a later "
            "token can take one of them",
        ),
        Mistake(
            (False, True, False, True),
            "staying within the bucket hides strangers, but a chunk's border may still cut the "
            "bucket at another place",
        ),
    ],
    insight="only the sliding window within buckets is strictly causal",
)
"""Say of chunks within buckets, chunks across, sliding within, sliding across: does it leak?"""
