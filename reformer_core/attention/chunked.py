"""LSH attention in memory proportional to the length: bands of the sorted order, own backward.

Every round lays the positions of some heads out on one *line*, in sorted order, and cuts it into
*bands* of a few dozen queries. What a band's queries see is a run of keys around it, so that a band
needs one contiguous window of the line: a strided view, nothing is copied twice, and which keys a
query sees inside its window is two comparisons. Most windows are short, so the common ones are
computed together, and the blocks of keys that only some bands reach are added for those alone.

The backward keeps qk, values, output and log_total, and computes every band again.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from reformer_core.attention.bands import Bands, Piece, Room
from reformer_core.attention.dropout import kept_share, pair_keys
from reformer_core.attention.rule import Rule, accumulated_in
from reformer_core.workers import in_parallel, n_workers

# How many queries a band has, how many scores exist at once, and how many slots a line has. About
# a megabyte keeps a processor's cache warm; a GPU wants all of its multiprocessors busy.
_BAND_LENGTH = {"cpu": 32, "cuda": 64}
_PAIRS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
_SLOTS_IN_LINE = {"cpu": 1 << 14, "cuda": 1 << 20}

_LOG2_E = math.log2(math.e)


def attend(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    rule: Rule,
) -> tuple[Float[Tensor, "batch heads length d_value"], Float[Tensor, "batch heads length"]]:
    """Return the output and log_total = log sum exp(score), both in at least float32.

    log_total is -inf where a position sees nobody and attends to itself. No gradient flows.
    """
    dtype = accumulated_in(qk, values)
    out = values.new_empty(values.shape, dtype=dtype)
    log_total = qk.new_empty(qk.shape[:3], dtype=dtype)

    def fill(rows: slice, room: Room) -> None:
        heads = _Heads(qk, values, rule, rows, room)
        heads.attend(*(_table(part, rows) for part in (out, log_total)))

    _for_groups(fill, qk)
    return out, log_total


def gradients(
    d_out: Float[Tensor, "batch heads length d_value"],
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    out: Float[Tensor, "batch heads length d_value"],
    log_total: Float[Tensor, "batch heads length"],
    rule: Rule,
) -> tuple[Float[Tensor, "batch heads length d_head"], Float[Tensor, "batch heads length d_value"]]:
    """Return the gradients of qk and values, in their dtypes, from what `attend` returned."""
    d_qk, d_values = (
        torch.empty_like(part, memory_format=torch.contiguous_format) for part in (qk, values)
    )

    def fill(rows: slice, room: Room) -> None:
        heads = _Heads(qk, values, rule, rows, room)
        whole = [_table(part, rows) for part in (d_qk, d_values)]
        sums = [
            part if part.dtype == out.dtype else room(name, out, *part.shape)
            for name, part in zip(("d q", "d v"), whole, strict=True)
        ]
        heads.gradients(*(_table(part, rows) for part in (out, log_total, d_out)), *sums)
        for part, summed in zip(whole, sums, strict=True):
            part.copy_(summed)  # nothing where they are the same

    _for_groups(fill, qk)
    return d_qk, d_values


def _for_groups(fill: Callable[[slice, Room], None], qk: Tensor) -> None:
    """Split the rows of batch * heads into groups whose lines fit the working memory."""
    rows, length = qk.shape[0] * qk.shape[1], qk.shape[2]
    at_once = max(1, _SLOTS_IN_LINE[_kind(qk)] // length)
    at_once = min(at_once, math.ceil(rows / n_workers(qk.device)))  # something for every thread
    groups = [slice(start, min(start + at_once, rows)) for start in range(0, rows, at_once)]
    spare: list[Room] = []

    def with_room(group: slice) -> None:
        room = spare.pop() if spare else Room()
        fill(group, room)
        spare.append(room)

    in_parallel(with_room, groups, qk.device)


def _kind(tensor: Tensor) -> str:
    return "cpu" if tensor.device.type == "cpu" else "cuda"


def _table(tensor: Tensor, rows: slice) -> Tensor:
    """Put the positions of some rows of batch * heads in one table; a view where it can be."""
    if tensor.is_contiguous():
        return tensor.flatten(0, 1)[rows].flatten(0, 1)
    n_heads = tensor.shape[1]
    parts = [tensor[row // n_heads, row % n_heads] for row in range(rows.start, rows.stop)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Heads:
    """The positions of some heads (rows of batch * heads), in one table."""

    def __init__(
        self,
        qk: Float[Tensor, "batch heads length d_head"],
        values: Float[Tensor, "batch heads length d_value"],
        rule: Rule,
        rows: slice,
        room: Room,
    ) -> None:
        plan, dtype = rule.plan, accumulated_in(qk, values)
        self.rule, self.room = rule, room
        queries, self.values = (_table(part, rows).to(dtype) for part in (qk, values))
        self.norm = torch.linalg.vector_norm(queries, dim=-1)
        nonzero = torch.where(self.norm > 0, self.norm, 1).unsqueeze(-1)
        self.keys = torch.div(queries, nonzero, out=room("table of keys", queries, *queries.shape))
        self.order, self.slot, self.first, self.last = (
            part.flatten(0, 1)[rows] for part in (plan.order, plan.slot, plan.first, plan.last)
        )
        self.padded = None
        if plan.padding is not None:
            padding = plan.padding.unsqueeze(1).expand(-1, plan.slot.shape[1], -1)
            self.padded = padding.flatten(0, 1)[rows].flatten().unsqueeze(-1)
        # Scores are in base 2: exp2 is several times faster than exp.
        self.scale = self.norm * _LOG2_E
        # A score is at most |q| and at least -|q|: while exp(-2 |q|) is a number, |q| can stand for
        # the largest score, and saves the products that would look for it.
        self.bounded = bool(2 * self.scale.max() < -math.log2(torch.finfo(dtype).tiny))
        self.coins = None
        if rule.dropout:
            batch, heads, _, length = plan.slot.shape
            keys = pair_keys(rule.seed, batch, heads, length, qk.device)
            self.coins = [key[rows].flatten() for key in keys]

    def attend(self, out: Tensor, log_total: Tensor) -> None:
        """Fill `out` and `log_total` of these heads, adding round to round."""
        out.zero_()
        total, highest = torch.zeros_like(log_total), self.scale
        if not self.bounded:
            highest = torch.full_like(self.scale, -torch.inf)
            for index in range(self.order.shape[1]):
                _Round(self, index).raise_to_highest(highest)
        for index in range(self.order.shape[1]):
            _Round(self, index).attend(highest, out, total)
        alone = total == 0
        out.div_(total.masked_fill(alone, 1).unsqueeze(-1))
        torch.where(alone.unsqueeze(-1), self.values, out, out=out)
        if self.padded is not None:
            out.masked_fill_(self.padded, 0)
        torch.add(highest, total.log2_(), out=log_total).div_(_LOG2_E)

    def gradients(
        self, out: Tensor, log_total: Tensor, d_out: Tensor, d_qk: Tensor, d_values: Tensor
    ) -> None:
        """Fill `d_qk` and `d_values` of these heads, adding round to round."""
        d_out = d_out.to(out.dtype)
        if self.padded is not None:
            d_out = d_out.masked_fill(self.padded, 0)
        alone = log_total == -torch.inf
        # 2^(score - inf): whoever is alone weighs nobody
        log_total = log_total.mul(_LOG2_E).masked_fill_(alone, torch.inf)
        projected = self._dots(d_out, out)
        d_keys = self.room("d keys", self.keys, *self.keys.shape).zero_()
        sums = d_qk.zero_(), d_keys, torch.mul(d_out, alone.unsqueeze(-1), out=d_values)
        for index in range(self.order.shape[1]):
            _Round(self, index).gradients(d_out, projected, log_total, sums)
        # k = q / |q|: only what is at a right angle to k moves it.
        along = self._dots(self.keys, d_keys).unsqueeze(-1)
        d_keys.addcmul_(self.keys, along, value=-1)
        norm = self.norm.masked_fill(self.norm == 0, torch.inf).unsqueeze(-1)
        d_qk.addcdiv_(d_keys, norm)

    def _dots(self, left: Tensor, right: Tensor) -> Float[Tensor, " positions"]:
        """Return the dot product of each position's two vectors."""
        return torch.mul(left, right, out=self.room("products", right, *right.shape)).sum(-1)


