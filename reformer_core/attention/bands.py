"""Slots laid out on a line and cut into bands: which keys a band of queries needs.

The positions of some heads stand on one *line*, row after row, each row in one round's sorted order
and filled up to a whole number of *bands*. What the queries of a band see is a run of slots around
it. A *piece* is some bands with a window of keys at one distance from them, both in whole bands.
The pieces of a line cover every run: what most bands reach is one piece for all of them, whose
windows overlap and are strided views, and what lies beyond is picked for the bands that reach it.
"""

import math
import operator
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from reformer_core.bucketing import BucketPlan

# More than this share of the bands are most: to pick them would cost what leaving them out saves.
_MOST = 0.5


class Layout(ABC):
    """Positions laid out as blocks of equal length: queries, and the keys that they may see.

    `place` says which position stands where. It has `before` and `after` blocks more than there are
    blocks of queries: they hold somebody, but nobody who is seen. Every block of queries is of one
    round; `rounds` says which, in ascending order.
    """

    before = after = 0
    first: Int[Tensor, "number length"]
    """The first slot that every query may see, counted from where its block starts."""
    last: Int[Tensor, "number length"]
    """The last one. A filler's run is empty."""
    filler: Bool[Tensor, "number length"] | None = None
    """Who is a filler, where all others see the whole of their block up to themselves."""

    def __init__(self, place: Int[Tensor, "blocks length"], rounds: Sequence[int]) -> None:
        self.place, self.rounds = place, rounds
        self.number, self.length = len(rounds), place.shape[1]
        self._picked: dict[str, Tensor] = {}

    def picked(
        self, name: str, table: Shaped[Tensor, " positions"]
    ) -> Shaped[Tensor, "blocks length 1"]:
        """Lay out a table's numbers, once for all pieces: a name always is of the same table."""
        if name not in self._picked:
            flat = table.index_select(0, self.place.flatten())
            self._picked[name] = flat.view(*self.place.shape, 1)
        return self._picked[name]

    @abstractmethod
    def pieces(self, pairs_at_once: int) -> Iterator["Piece"]:
        """Cut what is laid out into pieces of at most about `pairs_at_once` pairs."""

    def cut(self, distance: int, width: int, pairs_at_once: int) -> Iterator["Piece"]:
        """Give every block of queries the blocks of keys from a distance on, some at once."""
        at_once = max(1, pairs_at_once // (self.length**2 * width))
        for start in range(0, self.number, at_once):
            yield Piece(self, slice(start, min(start + at_once, self.number)), distance, width)


class Bands(Layout):
    """Rows of slots in sorted order, cut after every `band_length`."""

    def __init__(
        self,
        place: Int[Tensor, "rows length"],
        first: Int[Tensor, "rows length"],
        last: Int[Tensor, "rows length"],
        rounds: Sequence[int],
        plan: BucketPlan,
        band_length: int,
    ) -> None:
        rows, length = place.shape
        band_length = min(band_length, length)
        in_row = -(-length // band_length)
        number, filler = rows * in_row, (0, in_row * band_length - length)
        self.before, self.after = (
            min(in_row - 1, -(-slots // band_length)) for slots in _reach(plan)
        )
        margins = self.before * band_length, self.after * band_length
        place = pad(pad(place, filler).flatten(), margins)
        of_bands = [round for round in rounds for _ in range(in_row)]
        super().__init__(place.view(-1, band_length), of_bands)
        start = torch.arange(number, device=place.device).remainder_(in_row) * band_length
        self.first, self.last = (
            pad(run, filler, value=empty).view(number, band_length) - start.unsqueeze(-1)
            for run, empty in ((first, length), (last, -1))
        )

    def pieces(self, pairs_at_once: int) -> Iterator["Piece"]:
        """Cut the line into pieces of at most about `pairs_at_once` pairs."""
        sees = self.first <= self.last
        before, far_before = self._near_and_far(-self.first.where(sees, 0).amin(-1), self.before)
        beyond_band = self.last.where(sees, 0).amax(-1) - (self.length - 1)
        after, far_after = self._near_and_far(beyond_band, self.after)
        yield from self.cut(-before, before + 1 + after, pairs_at_once)
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
    """Some blocks of queries, and for each `width` blocks of keys, the first `distance` away.

    Where blocks follow each other their windows overlap, and the keys are laid out once. Whatever
    is laid out or computed is in a `Room`, and stays there until the next piece takes the name.
    """

    def __init__(self, layout: Layout, blocks: slice | Tensor, distance: int, width: int) -> None:
        self.layout, self.blocks, self.width = layout, blocks, width
        self.length, shift = layout.length, layout.before + distance
        self.alike = distance == 0 and width == 1  # queries and keys are the same rows
        if isinstance(blocks, slice):
            self.number = blocks.stop - blocks.start
            window = slice(blocks.start + shift, blocks.stop + shift + width - 1)
            own = slice(blocks.start + layout.before, blocks.stop + layout.before)
            self._own_among_keys = Seen(-distance, self.number)
        else:
            self.number = blocks.shape[0]
            window, own = blocks + shift, blocks + layout.before
            self._own_among_keys = None
        self._window, self._own = window, own
        self._keys = layout.place[window].flatten()
        self._queries = self._keys if self.alike else layout.place[own].flatten()
        self._blocks_of_keys = self.number + width - 1  # of one width where blocks are picked
        self._n_queries, self._n_keys = (
            some * self.length for some in (self.number, self._blocks_of_keys)
        )
        self._windows = Seen(0, self.number, width)
        self.slots_from = distance * self.length
        filler = layout.filler
        self.filler = None if filler is None else filler[blocks].unsqueeze(-1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many blocks of queries there are, how long they are, and how long their windows."""
        return self.number, self.length, self.width * self.length

    def run(self) -> tuple[Int[Tensor, "some length 1"], Int[Tensor, "some length 1"]]:
        """Return the first and the last slot that each query may see."""
        first, last = self.layout.first[self.blocks], self.layout.last[self.blocks]
        return first.unsqueeze(-1), last.unsqueeze(-1)

    def slots_of_queries(self) -> Int[Tensor, "length 1"]:
        """Count the queries' slots from where their block starts."""
        return torch.arange(self.length, device=self._keys.device).unsqueeze(-1)

    def slots_of_keys(self) -> Int[Tensor, " window"]:
        """Count the windows' slots from where the block of queries starts."""
        stop = self.slots_from + self.width * self.length
        return torch.arange(self.slots_from, stop, device=self._keys.device)

    def after_round(self, round: int) -> int:
        """Return the place of the first block of a later round among these."""
        rounds = self.layout.rounds
        if isinstance(self.blocks, slice):
            start, stop = self.blocks.start, self.blocks.stop
            return bisect_right(rounds, round, start, stop) - start
        return bisect_right([rounds[block] for block in self.blocks.tolist()], round)

    def of_queries(
        self, table: Shaped[Tensor, " positions"], name: str
    ) -> Shaped[Tensor, "some length 1"]:
        """Pick the queries' numbers, as columns."""
        return self.layout.picked(name, table)[self._own]

    def of_keys(
        self, table: Shaped[Tensor, " positions"], name: str
    ) -> Shaped[Tensor, "some 1 window"]:
        """Pick the numbers of the windows' keys, as rows."""
        picked = self.layout.picked(name, table)[self._window]
        return self._windows.transposed.of(picked, self.length, 1)

    def queries(
        self, table: Shaped[Tensor, "positions width"], room: "Room", name: str
    ) -> Shaped[Tensor, "some length width"]:
        """Lay out the queries' rows of a table."""
        width = table.shape[-1]
        torch.index_select(table, 0, self._queries, out=room(name, table, self._n_queries, width))
        return room(name, table, self.number, self.length, width)

    def keys(
        self, table: Shaped[Tensor, "positions width"], room: "Room", name: str
    ) -> tuple[Shaped[Tensor, "some window width"], Shaped[Tensor, "some width window"]]:
        """Lay out the windows' rows of a table, and return them upright and transposed."""
        width = table.shape[-1]
        torch.index_select(table, 0, self._keys, out=room(name, table, self._n_keys, width))
        shape = self._blocks_of_keys, self.length, width
        upright = room(name, table, *shape, seen=self._windows)
        return upright, room(name, table, *shape, seen=self._windows.transposed)

    def own(
        self, table: Shaped[Tensor, "positions width"], room: "Room", name: str
    ) -> Shaped[Tensor, "some length width"]:
        """Lay out the queries' rows of a table whose `keys` are laid out under the same name."""
        if self._own_among_keys is None:
            return self.queries(table, room, f"own {name}")
        shape = self._blocks_of_keys, self.length, table.shape[-1]
        return room(name, table, *shape, seen=self._own_among_keys)

    def add_to_queries(
        self,
        table: Shaped[Tensor, "positions width"],
        left: Shaped[Tensor, "some length window"],
        right: Shaped[Tensor, "some window width"],
        room: "Room",
    ) -> None:
        """Add the products left @ right to the queries' rows of a table."""
        width = right.shape[-1]
        torch.bmm(left, right, out=room("added", right, self.number, self.length, width))
        table.index_add_(0, self._queries, room("added", right, self._n_queries, width))

    def add_sums_to_queries(
        self, table: Shaped[Tensor, " positions"], numbers: Tensor, room: "Room"
    ) -> None:
        """Add the sums of numbers "some length window" over the windows to the queries' number."""
        torch.sum(numbers, -1, out=room("sums", numbers, self.number, self.length))
        table.index_add_(0, self._queries, room("sums", numbers, self._n_queries))

    def raise_queries(
        self, table: Shaped[Tensor, " positions"], numbers: Shaped[Tensor, "some length 1"]
    ) -> None:
        """Raise the queries' numbers to these."""
        table.scatter_reduce_(0, self._queries, numbers.flatten(), "amax")

    def add_to_keys(
        self,
        table: Shaped[Tensor, "positions width"],
        left: Shaped[Tensor, "some window length"],
        right: Shaped[Tensor, "some length width"],
        room: "Room",
    ) -> None:
        """Add the products left @ right, laid out by windows, to the windows' rows of a table."""
        width = right.shape[-1]
        blocks = room("added", right, self._blocks_of_keys, self.length, width)
        if self.width == 1:
            torch.bmm(left, right, out=blocks)
        else:
            blocks.zero_()
            for block, part in enumerate(left.split(self.length, dim=1)):
                blocks[block : block + self.number].baddbmm_(part, right)
        table.index_add_(0, self._keys, room("added", right, self._n_keys, width))


class Seen(NamedTuple):
    """A view of blocks: some of them, each with those after it up to a width in all."""

    start: int
    number: int
    width: int = 1
    turned: bool = False

    @property
    def transposed(self) -> "Seen":
        """The same view, its last two axes exchanged."""
        return self._replace(turned=True)

    def of(
        self, memory: Tensor, length: int, width: int
    ) -> Shaped[Tensor, "some window width"] | Shaped[Tensor, "some width window"]:
        """View contiguous blocks of `length` rows so, of which only the first need be given."""
        shape, strides = (self.width * length, width), (width, 1)
        if self.turned:
            shape, strides = shape[::-1], strides[::-1]
        block = length * width
        start = memory.storage_offset() + self.start * block
        return memory.as_strided((self.number, *shape), (block, *strides), start)


class Room:
    """Working memory by name, used again and again: fresh memory costs as much as filling it.

    Views of it are kept as well: there are thousands of them in a pass.
    """

    def __init__(self) -> None:
        self._named: dict[str, Tensor] = {}
        self._views: dict[str, dict[tuple, Tensor]] = {}

    def __call__(self, name: str, like: Tensor, *shape: int, seen: Seen | None = None) -> Tensor:
        """Return memory of a shape, or a view of it, holding whatever was last left there."""
        key = shape, seen
        view = self._views.setdefault(name, {}).get(key)
        if view is None:
            memory = self._memory(name, like, math.prod(shape))
            if seen is None:
                strides = accumulate(shape[:0:-1], operator.mul, initial=1)
                view = memory.as_strided(shape, tuple(strides)[::-1])
            else:
                view = seen.of(memory, *shape[1:])
            self._views[name][key] = view
        return view

    def _memory(self, name: str, like: Tensor, size: int) -> Tensor:
        """Return memory of at least a size; if it is new, the views of the old are forgotten."""
        if name not in self._named or self._named[name].numel() < size:
            self._named[name] = like.new_empty(size)
            self._views[name] = {}
        return self._named[name]


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
