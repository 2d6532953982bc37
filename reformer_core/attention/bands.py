"""One round laid out on a line and cut into bands: which keys a band of queries needs.

The positions of some heads stand on one *line*, row after row, each row in the round's sorted order
and filled up to a whole number of *bands*. What the queries of a band see is a run of slots around
it. A *piece* is some bands with a window of keys at one distance from them, both in whole bands.
The pieces of a round cover every run: what most bands reach is one piece for all of them, whose
windows overlap and are strided views, and what lies beyond is picked for the bands that reach it.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from reformer_core.bucketing import BucketPlan

# More than this share of the bands are most: to pick them would cost what leaving them out saves.
_MOST = 0.5


class Bands:
    """The layout of one round of some rows of batch * heads.

    `first` and `last` hold the run of every query, counted from where its band starts; a filler's
    is empty. `place` says which of the rows' positions stands where, with room for the outermost
    windows: blocks that hold somebody, but nobody who is seen.
    """

    def __init__(
        self,
        order: Int[Tensor, "rows length"],
        first: Int[Tensor, "rows length"],
        last: Int[Tensor, "rows length"],
        plan: BucketPlan,
        band_length: int,
        room: "Room",
    ) -> None:
        self.room = room
        rows, length = order.shape
        self.length = min(band_length, length)
        in_row = -(-length // self.length)
        self.number, filler = rows * in_row, (0, in_row * self.length - length)
        self.before, self.after = (
            min(in_row - 1, -(-slots // self.length)) for slots in _reach(plan)
        )
        row = torch.arange(rows, device=order.device).unsqueeze(-1)
        margins = self.before * self.length, self.after * self.length
        place = pad((pad(order, filler) + row * length).flatten(), margins)
        self.place = place.view(-1, self.length)
        start = torch.arange(self.number, device=order.device).remainder_(in_row) * self.length
        self.first, self.last = (
            pad(run, filler, value=empty).view(self.number, self.length) - start.unsqueeze(-1)
            for run, empty in ((first, length), (last, -1))
        )

    def bands(self, numbers: Shaped[Tensor, " positions"]) -> Shaped[Tensor, "bands band_length"]:
        """Lay numbers of positions out."""
        return self.inner(self.blocks(numbers))

    def blocks(self, numbers: Shaped[Tensor, " positions"]) -> Shaped[Tensor, "blocks band_length"]:
        """Lay numbers of positions out, with room for the outermost windows."""
        return numbers.index_select(0, self.place.flatten()).view_as(self.place)

    def raise_at_positions(
        self, table: Shaped[Tensor, " positions"], bands: Shaped[Tensor, "bands band_length"]
    ) -> None:
        """Raise the numbers of positions to what is laid out."""
        place = self.inner(self.place).flatten()
        table.scatter_reduce_(0, place, bands.flatten(), "amax")

    def inner(self, blocks: Shaped[Tensor, "blocks band_length"]) -> Tensor:
        """Return the bands among the blocks, without the room around them."""
        return blocks[self.before : self.before + self.number]

    def pieces(self, pairs_at_once: int) -> Iterator["Piece"]:
        """Cut the round into pieces of at most about `pairs_at_once` pairs."""
        sees = self.first <= self.last
        before, far_before = self._near_and_far(-self.first.where(sees, 0).amin(-1), self.before)
        beyond_band = self.last.where(sees, 0).amax(-1) - (self.length - 1)
        after, far_after = self._near_and_far(beyond_band, self.after)
        width = before + 1 + after
        at_once = max(1, pairs_at_once // (self.length**2 * width))
        for start in range(0, self.number, at_once):
            bands = slice(start, min(start + at_once, self.number))
            yield Piece(self, bands, -before, width)
        at_once = max(1, pairs_at_once // self.length**2)
        for sign, far in ((-1, far_before), (1, far_after)):
            for distance, bands in far.items():
                for some in bands.split(at_once):
                    yield Piece(self, some, sign * distance, 1)

    def _near_and_far(
        self, slots: Int[Tensor, " bands"], limit: int
    ) -> tuple[int, dict[int, Int[Tensor, " some"]]]:
        """Say how many bands away most bands see keys, and which bands do so farther away."""
        if slots.device.type != "cpu":  # to look would be to wait for the device
            return limit, {}
        distance = (slots + self.length - 1).div_(self.length, rounding_mode="floor")
        distance.clamp_(0, limit)
        reaching = distance.bincount(minlength=limit + 1).flip(0).cumsum(0).flip(0)
        near = int((reaching > _MOST * self.number).sum()) - 1
        farthest = int((reaching > 0).sum()) - 1
        return near, {
            far: (distance >= far).nonzero().squeeze(-1) for far in range(near + 1, farthest + 1)
        }


class Piece:
    """Some bands, and for each `width` blocks of keys, the first of them `distance` bands away.

    Where bands follow each other their windows overlap, and the keys are laid out once.
    """

    def __init__(self, layout: Bands, bands: slice | Tensor, distance: int, width: int) -> None:
        self.layout, self.bands, self.distance, self.width = layout, bands, distance, width
        shift = layout.before + distance
        if isinstance(bands, slice):
            self.number = bands.stop - bands.start
            self._blocks = slice(bands.start + shift, bands.stop + shift + width - 1)
            own = slice(bands.start + layout.before, bands.stop + layout.before)
        else:
            self.number = bands.shape[0]
            self._blocks, own = bands + shift, bands + layout.before
        self._queries, self._keys = (
            layout.place[own].flatten(),
            layout.place[self._blocks].flatten(),
        )

    def of_queries(self, bands: Shaped[Tensor, "bands band_length"]) -> Tensor:
        """Pick the queries' part of what is laid out, as a column: "some band_length 1"."""
        return bands[self.bands].unsqueeze(-1)

    def of_keys(self, blocks: Shaped[Tensor, "blocks band_length"]) -> Tensor:
        """Pick the windows' part of what is laid out, as a row: "some 1 window"."""
        return self._windows(blocks[self._blocks]).unsqueeze(-2)

    def slots_of_queries(self) -> Int[Tensor, "band_length 1"]:
        """Count the queries' slots from where their band starts."""
        return torch.arange(self.layout.length, device=self._keys.device).unsqueeze(-1)

    def slots_of_keys(self) -> Int[Tensor, " window"]:
        """Count the windows' slots from where the band starts."""
        start, length = self.distance * self.layout.length, self.width * self.layout.length
        return torch.arange(start, start + length, device=self._keys.device)

    def queries(self, table: Shaped[Tensor, "positions width"], name: str) -> Tensor:
        """Lay out the queries' rows of a table: "some band_length width"."""
        return self._lay_out(table, self._queries, name)

    def keys(self, table: Shaped[Tensor, "positions width"], name: str) -> Tensor:
        """Lay out the windows' rows of a table: "some window width"."""
        return self._windows(self._lay_out(table, self._keys, name))

    def queries_and_keys(
        self, table: Shaped[Tensor, "positions width"], name: str
    ) -> tuple[Tensor, Tensor]:
        """Lay out both: once where bands follow each other and see themselves."""
        blocks = self._lay_out(table, self._keys, name)
        if isinstance(self.bands, slice):
            own = blocks[-self.distance : -self.distance + self.number]
        else:
            own = self.queries(table, f"own {name}")
        return own, self._windows(blocks)

    def add_to_queries(self, table: Tensor, bands: Shaped[Tensor, "some band_length ..."]) -> None:
        """Add what is laid out by queries to their rows of a table."""
        table.index_add_(0, self._queries, bands.flatten(0, 1))

    def add_to_keys(
        self,
        table: Shaped[Tensor, "positions width"],
        left: Shaped[Tensor, "some window band_length"],
        right: Shaped[Tensor, "some band_length width"],
    ) -> None:
        """Add the products left @ right, laid out by windows, to the windows' rows of a table."""
        shape = self.number + self.width - 1, self.layout.length, right.shape[-1]
        blocks = self.layout.room("added to keys", right, *shape).zero_()
        for block, part in enumerate(left.split(self.layout.length, dim=1)):
            blocks[block : block + self.number].baddbmm_(part, right)
        table.index_add_(0, self._keys, blocks.flatten(0, 1))

    def _lay_out(self, table: Tensor, rows: Tensor, name: str) -> Tensor:
        into = self.layout.room(name, table, rows.shape[0], table.shape[-1])
        return torch.index_select(table, 0, rows, out=into).unflatten(0, (-1, self.layout.length))

    def _windows(self, blocks: Shaped[Tensor, "blocks band_length ..."]) -> Tensor:
        """View blocks of keys as the window of each band: "some window ..."."""
        length, *rest = blocks.shape[1:]
        return blocks.as_strided((self.number, self.width * length, *rest), blocks.stride())


class Room:
    """Working memory by name, used again and again: fresh memory costs as much as filling it."""

    def __init__(self) -> None:
        self._named: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Return memory of a shape, holding whatever was last left there."""
        size = math.prod(shape)
        if name not in self._named or self._named[name].numel() < size:
            self._named[name] = like.new_empty(size)
        return self._named[name][:size].view(shape)


def _reach(plan: BucketPlan) -> tuple[int, int]:
    """Return how many slots before and after its own a query can see at most."""
    before, after = (
        plan.chunk_length * chunks for chunks in (plan.chunks_before, plan.chunks_after)
    )
    if plan.window == "chunks":  # and the rest of its own chunk
        before, after = before + plan.chunk_length - 1, after + plan.chunk_length - 1
    elif plan.causal:
        after = 0
    if plan.causal and plan.within_bucket:
        after = 0
    return before, after