class _Round:
    """One round of some heads: what it adds to the softmax and to the gradients."""

    def __init__(self, heads: _Heads, index: int) -> None:
        self.heads, self.rule, self.room = heads, heads.rule, heads.room
        plan, kind = heads.rule.plan, _kind(heads.keys)
        of_round = (part[:, index] for part in (heads.order, heads.first, heads.last))
        self.layout = Bands(*of_round, plan, _BAND_LENGTH[kind], heads.room)
        self.pieces = list(self.layout.pieces(_PAIRS_AT_ONCE[kind]))
        self.scale = self.layout.bands(heads.scale)
        # Slots and positions as floats: torch compares floats, into floats, several times faster.
        exact = heads.keys.shape[0] < 1 / torch.finfo(heads.keys.dtype).eps
        self.number = heads.keys.dtype if exact else torch.float64
        self.run = self.layout.first.to(self.number), self.layout.last.to(self.number)
        if plan.causal and not plan.within_bucket:
            self.position = self.layout.place.to(self.number)
        self.earlier = []
        if not heads.rule.count_repeats:
            self.earlier = [self._run_in(other) for other in range(index)]
        if heads.coins:
            self.coins = [self.layout.blocks(coins) for coins in heads.coins]

    def raise_to_highest(self, highest: Float[Tensor, " positions"]) -> None:
        """Raise to every position's largest score, in base 2, or less where it sees nobody."""
        top = torch.zeros_like(self.scale)
        for piece in self.pieces:
            own, keys = piece.queries_and_keys(self.heads.keys, "keys")
            cosines = torch.bmm(own, keys.mT).add_(2).mul_(self._counts(piece))
            top[piece.bands] = torch.maximum(top[piece.bands], cosines.amax(-1))  # in [1, 3], or 0
        top.sub_(2).mul_(self.scale)
        self.layout.raise_at_positions(highest, top)

    def attend(self, highest: Tensor, out: Tensor, total: Tensor) -> None:
        """Add per position sum 2^(s - highest) v to `out` and sum 2^(s - highest) to `total`."""
        highest = self.layout.bands(highest)
        for piece in self.pieces:
            weights = self._weights(
                piece, *piece.queries_and_keys(self.heads.keys, "keys"), highest
            )
            piece.add_to_queries(total, weights.sum(-1))
            if self.rule.dropout:
                weights.mul_(self._kept_share(piece, weights.dtype))
            values = piece.keys(self.heads.values, "values")
            sums = self.room("sums", out, *weights.shape[:2], out.shape[-1])
            piece.add_to_queries(out, torch.bmm(weights, values, out=sums))

    def gradients(
        self,
        d_out: Tensor,
        projected: Tensor,
        log_total: Tensor,
        into: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Add what this round contributes to the gradients of queries, keys and values."""
        d_queries, d_keys, d_values = into
        projected, log_total, norm = (
            self.layout.bands(part) for part in (projected, log_total, self.heads.norm)
        )
        for piece in self.pieces:
            own, keys = piece.queries_and_keys(self.heads.keys, "keys")
            weights = self._weights(piece, own, keys, log_total)
            d_out_here = piece.queries(d_out, "d out")
            d_weights = self.room("d weights", weights, *weights.shape)
            torch.bmm(d_out_here, piece.keys(self.heads.values, "values").mT, out=d_weights)
            dropped = weights
            if self.rule.dropout:
                share = self._kept_share(piece, weights.dtype)
                d_weights.mul_(share)
                dropped = weights * share
            d_scores = d_weights.sub_(piece.of_queries(projected)).mul_(weights)
            room = self.room("sums", own, *own.shape)
            piece.add_to_queries(d_queries, torch.bmm(d_scores, keys, out=room))
            queries = torch.mul(own, piece.of_queries(norm), out=room)
            piece.add_to_keys(d_keys, d_scores.mT, queries)
            piece.add_to_keys(d_values, dropped.mT, d_out_here)

    def _weights(
        self, piece: Piece, own: Tensor, keys: Tensor, highest: Tensor
    ) -> Float[Tensor, "some band_length window"]:
        """Return 2^(s - highest) where the plan shows the pair and no earlier round did, else 0."""
        scores = self.room("scores", own, *own.shape[:2], keys.shape[1])
        torch.bmm(own, keys.mT, out=scores)
        scores.mul_(piece.of_queries(self.scale)).sub_(piece.of_queries(highest))
        if not self.heads.bounded:  # who is not seen may score more than who is
            scores.clamp_(max=1)
        return scores.exp2_().mul_(self._counts(piece))

    def _counts(self, piece: Piece) -> Float[Tensor, "some band_length window"]:
        """Return 1 for the pairs that count in this round, 0 for the others."""
        plan = self.rule.plan
        first, last = (piece.of_queries(run) for run in self.run)
        slot = piece.slots_of_keys().to(self.number)
        counts, test = (
            self.room(name, self.heads.keys, *first.shape[:2], slot.shape[0])
            for name in ("counts", "test")
        )
        torch.ge(slot, first, out=counts)
        counts.mul_(torch.le(slot, last, out=test))
        if not plan.causal:
            counts.mul_(torch.ne(slot, piece.slots_of_queries()))
        elif not plan.within_bucket:  # within buckets a causal run ends before its own slot
            query = piece.of_queries(self.layout.inner(self.position))
            counts.mul_(torch.lt(piece.of_keys(self.position), query, out=test))
        for first, last, slot in self.earlier:
            key, other = piece.of_keys(slot), self.room("other test", test, *test.shape)
            torch.lt(key, piece.of_queries(first), out=test)
            torch.gt(key, piece.of_queries(last), out=other)
            counts.mul_(torch.maximum(test, other, out=test))
        return counts

    def _run_in(self, other: int) -> tuple[Tensor, Tensor, Tensor]:
        """Lay out the runs and slots that this round's occupants have in another."""
        slot = self.heads.slot[:, other]
        first, last = (
            self.layout.bands(run[:, other].gather(-1, slot).flatten().to(self.number))
            for run in (self.heads.first, self.heads.last)
        )
        return first, last, self.layout.blocks(slot.flatten().to(self.number))

    def _kept_share(self, piece: Piece, dtype: torch.dtype) -> Tensor:
        """Toss the dropout coins of a piece."""
        of_queries, of_keys = self.coins
        query, key = piece.of_queries(self.layout.inner(of_queries)), piece.of_keys(of_keys)
        return kept_share(query.squeeze(-1), key.squeeze(-2), self.rule.dropout, dtype)
