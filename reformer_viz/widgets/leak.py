"""Explore whose view of earlier tokens the later ones change, under both rules of the window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from reformer_viz.figures.leak import plot_leak, plotly_leak
from reformer_viz.measure.hashing import Hash
from reformer_viz.measure.leak import Leak, measure_leak
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import number, slider
from reformer_viz.widgets.panel import Panel
from reformer_viz.widgets.plan_source import DEFAULT_SEED, PlanSource

MOST_TOKENS = 16_384
"""The longest sequence whose pairs are compared while a control moves."""

_BUCKETS = 4  # longer than the window, so that there is a leak to see


def explore_leak(
    vectors: Tensor | np.ndarray | Sequence | None = None,
    *,
    n_tokens: int = 256,
    n_buckets: int | None = None,
    n_hashes: int = 2,
    chunk_length: int = 16,
    cut: int | None = None,
    future: int = 0,
    noise: float | int | None = None,
    hash: Hash | None = None,
    seed: int = DEFAULT_SEED,
    causal: bool = True,
    rotations: int = 0,
    head: int = 0,
    place: Mapping | None = None,
    **rule,
) -> Panel:
    """Show which pairs of earlier tokens come and go when the tokens from `cut` on are others.

    The vectors, a `hash` of your own, and the rule of the window are given as to
    `explore_bucketing`; both kinds of window are shown, whatever `window` says. `cut` is half the
    length when not given, and `future` says which other tokens are put there. What cannot be shown
    is a sentence in the picture's place.
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

    def measure(*, cut: int, future: int, **chosen) -> Leak:
        return measure_leak(source.plan(**chosen), cut=cut, seed=future)

    half, last = _cuts(source)
    where = half if cut is None else cut
    controls = {
        "cut": slider("cut", where, 1, last),
        "future": number("other tokens", future, 0, 9999),
        **source.controls(
            n_buckets=_BUCKETS if n_buckets is None else n_buckets,
            n_hashes=n_hashes,
            chunk_length=chunk_length,
            noise=noise,
            rotations=rotations,
            head=head,
        ),
    }
    given = {name: value for name, value in source.given.items() if name != "labels"}
    return Panel(LeakView(), measure, controls, place, Call(explore_leak, given))


def _cuts(source: PlanSource) -> tuple[int, int]:
    """Return the middle of the sequence, and the last position that others may begin at."""
    try:
        length = source.sequence.vectors.shape[1]
    except ValueError:  # whoever measures says what is wrong with the vectors
        length = 2
    return max(1, length // 2), max(1, length - 1)


@dataclass(frozen=True)
class LeakView:
    """The pairs of earlier tokens that stay, come and go, under either rule."""

    title = "What later tokens change for earlier ones"

    def describe(self, data: Leak, place: Mapping) -> str:
        """Say how many earlier rows change under each rule."""
        return data.describe()

    def plotly(self, data: Leak, place: Mapping) -> Any:
        """Draw it with Plotly."""
        return plotly_leak(data)

    def plot(self, data: Leak, place: Mapping) -> Figure:
        """Draw it with Matplotlib."""
        return plot_leak(data)
