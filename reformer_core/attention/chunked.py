"""LSH attention in memory proportional to the length: blocks of the sorted order, own backward.

All rounds of some heads are laid out in sorted order, as blocks of queries and the keys that they
may see. Short buckets are squares, computed together with others of about their size
(`islands.py`); what is longer is cut into bands of a few dozen queries, whose keys are one
contiguous window (`bands.py`). Which keys a query sees inside its window is two comparisons, or
none where it sees all that stands before it.

The backward keeps qk, values, output and log_total, and computes every block again.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from reformer_core.attention.bands import Piece, Room
from reformer_core.attention.dropout import kept_share, pair_keys
from reformer_core.attention.islands import layouts
from reformer_core.attention.rule import Rule, accumulated_in

# How many queries a band has, how many scores exist at once, and how many positions are laid out
# together. About a megabyte keeps the caches of a processor's cores warm, and is enough for them to
# share; a GPU wants all of its multiprocessors busy.
_BAND_LENGTH = {"cpu": 32, "cuda": 64}
_PAIRS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
_SLOTS_IN_LINE = {"cpu": 1 << 15, "cuda": 1 << 20}

_LOG2_E = math.log2(math.e)


def attend(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    rule: Rule,
) -> tuple[Float[Tensor, "batch heads length d_value"], Float[Tensor, "batch heads length"]]:
    """Return the output and log_total = log sum exp(score), both in at least float32.

    log_total is -inf where a position sees nobody and attends to itself. No gradient flows.

    Right up to |q| whose square is a number, 1e19 in float32. A score's rounding, |q| / 10^7 there,
    is an error of its weight, as it is in `dense_lsh_attention`; nothing else grows with |q|.
    """
    dtype = accumulated_in(qk, values)
    out = torch.empty_like(values, dtype=dtype)
    log_total = qk.new_empty(qk.shape[:3], dtype=dtype)

    def fill(group: _Group, room: Room) -> None:
        tables = [
            group.to_fill(part, name, room) for part, name in ((out, "out"), (log_total, "z"))
        ]
        _Heads(qk, values, rule, group, room).attend(*tables)
        for part, table in zip((out, log_total), tables, strict=True):
            group.keep(part, table)

    _for_groups(fill, qk, values)
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
    d_qk, d_values = torch.empty_like(qk), torch.empty_like(values)

    def fill(group: _Group, room: Room) -> None:
        sums = [
            group.to_fill(part, name, room, out.dtype)
            for part, name in ((d_qk, "d q"), (d_values, "d v"))
        ]
        given = (group.table(part) for part in (out, log_total, d_out))
        _Heads(qk, values, rule, group, room).gradients(*given, *sums)
        for part, summed in zip((d_qk, d_values), sums, strict=True):
            group.keep(part, summed)

    _for_groups(fill, qk, values)
    return d_qk, d_values


def _for_groups(fill: Callable[["_Group", Room], None], qk: Tensor, values: Tensor) -> None:
    """Split the rows of batch * heads into groups whose lines fit the working memory."""
    batch, heads, length, _ = qk.shape
    at_once, room = max(1, _SLOTS_IN_LINE[_kind(qk)] // length), Room()
    together = 0 < heads <= at_once and all(map(_heads_are_together, (qk, values)))
    if together:
        at_once -= at_once % heads
    for start in range(0, batch * heads, at_once):
        rows = slice(start, min(start + at_once, batch * heads))
        fill(_Group(rows, heads, length, together), room)


def _kind(tensor: Tensor) -> str:
    return "cpu" if tensor.device.type == "cpu" else "cuda"


def _heads_are_together(tensor: Shaped[Tensor, "batch heads length ..."]) -> bool:
    """Say whether the heads of a position stand next to each other, as a projection leaves them."""
    return tensor.transpose(1, 2).is_contiguous()


class _Group:
    """Some rows of batch * heads, and how their positions stand below each other in tables.

    Head after head, or `together`, then of all heads of a batch: position after position.
    """

    def __init__(self, rows: slice, heads: int, length: int, together: bool) -> None:
        self.rows, self._heads, self._length, self._together = rows, heads, length, together
        self._batch = slice(rows.start // heads, -(-rows.stop // heads))

    def table(
        self, tensor: Shaped[Tensor, "batch heads length ..."]
    ) -> Shaped[Tensor, "positions ..."]:
        """Put the rows' positions in one table; a view where it can be."""
        if self._together:
            return tensor[self._batch].transpose(1, 2).flatten(0, 2)
        if tensor.is_contiguous():
            return tensor.flatten(0, 1)[self.rows].flatten(0, 1)
        parts = self._parts(tensor)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def to_fill(
        self, tensor: Tensor, name: str, room: Room, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, "positions ..."]:
        """Return a table for what `keep` puts into a tensor, the tensor itself where it can be."""
        is_table = _heads_are_together(tensor) if self._together else tensor.is_contiguous()
        if is_table and dtype in (None, tensor.dtype):
            return self.table(tensor)
        positions = (self.rows.stop - self.rows.start) * self._length
        like = tensor if dtype is None else tensor.new_empty(0, dtype=dtype)
        return room(f"table of {name}", like, positions, *tensor.shape[3:])

    def keep(self, tensor: Tensor, table: Shaped[Tensor, "positions ..."]) -> None:
        """Put a filled table where it belongs."""
        if table.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            return
        if self._together:
            whole = tensor[self._batch].transpose(1, 2)
            whole.copy_(table.view(whole.shape))
            return
        parts = self._parts(tensor)
        for part, filled in zip(parts, table.chunk(len(parts)), strict=True):
            part.copy_(filled)

    def numbers(self, of_rows: Shaped[Tensor, "rows length"]) -> Shaped[Tensor, " positions"]:
        """Put a number for every position in the tables' order."""
        if self._together:
            of_rows = of_rows.unflatten(0, (-1, self._heads)).mT
        return of_rows.flatten()

    def places(self, order: Int[Tensor, "rows rounds length"]) -> Int[Tensor, "rows rounds length"]:
        """Say where in the tables the positions of every row stand."""
        row = torch.arange(order.shape[0], device=order.device)[:, None, None]
        if not self._together:
            return order + row * self._length
        batch = row.div(self._heads, rounding_mode="floor")
        first = batch * (self._heads * self._length) + row.remainder(self._heads)
        return torch.add(first, order, alpha=self._heads)

    def _parts(self, tensor: Tensor) -> list[Tensor]:
        """Return the rows one by one."""
        rows = range(self.rows.start, self.rows.stop)
        return [tensor[row // self._heads, row % self._heads] for row in rows]


class _Heads:
    """The positions of some heads (rows of batch * heads), in one table, and their layouts."""

    def __init__(
        self,
        qk: Float[Tensor, "batch heads length d_head"],
        values: Float[Tensor, "batch heads length d_value"],
        rule: Rule,
        group: _Group,
        room: Room,
    ) -> None:
        plan, dtype, kind = rule.plan, accumulated_in(qk, values), _kind(qk)
        self.rule, self.room = rule, room
        queries, self.values = (group.table(part).to(dtype) for part in (qk, values))
        self.padded = None
        if plan.padding is not None:
            padding = plan.padding.unsqueeze(1).expand(-1, plan.slot.shape[1], -1)
            self.padded = group.numbers(padding.flatten(0, 1)[group.rows]).unsqueeze(-1)
            # 0 times what stands there could be NaN, and nobody may see it
            queries, self.values = (
                part.masked_fill(self.padded, 0) for part in (queries, self.values)
            )
        self.norm = torch.linalg.vector_norm(queries, dim=-1)
        self.one_by_norm = torch.where(self.norm > 0, self.norm.reciprocal(), 0)
        nonzero = torch.where(self.norm > 0, self.norm, 1).unsqueeze(-1)
        self.keys = torch.div(queries, nonzero, out=room("table of keys", queries, *queries.shape))
        order, slot, first, last = (
            part.flatten(0, 1)[group.rows]
            for part in (plan.order, plan.slot, plan.first, plan.last)
        )
        self.pieces = [
            piece
            for layout in layouts(group.places(order), first, last, plan, _BAND_LENGTH[kind])
            for piece in layout.pieces(_PAIRS_AT_ONCE[kind])
        ]
        # Slots and positions as floats: torch compares floats, into floats, several times faster.
        exact = self.keys.shape[0] < 1 / torch.finfo(dtype).eps
        self.number = dtype if exact else torch.float64
        self.earlier = []
        if not rule.count_repeats:
            self.earlier = [
                self._of_positions(group, slot[:, round], first[:, round], last[:, round])
                for round in range(slot.shape[1] - 1)
            ]
        if plan.causal and not plan.within_bucket:
            self.position = torch.arange(self.keys.shape[0], device=qk.device).to(self.number)
        # Scores are in base 2: exp2 is several times faster than exp.
        self.scale = self.norm * _LOG2_E
        # A score is at most |q| and at least -|q|: while exp(-2 |q|) is a number, |q| can stand for
        # the largest score, and saves the products that would look for it.
        self.bounded = bool(2 * self.scale.max() < -math.log2(torch.finfo(dtype).tiny))
        self._triangles: dict[int, Tensor] = {}
        self.coins = None
        if rule.dropout:
            batch, heads, _, length = plan.slot.shape
            keys = pair_keys(rule.seed, batch, heads, length, qk.device)
            self.coins = [group.numbers(key[group.rows]) for key in keys]

    def attend(self, out: Tensor, log_total: Tensor) -> None:
        """Fill `out` and `log_total` of these heads."""
        out.zero_()
        total, highest = torch.zeros_like(log_total), self._highest()
        for piece in self.pieces:
            self._attend(piece, highest, out, total)
        alone = total == 0
        out.div_(total.masked_fill(alone, 1).unsqueeze(-1))
        torch.where(alone.unsqueeze(-1), self.values, out, out=out)
        if self.padded is not None:
            out.masked_fill_(self.padded, 0)
        torch.add(highest, total.log2_(), out=log_total).div_(_LOG2_E)

    def gradients(
        self, out: Tensor, log_total: Tensor, d_out: Tensor, d_qk: Tensor, d_values: Tensor
    ) -> None:
        """Fill `d_qk` and `d_values` of these heads."""
        d_out = d_out.to(out.dtype)
        if self.padded is not None:
            d_out = d_out.masked_fill(self.padded, 0)
        alone = log_total == -torch.inf
        # 2^(score - inf): whoever is alone weighs nobody
        highest = log_total.mul(_LOG2_E) if self.bounded else self._highest()
        highest.masked_fill_(alone, torch.inf)
        one_by_total = None
        if not self.bounded:  # log_total is as coarse as it is large: its error would scale a row
            one_by_total = self._total(highest).masked_fill_(alone, 1).reciprocal_()
        projected = torch.mul(d_out, out, out=d_values).sum(-1)  # where there is room for it
        torch.mul(d_out, alone.unsqueeze(-1), out=d_values)
        d_keys = None
        if not all(piece.alike for piece in self.pieces):
            d_keys = self.room("d keys", self.keys, *self.keys.shape).zero_()
        d_qk.zero_()
        for piece in self.pieces:
            self._add_gradients(
                piece, d_out, projected, highest, one_by_total, d_qk, d_keys, d_values
            )
        if d_keys is not None:  # k = q / |q|: only what is at a right angle to k moves it
            products = self.room("products", d_keys, *d_keys.shape)
            along = torch.mul(self.keys, d_keys, out=products).sum(-1, keepdim=True)
            d_keys.addcmul_(self.keys, along, value=-1)
            d_qk.addcmul_(d_keys, self.one_by_norm.unsqueeze(-1))

    def _of_positions(
        self,
        group: _Group,
        slot: Int[Tensor, "rows length"],
        first: Int[Tensor, "rows length"],
        last: Int[Tensor, "rows length"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the slot and the run that every position has in one round."""
        runs = (run.gather(-1, slot) for run in (first, last))
        return tuple(group.numbers(of_rows).to(self.number) for of_rows in (slot, *runs))

    def _highest(self) -> Float[Tensor, " positions"]:
        """Return what no score exceeds, in base 2: |q|, or the largest that is seen, or -inf."""
        if self.bounded:
            return self.scale
        highest = torch.full_like(self.scale, -torch.inf)
        for piece in self.pieces:
            self._raise_to_highest(piece, highest)
        return highest

    def _total(self, highest: Float[Tensor, " positions"]) -> Float[Tensor, " positions"]:
        """Return sum 2^(s - highest) of every position."""
        total = torch.zeros_like(highest)
        for piece in self.pieces:
            weights = self._weights(piece, self._cosines(piece)[-1], highest)
            piece.add_sums_to_queries(total, weights, self.room)
        return total

    def _raise_to_highest(self, piece: Piece, highest: Float[Tensor, " positions"]) -> None:
        """Raise to every position's largest score, in base 2, of the pairs that count."""
        cosines = self._cosines(piece)[-1]
        counting = self._counting(piece, self.room("scores", cosines, *piece.shape).fill_(1))
        top = cosines.masked_fill_(counting == 0, -torch.inf).amax(-1, keepdim=True)
        if piece.filler is not None:
            top.masked_fill_(piece.filler, -torch.inf)
        scores = top * piece.of_queries(self.scale, "scale")
        piece.raise_queries(highest, scores.masked_fill_(top == -torch.inf, -torch.inf))

    def _attend(self, piece: Piece, highest: Tensor, out: Tensor, total: Tensor) -> None:
        """Add per position sum 2^(s - highest) v to `out` and sum 2^(s - highest) to `total`."""
        weights = self._weights(piece, self._cosines(piece)[-1], highest)
        piece.add_sums_to_queries(total, weights, self.room)
        if self.rule.dropout:
            weights.mul_(self._kept_share(piece, weights.dtype))
        values, _ = piece.keys(self.values, self.room, "values")
        piece.add_to_queries(out, weights, values, self.room)

    def _add_gradients(
        self,
        piece: Piece,
        d_out: Tensor,
        projected: Tensor,
        highest: Tensor,
        one_by_total: Tensor | None,
        d_qk: Tensor,
        d_keys: Tensor | None,
        d_values: Tensor,
    ) -> None:
        """Add what a piece contributes to the gradients of qk, keys and values."""
        room = self.room
        own, keys, cosines = self._cosines(piece)
        weights = self._weights(piece, cosines, highest)
        if one_by_total is not None:
            weights.mul_(piece.of_queries(one_by_total, "one by total"))
        d_out = piece.queries(d_out, room, "d out")
        _, values_turned = piece.keys(self.values, room, "values")
        d_weights = torch.bmm(d_out, values_turned, out=room("d weights", weights, *piece.shape))
        dropped = weights
        if self.rule.dropout:
            share = self._kept_share(piece, weights.dtype)
            d_weights.mul_(share)
            dropped = weights * share
        piece.add_to_keys(d_values, dropped.mT, d_out, room)
        d_scores = d_weights.sub_(piece.of_queries(projected, "projected")).mul_(weights)
        norm = piece.of_queries(self.norm, "norm")
        if piece.alike:
            both = self._both_ways(piece, d_scores, torch.mul(d_scores, norm, out=weights), cosines)
            piece.add_to_queries(d_qk, both, keys, room)
        else:
            piece.add_to_queries(d_qk, d_scores, keys, room)
            piece.add_to_keys(d_keys, d_scores.mul_(norm).mT, own, room)

    def _both_ways(
        self,
        piece: Piece,
        d_scores: Float[Tensor, "some length length"],
        d_cosines: Float[Tensor, "some length length"],
        cosines: Float[Tensor, "some length length"],
    ) -> Float[Tensor, "some length length"]:
        """Return what to multiply the keys by for the whole gradient of qk: two products in one.

        Where queries and keys are the same rows, a row's gradient as a query and as a key are both
        sums over the same keys. Of the latter only what is at a right angle to the row's own key
        moves it, which is the diagonal.
        """
        both = self.room("both", d_scores, *piece.shape)
        one_by_norm = piece.of_queries(self.one_by_norm, "one by norm")
        torch.mul(d_cosines.mT, one_by_norm, out=both)
        along = torch.sum(
            cosines.mul_(both), -1, out=self.room("sums", both, piece.number, piece.length)
        )
        both.add_(d_scores).diagonal(dim1=-2, dim2=-1).sub_(along)
        return both

    def _cosines(self, piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
        """Lay out the queries' and the windows' keys, and return them and their products."""
        keys, turned = piece.keys(self.keys, self.room, "keys")
        own = piece.own(self.keys, self.room, "keys")
        return own, keys, torch.bmm(own, turned, out=self.room("cosines", own, *piece.shape))

    def _weights(
        self,
        piece: Piece,
        cosines: Float[Tensor, "some length window"],
        highest: Float[Tensor, " positions"],
    ) -> Float[Tensor, "some length window"]:
        """Return 2^(s - highest) where the plan shows the pair and no earlier round did, else 0."""
        highest = piece.of_queries(highest, "highest")
        if piece.filler is not None:  # whose runs say nothing: 2^(score - inf)
            highest = highest.masked_fill(piece.filler, torch.inf)
        scale = piece.of_queries(self.scale, "scale")
        scores = torch.mul(cosines, scale, out=self.room("scores", cosines, *piece.shape))
        scores.sub_(highest)
        if not self.bounded:  # who is not seen may score more than who is
            scores.clamp_(max=1)
        return self._counting(piece, scores.exp2_())

    def _counting(
        self, piece: Piece, numbers: Float[Tensor, "some length window"]
    ) -> Float[Tensor, "some length window"]:
        """Keep, in place, the numbers of the pairs that count in this round; make others 0."""
        if piece.filler is None:
            self._keep_runs(piece, numbers)
        else:
            numbers.mul_(self._below_diagonal(piece.length))
        for round in range(len(self.earlier)):
            if (start := piece.after_round(round)) < piece.number:
                self._keep_unseen(piece, numbers[start:], start, round)
        return numbers

    def _keep_runs(self, piece: Piece, numbers: Tensor) -> None:
        """Keep the numbers of the pairs that the queries' runs show."""
        test, plan = self.room("test", numbers, *numbers.shape), self.rule.plan
        first, last = (run.to(self.number) for run in piece.run())
        slot = piece.slots_of_keys().to(self.number)
        numbers.mul_(torch.ge(slot, first, out=test))
        numbers.mul_(torch.le(slot, last, out=test))
        if not plan.causal:
            numbers.mul_(torch.ne(slot, piece.slots_of_queries()))
        elif not plan.within_bucket:  # within buckets a causal run ends before its own slot
            query = piece.of_queries(self.position, "position of query")
            key = piece.of_keys(self.position, "position of key")
            numbers.mul_(torch.lt(key, query, out=test))

    def _keep_unseen(self, piece: Piece, numbers: Tensor, start: int, round: int) -> None:
        """Keep the numbers, which begin at a block, of the pairs that an earlier round hides."""
        below, above = (self.room(name, numbers, *numbers.shape) for name in ("test", "other test"))
        slot, first, last = self.earlier[round]
        key = piece.of_keys(slot, f"slot in round {round}")[start:]
        first = piece.of_queries(first, f"first in round {round}")[start:]
        last = piece.of_queries(last, f"last in round {round}")[start:]
        torch.maximum(torch.lt(key, first, out=below), torch.gt(key, last, out=above), out=below)
        numbers.mul_(below)

    def _below_diagonal(self, length: int) -> Float[Tensor, "length length"]:
        """Return 1 where the key stands before the query, else 0."""
        if length not in self._triangles:
            ones = torch.ones(length, length, dtype=self.keys.dtype, device=self.keys.device)
            self._triangles[length] = ones.tril_(-1)
        return self._triangles[length]

    def _kept_share(self, piece: Piece, dtype: torch.dtype) -> Tensor:
        """Toss the dropout coins of a piece."""
        of_queries, of_keys = self.coins
        query = piece.of_queries(of_queries, "coin of query").squeeze(-1)
        key = piece.of_keys(of_keys, "coin of key").squeeze(-2)
        return kept_share(query, key, self.rule.dropout, dtype)
