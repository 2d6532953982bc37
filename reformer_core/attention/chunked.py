"""LSH attention in memory proportional to the length: tiles of the sorted order, own backward.

Every round lays the positions of all heads out on one *line*, in sorted order. A tile of
`tile_length` queries then needs one contiguous window of keys, a strided view of the line: nothing
is copied twice, and which keys a query sees inside its window is two comparisons. The backward
keeps qk, values, output and log_total, and computes every tile again.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from reformer_core.attention.dropout import kept_share, pair_keys
from reformer_core.attention.rule import Rule, accumulated_in

# How many scores exist at once: a few megabytes keep a processor's cache warm, while a GPU wants
# all of its multiprocessors busy.
_SCORES_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 26}
# How many numbers a line may hold. More heads than fit are taken in turn.
_NUMBERS_IN_LINE = {"cpu": 1 << 21, "cuda": 1 << 28}


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
    for heads in _Heads.groups(qk, values, rule):
        heads.attend(out.flatten(0, 1)[heads.rows], log_total.flatten(0, 1)[heads.rows])
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
    d_qk, d_values = qk.new_empty(qk.shape, dtype=out.dtype), torch.empty_like(out)
    to_fill = [part.flatten(0, 1) for part in (d_qk, d_values)]
    kept = [part.flatten(0, 1) for part in (out, log_total, d_out)]
    for heads in _Heads.groups(qk, values, rule):
        parts = heads.gradients(*(part[heads.rows] for part in kept))
        for whole, part in zip(to_fill, parts, strict=True):
            whole[heads.rows] = part
    return d_qk.to(qk.dtype), d_values.to(values.dtype)


class _Heads:
    """The sequences of some heads (rows of batch * heads), ready to be laid out round by round."""

    def __init__(
        self,
        qk: Float[Tensor, "rows length d_head"],
        values: Float[Tensor, "rows length d_value"],
        rule: Rule,
        rows: slice,
    ) -> None:
        plan = rule.plan
        dtype = accumulated_in(qk, values)
        queries = qk[rows].to(dtype)
        self.rows, self.rule = rows, rule
        self.values = values[rows].to(dtype)
        self.norm = torch.linalg.vector_norm(queries, dim=-1, keepdim=True)
        self.keys = queries / torch.where(self.norm > 0, self.norm, 1)
        self.padded = None
        if plan.padding is not None:
            padding = plan.padding.unsqueeze(1).expand(plan.slot.shape[0], plan.slot.shape[1], -1)
            self.padded = padding.flatten(0, 1)[rows].unsqueeze(-1)
        self.order, self.slot, self.first, self.last = (
            part.flatten(0, 1)[rows] for part in (plan.order, plan.slot, plan.first, plan.last)
        )
        self.coins = None
        if rule.dropout:
            batch, heads, _, length = plan.slot.shape
            self.coins = [
                key[rows] for key in pair_keys(rule.seed, batch, heads, length, qk.device)
            ]

    @classmethod
    def groups(cls, qk: Tensor, values: Tensor, rule: Rule) -> Iterator["_Heads"]:
        """Split the heads into groups whose lines fit the working memory."""
        batch, heads, length, d_head = qk.shape
        room = _NUMBERS_IN_LINE.get(qk.device.type, _NUMBERS_IN_LINE["cpu"])
        at_once = max(1, room // (length * (d_head + values.shape[-1])))
        qk, values = qk.flatten(0, 1), values.flatten(0, 1)
        for start in range(0, batch * heads, at_once):
            yield cls(qk, values, rule, slice(start, min(start + at_once, batch * heads)))

    def attend(self, out: Tensor, log_total: Tensor) -> None:
        """Fill `out` and `log_total` of these heads, merging round after round."""
        out.zero_()
        total, top = torch.zeros_like(log_total), torch.full_like(log_total, -torch.inf)
        for index in range(self.order.shape[1]):
            of_round, total_of_round, top_of_round = _Round(self, index).attend()
            new_top = torch.maximum(top, top_of_round)
            at = new_top.masked_fill(new_top == -torch.inf, 0)
            old, new = (top - at).exp_(), (top_of_round - at).exp_()
            out.mul_(old.unsqueeze(-1)).addcmul_(of_round, new.unsqueeze(-1))
            total.mul_(old).addcmul_(total_of_round, new)
            top = new_top
        alone = (total == 0).unsqueeze(-1)
        out.div_(total.unsqueeze(-1).masked_fill(alone, 1))
        out.copy_(torch.where(alone, self.values, out))
        if self.padded is not None:
            out.masked_fill_(self.padded, 0)
        torch.add(top, total.log(), out=log_total)

    def gradients(self, out: Tensor, log_total: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of these heads' qk and values."""
        d_out = d_out.to(out.dtype)
        if self.padded is not None:
            d_out = d_out.masked_fill(self.padded, 0)
        alone = log_total == -torch.inf
        self.d_out = d_out
        self.projected = (d_out * out).sum(-1, keepdim=True)
        # exp(score - inf): whoever is alone weighs nobody
        self.log_total = log_total.masked_fill(alone, torch.inf).unsqueeze(-1)
        d_queries, d_keys = torch.zeros_like(self.keys), torch.zeros_like(self.keys)
        d_values = d_out * alone.unsqueeze(-1)
        for index in range(self.order.shape[1]):
            for whole, part in zip(
                (d_queries, d_keys, d_values), _Round(self, index).gradients(), strict=True
            ):
                whole.add_(part)
        # k = q / |q|: only what is at a right angle to k moves it.
        d_keys.sub_(self.keys * (self.keys * d_keys).sum(-1, keepdim=True))
        through_key = d_keys.div_(self.norm).masked_fill_(self.norm == 0, 0)
        return d_queries.add_(through_key), d_values


