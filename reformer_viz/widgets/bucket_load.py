"""Explore how evenly buckets fill, and which pairs the longest ones lose to the window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from reformer_viz.figures.bucket_load import plot_bucket_load, plotly_bucket_load
from reformer_viz.measure.bucket_load import BucketLoad, measure_bucket_load
from reformer_viz.measure.hashing import Hash
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.panel import Panel
from reformer_viz.widgets.plan_source import DEFAULT_SEED, PlanSource

MOST_TOKENS = 65_536
"""The longest sequence that is hashed and counted while a control moves."""

_BUCKETS = 32


def explore_bucket_load(
    vectors: Tensor | np.ndarray | Sequence | None = None,
    *,
    n_tokens: int = 1024,
    n_buckets: int | None = None,
    n_hashes: int = 4,
    chunk_length: int = 32,
    noise: float | int | None = None,
    hash: Hash | None = None,
    seed: int = DEFAULT_SEED,
    causal: bool = True,
    rotations: int = 0,
    head: int = 0,
    place: Mapping | None = None,
    **rule,
) -> Panel:
    """Show how many tokens buckets hold, the longest ones, and the pairs that they lose.

    The arguments are those of `explore_bucketing`: vectors of your own or made-up ones, a `hash` of
    your own or random rotations, and the rule of the window.
    """
    source = PlanSource(
        vectors=vectors,
        n_tokens=n_tokens,
        labels=None,
        hash=hash,
        n_buckets=n_buckets,
        seed=seed,
        causal=causal,
        rule=rule,
        most_tokens=MOST_TOKENS,
    )

    def measure(**chosen) -> BucketLoad:
        return measure_bucket_load(source.plan(**chosen))

    controls = source.controls(
        n_buckets=_BUCKETS if n_buckets is None else n_buckets,
        n_hashes=n_hashes,
        chunk_length=chunk_length,
        noise=noise,
        rotations=rotations,
        head=head,
    )
    given = {name: value for name, value in source.given.items() if name != "labels"}
    call = Call(explore_bucket_load, given)
    return Panel(BucketLoadView(), measure, controls, place, call)


@dataclass(frozen=True)
class BucketLoadView:
    """A histogram of sizes, the longest buckets, and the share of pairs that each loses."""

    title = "How evenly buckets fill"

    def describe(self, data: BucketLoad, place: Mapping) -> str:
        """Say how unequal the buckets are, and what the longest ones lose."""
        return data.describe()

    def plotly(self, data: BucketLoad, place: Mapping) -> Any:
        """Draw it with Plotly."""
        return plotly_bucket_load(data)

    def plot(self, data: BucketLoad, place: Mapping) -> Figure:
        """Draw it with Matplotlib."""
        return plot_bucket_load(data)
