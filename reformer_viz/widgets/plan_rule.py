"""Where a reader stands in a plan: another rule for the same buckets, a round, perhaps a token."""

from collections.abc import Mapping
from typing import TypeVar

from reformer_viz.measure.bucketing import Bucketing
from reformer_viz.measure.microscope import Microscope

AS_PLANNED = {"rounds": None, "chunk_length": None, "window": None, "within_bucket": None}
"""What a place says of a plan's rule; None leaves what the plan was made with."""

Data = TypeVar("Data", Bucketing, Microscope)


def settle(data: Data, place: Mapping) -> tuple[Data, int, int | None]:
    """Return what a place shows of the data: the plan, the round and the token.

    A place that the data do not have, because they became smaller, is the nearest that they have.
    """
    rule = {name: place[name] for name in AS_PLANNED}
    if rule["rounds"] is not None:
        rule["rounds"] = _between(1, rule["rounds"], data.n_rounds)
    if rule["chunk_length"] is not None:
        longest = max(data.length, data.chunk_length)
        rule["chunk_length"] = _between(1, rule["chunk_length"], longest)
    if data.chunks_before + data.chunks_after == 0:  # a sliding window would see nobody
        rule["window"] = None
    looked_at, token = data.under(**rule), place["token"]
    return (
        looked_at,
        _between(0, place["round"], looked_at.n_rounds - 1),
        None if token is None else _between(0, token, data.length - 1),
    )


def _between(low: int, number: int, high: int) -> int:
    return max(low, min(high, number))
