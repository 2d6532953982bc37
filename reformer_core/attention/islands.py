"""Buckets that fit their window whole: squares of queries and keys with nothing beyond.

A run of slots is an *island* if nobody in it sees anybody outside and nobody outside sees it; where
attention stays within buckets these are the buckets, or what a window makes of them. A short island
is cheapest as one square, and islands of about the same size, of whatever round, are computed
together: their squares hold fewer pairs that nobody sees than bands, which are cut at fixed places.
Longer islands follow each other on a line of their own, for bands.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from reformer_core.attention.bands import Bands, Layout, Piece
from reformer_core.bucketing import BucketPlan

_LONGEST = 160
"""Longer islands are bands: their squares would hold more pairs than those do."""
_STEP = 16
"""Islands are padded to multiples of so many slots, and those of one multiple are one layout."""
_WORTH_IT = 1 << 15
"""In fewer slots the pairs that are saved cost less than looking for islands."""


class Islands(Layout):
    """Islands of about the same size, each padded to one block; nobody sees another block."""

    def __init__(
        self,
        line: "Line",
        starts: Int[Tensor, " number"],
        sizes: Int[Tensor, " number"],
        length: int,
    ) -> None:
        inside, starts = torch.arange(length), starts.unsqueeze(-1)
        slots = starts + torch.minimum(inside, sizes.unsqueeze(-1) - 1)
        super().__init__(line.place[slots], line.rounds(starts.squeeze(-1)))
        filler = inside >= sizes.unsqueeze(-1)
        if line.causal and torch.equal(line.first[slots[:, -1:]], starts.to(line.first)):
            self.filler = filler  # whose last slot sees the first one sees all that is before
            return
        self.first, self.last = (
            (run[slots] - starts).masked_fill_(filler, nobody)
            for run, nobody in ((line.first, length), (line.last, -1))
        )

    def pieces(self, pairs_at_once: int) -> Iterator[Piece]:
        """Cut what is laid out into pieces of at most about `pairs_at_once` pairs."""
        return self.cut(0, 1, pairs_at_once)


class Line:
    """All rounds of some rows of batch * heads behind each other, and the islands among them."""

    def __init__(
        self,
        place: Int[Tensor, "rounds_and_rows length"],
        first: Int[Tensor, "rounds_and_rows length"],
        last: Int[Tensor, "rounds_and_rows length"],
        rows: int,
        causal: bool,
    ) -> None:
        self.causal, length = causal, place.shape[1]
        self._slots_in_round = rows * length
        start = torch.arange(place.shape[0], dtype=first.dtype).unsqueeze(-1) * length
        self.place = place.flatten()
        self.first, self.last = ((run + start).flatten() for run in (first, last))
        slot = torch.arange(len(self.place), dtype=first.dtype)
        opens = (self.first >= slot).logical_and_(self.last.roll(1) < slot)
        opens.logical_or_(self.first > self.last)  # and nobody sees whoever sees nobody
        opens[::length] = True
        self.starts = opens.nonzero().squeeze(-1)
        self.sizes = torch.diff(self.starts, append=self.starts.new_tensor([len(slot)]))

    def rounds(self, slots: Int[Tensor, " some"]) -> list[int]:
        """Say which round each slot is of."""
        return slots.div(self._slots_in_round, rounding_mode="floor").tolist()

    def alone(self, islands: Bool[Tensor, " islands"]) -> Iterator[tuple[int, list[Tensor]]]:
        """Leave only some islands: for every round that has any its number, place, first, last."""
        slots = islands.repeat_interleave(self.sizes).nonzero().squeeze(-1)
        rounds = slots.div(self._slots_in_round, rounding_mode="floor")
        for round, number in enumerate(rounds.bincount().tolist()):
            if number:
                mine, slots = slots[:number], slots[number:]
                moved = mine - torch.arange(number)
                first, last = (run[mine] - moved for run in (self.first, self.last))
                yield round, [self.place[mine], first, last]


def layouts(
    place: Int[Tensor, "rows rounds length"],
    first: Int[Tensor, "rows rounds length"],
    last: Int[Tensor, "rows rounds length"],
    plan: BucketPlan,
    band_length: int,
) -> list[Layout]:
    """Lay out all rounds of some rows of batch * heads: every pair that one shows stands in one."""
    rows, n_rounds, _ = place.shape
    place, first, last = (part.transpose(0, 1).flatten(0, 1) for part in (place, first, last))
    if not plan.within_bucket or place.device.type != "cpu" or place.numel() < _WORTH_IT:
        rounds = [round for round in range(n_rounds) for _ in range(rows)]
        return [Bands(place, first, last, rounds, plan, band_length)]
    line = Line(place, first, last, rows, plan.causal)
    long = line.sizes > _LONGEST
    multiple = (line.sizes + (_STEP - 1)).div_(_STEP, rounding_mode="floor")
    multiple.masked_fill_(long | (line.sizes == 1), 0)  # whoever is alone sees nobody
    found: list[Layout] = []
    for blocks, number in enumerate(multiple.bincount().tolist()):
        if blocks and number:
            some = (multiple == blocks).nonzero().squeeze(-1)
            found.append(Islands(line, line.starts[some], line.sizes[some], blocks * _STEP))
    for round, alone in line.alone(long):
        found.append(Bands(*(part[None] for part in alone), [round], plan, band_length))
    return found
