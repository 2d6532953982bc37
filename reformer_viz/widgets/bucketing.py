"""Explore where hashing sends tokens, and whom they may then look at."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from reformer_viz import style
from reformer_viz.figures.bucketing import LOOK, plot_bucketing
from reformer_viz.figures.bucketing_svg import draw_svg
from reformer_viz.measure.bucketing import Bucketing, measure_bucketing
from reformer_viz.measure.hashing import Hash
from reformer_viz.measure.pairs import rule_of
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.panel import Panel
from reformer_viz.widgets.plan_source import DEFAULT_SEED, PlanSource

MOST_TOKENS = 16_384
"""The longest sequence that a page draws: it looks at every pair that some round sees."""

DEFAULT_BUCKETS = 8


def explore_bucketing(
    vectors: Tensor | np.ndarray | Sequence | None = None,
    *,
    n_tokens: int = 64,
    n_buckets: int | None = None,
    n_hashes: int = 4,
    chunk_length: int = 8,
    noise: float | int | None = None,
    labels: Iterable[str] | None = None,
    hash: Hash | None = None,
    seed: int = DEFAULT_SEED,
    causal: bool = True,
    rotations: int = 0,
    head: int = 0,
    place: Mapping | None = None,
    **rule,
) -> Panel:
    """Show a sequence, its buckets, sorted order and chunks, and who sees whom, round by round.

    Without `vectors` the sequence is made up: a word said twice, each letter a direction plus
    `noise`. With them, "length d_head" or "heads length d_head" such as a traced layer's `qk[0]`,
    it is yours, copied as it is now, and `noise` starts at 0. `labels` names the tokens; `causal`
    and `rule` are those of `plan_chunks`. `rotations` numbers the random directions, `head` is of
    yours, and `place` is where the reader stands.

    `hash` is a function of your own from vectors "batch heads length d_head" to whole numbers,
    "batch heads rounds length" or "batch heads length" (`reformer_viz.measure.hashing.Hash`). It
    takes the place of random rotations, and says how many rounds there are, and how many buckets
    unless `n_buckets` does.

    Hashing stays in the kernel, with random numbers of its own: no model and no global state is
    touched, so that one may look while a cell trains. What the window shows is answered in the
    page. What cannot be shown is a sentence in the picture's place.
    """
    source = PlanSource(
        vectors=vectors,
        n_tokens=n_tokens,
        labels=None if labels is None else list(labels),
        hash=hash,
        n_buckets=n_buckets,
        seed=seed,
        causal=causal,
        rule=rule,
        most_tokens=MOST_TOKENS,
    )

    def measure(**chosen) -> Bucketing:
        return measure_bucketing(source.plan(**chosen), labels=source.sequence.labels)

    controls = source.controls(
        n_buckets=DEFAULT_BUCKETS if n_buckets is None else n_buckets,
        n_hashes=n_hashes,
        chunk_length=chunk_length,
        noise=noise,
        rotations=rotations,
        head=head,
    )
    view = BucketingView(lambda: source.origin)
    return Panel(view, measure, controls, place, Call(explore_bucketing, source.given))


@dataclass(frozen=True)
class BucketingView:
    """One round of a `Bucketing`, and one token in it if the reader has chosen one."""

    origin: Callable[[], str]
    title = "Who sees whom: buckets, chunks and rounds"
    script = "bucketing_view.js"
    place = MappingProxyType({"round": 0, "token": None, "step": LOOK})

    def ship(self, data: Bucketing) -> dict:
        """Return the buckets, the rule, and how to paint them."""
        colours = style.bucket_colours(data.n_buckets)
        return {
            "buckets": data.buckets.tolist(),
            **rule_of(data),
            "padding": None if data.padding is None else data.padding.astype(int).tolist(),
            "labels": data.labels,
            "colours": colours,
            "text_colours": [style.text_on(colour) for colour in colours],
            "hatched": style.needs_hatching(data.n_buckets),
            "caption": self.origin(),
        }

    def describe(self, data: Bucketing, place: Mapping) -> str:
        """Say what the round does, or what it does with the chosen token."""
        round, token, _ = _settled(data, place)
        return data.describe(round, token)

    def draw_svg(self, data: Bucketing, place: Mapping) -> str:
        """Draw the round as SVG."""
        return draw_svg(data, *_settled(data, place))

    def plot(self, data: Bucketing, place: Mapping) -> Figure:
        """Draw the round with Matplotlib."""
        return plot_bucketing(data, *_settled(data, place))


def _settled(data: Bucketing, place: Mapping) -> tuple[int, int | None, int]:
    """Return round, token and step of a place, the nearest that the data have."""
    token = place["token"]
    return (
        _nearest(place["round"], data.n_rounds),
        None if token is None else _nearest(token, data.length),
        _nearest(place["step"], LOOK + 1),
    )


def _nearest(index: int, size: int) -> int:
    """Keep the reader's place when the data became smaller, as the page does."""
    return max(0, min(size - 1, index))