class _Round:
    """One round of some heads, laid out on a line: row after row, each a whole number of tiles."""

    def __init__(self, heads: _Heads, index: int) -> None:
        plan = heads.rule.plan
        rows, _, length = heads.order.shape
        self.heads, self.index = heads, index
        self.tile_length = min(plan.chunk_length, length)
        tiles = -(-length // self.tile_length)
        self.before = min(plan.chunks_before, tiles - 1)
        self.after = min(plan.chunks_after, tiles - 1)
        self.n_tiles = rows * tiles
        self.window_length = (self.before + 1 + self.after) * self.tile_length
        filler = tiles * self.tile_length - length
        self.d_head = heads.keys.shape[-1]
        row = torch.arange(rows, device=heads.order.device).unsqueeze(-1)
        order = torch.nn.functional.pad(heads.order[:, index], (0, filler))
        self.source = (order + row * length).flatten()
        self.place = (heads.slot[:, index] + row * tiles * self.tile_length).flatten()
        self.shape = rows, length

        # The run of every query, counted from where its tile's window starts; a filler's is empty.
        tile = torch.arange(self.n_tiles, device=order.device, dtype=torch.int32) % tiles
        start = ((tile - self.before) * self.tile_length).unsqueeze(-1)
        self.first, self.last = (
            torch.nn.functional.pad(run[:, index], (0, filler), value=value).view(self.n_tiles, -1)
            - start
            for run, value in ((heads.first, length), (heads.last, -1))
        )
        self.norm = self._tiles(self._on_line(heads.norm))
        self.keys_and_values = self._with_margins(
            self._on_line(torch.cat([heads.keys, heads.values], -1))
        )
        self.earlier = [] if heads.rule.count_repeats else [self._run_in(e) for e in range(index)]
        self.positions = self._pairs(order.flatten().int())
        if heads.rule.dropout:
            self.coins = [self._pairs(self._on_line(coins)) for coins in heads.coins]

    def attend(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return per position sum exp(s - top) v, sum exp(s - top) and top, the largest score."""
        line = self.n_tiles * self.tile_length
        out = self.heads.values.new_empty(line, self.heads.values.shape[-1])
        total, top = out.new_empty(line), out.new_empty(line)
        for tiles in self._blocks():
            slots = slice(tiles.start * self.tile_length, tiles.stop * self.tile_length)
            keys, values = self._windows(tiles)
            scores = self._scores(tiles, keys)
            highest = scores.amax(-1, keepdim=True)
            scores.sub_(highest.masked_fill(highest == -torch.inf, 0)).exp_()
            top[slots], total[slots] = highest.flatten(), scores.sum(-1).flatten()
            if self.heads.rule.dropout:
                scores.mul_(self._kept_share(tiles, scores.dtype))
            out[slots] = torch.bmm(scores, values).flatten(0, 1)
        return tuple(self._at_positions(part) for part in (out, total, top))

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return per position what this round adds to the gradients of queries, keys and values."""
        heads, d_head, length = self.heads, self.d_head, self.tile_length
        d_out, projected, log_total = (
            self._tiles(self._on_line(part))
            for part in (heads.d_out, heads.projected, heads.log_total)
        )
        d_queries = heads.keys.new_empty(self.n_tiles, length, d_head)
        d_line = torch.zeros_like(self.keys_and_values)
        for tiles in self._blocks():
            keys, values = self._windows(tiles)
            weights = self._scores(tiles, keys).sub_(log_total[tiles]).exp_()
            d_weights = torch.bmm(d_out[tiles], values.mT)
            dropped = weights
            if heads.rule.dropout:
                share = self._kept_share(tiles, weights.dtype)
                d_weights.mul_(share)
                dropped = weights * share
            d_scores = d_weights.sub_(projected[tiles]).mul_(weights)
            d_queries[tiles] = torch.bmm(d_scores, keys)
            queries = self._own_keys(tiles) * self.norm[tiles]
            self._add_windows(d_line[:, :d_head], tiles, torch.bmm(d_scores.mT, queries))
            self._add_windows(d_line[:, d_head:], tiles, torch.bmm(dropped.mT, d_out[tiles]))
        d_line = d_line[self.before * length : d_line.shape[0] - self.after * length]
        d_queries, d_line = self._at_positions(d_queries.flatten(0, 1)), self._at_positions(d_line)
        return d_queries, d_line[..., :d_head], d_line[..., d_head:]

    def _blocks(self) -> Iterator[slice]:
        """Cut the tiles into blocks whose scores fit the working memory."""
        device = self.source.device.type
        room = _SCORES_AT_ONCE.get(device, _SCORES_AT_ONCE["cpu"])
        at_once = max(1, room // (self.tile_length * self.window_length))
        for start in range(0, self.n_tiles, at_once):
            yield slice(start, min(start + at_once, self.n_tiles))

    def _windows(self, tiles: slice) -> tuple[Tensor, Tensor]:
        """Return the keys and values that each tile may need: overlapping views, no copies."""
        line, step = self.keys_and_values, self.tile_length
        width = line.shape[-1]
        windows = line.as_strided(
            (tiles.stop - tiles.start, self.window_length, width),
            (step * width, width, 1),
            line.storage_offset() + tiles.start * step * width,
        )
        return windows[..., : self.d_head], windows[..., self.d_head :]

    def _own_keys(self, tiles: slice) -> Float[Tensor, "tiles tile_length d_head"]:
        """Return the keys of the tile's own positions; times `norm`, they are its queries."""
        start, stop = (
            (edge + self.before) * self.tile_length for edge in (tiles.start, tiles.stop)
        )
        own = self.keys_and_values[start:stop, : self.d_head]
        return own.unflatten(0, (-1, self.tile_length))

    def _scores(self, tiles: slice, keys: Tensor) -> Float[Tensor, "tiles tile_length window"]:
        """Return q . k where the plan shows the pair and no earlier round did, else -inf."""
        scores = torch.bmm(self._own_keys(tiles), keys.mT).mul_(self.norm[tiles])
        return scores.masked_fill_(~self._counts(tiles), -torch.inf)

    def _counts(self, tiles: slice) -> Bool[Tensor, "tiles tile_length window"]:
        """Say which pairs count in this round."""
        plan = self.heads.rule.plan
        window = torch.arange(self.window_length, device=self.source.device, dtype=torch.int32)
        counts = window >= self.first[tiles].unsqueeze(-1)
        counts &= window <= self.last[tiles].unsqueeze(-1)
        if not plan.causal:
            own = window - self.before * self.tile_length
            counts &= own != window[: self.tile_length, None]
        elif not plan.within_bucket:  # within buckets a causal run ends before its own slot
            query, key = self.positions
            counts &= key[tiles] < query[tiles]
        for first, last, slot in self.earlier:
            seen = slot[tiles] >= first[tiles]
            seen &= slot[tiles] <= last[tiles]
            counts &= ~seen
        return counts

    def _kept_share(self, tiles: slice, dtype: torch.dtype) -> Tensor:
        """Toss the dropout coins of a block."""
        (query, _), (_, key) = self.coins
        query, key = query[tiles].squeeze(-1), key[tiles].squeeze(-2)
        return kept_share(query, key, self.heads.rule.dropout, dtype)

    def _run_in(self, other: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return, on this round's line, the runs and slots that its occupants have in another."""
        heads = self.heads
        slot = heads.slot[:, other]
        first, last = (
            self._tiles(self._on_line(run[:, other].gather(-1, slot))).unsqueeze(-1)
            for run in (heads.first, heads.last)
        )
        _, slot_of_key = self._pairs(self._on_line(slot.int()))
        return first, last, slot_of_key

    def _pairs(self, numbers: Int[Tensor, " line"]) -> tuple[Tensor, Tensor]:
        """Return per tile a number of its queries, as a column, and of its keys, as a row."""
        windows = self._with_margins(numbers).unfold(0, self.window_length, self.tile_length)
        return self._tiles(numbers).unsqueeze(-1), windows.unsqueeze(-2)

    def _on_line(self, numbers: Shaped[Tensor, "rows length ..."]) -> Tensor:
        """Lay numbers of positions out in this round's order."""
        return numbers.flatten(0, 1).index_select(0, self.source)

    def _at_positions(self, line: Shaped[Tensor, "line ..."]) -> Tensor:
        """Bring what lies on the line back into reading order."""
        return line.index_select(0, self.place).unflatten(0, self.shape)

    def _tiles(self, line: Shaped[Tensor, "line ..."]) -> Tensor:
        """Cut a line into its tiles."""
        return line.unflatten(0, (self.n_tiles, self.tile_length))

    def _with_margins(self, line: Shaped[Tensor, "line ..."]) -> Tensor:
        """Give the outermost windows room: zeros that no query sees."""
        if not self.before and not self.after:
            return line
        margins = (self.before * self.tile_length, self.after * self.tile_length)
        return torch.nn.functional.pad(line, (0, 0) * (line.dim() - 1) + margins)

    def _add_windows(self, line: Tensor, tiles: slice, windows: Tensor) -> None:
        """Add what each window holds to the places on the line that it covers."""
        step = self.tile_length
        for piece in range(self.before + 1 + self.after):
            start, stop = (tiles.start + piece) * step, (tiles.stop + piece) * step
            line[start:stop] += windows[:, piece * step : (piece + 1) * step].flatten(0, 1)
