"""Explore where hashing sends tokens, and whom they may then look at."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from reformer_viz import style
from reformer_viz.figures.bucketing import LOOK, TOKENS, plot_bucketing
from reformer_viz.figures.bucketing_svg import draw_svg
from reformer_viz.measure.bucketing import Bucketing, measure_bucketing
from reformer_viz.measure.hashing import Hash
from reformer_viz.measure.pairs import rule_of
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.letters import MOST_LETTERS, check_letters, digits_for, letters
from reformer_viz.widgets.panel import Panel
from reformer_viz.widgets.plan_rule import AS_PLANNED, settle
from reformer_viz.widgets.plan_source import DEFAULT_SEED, PlanSource

MOST_TOKENS = 16_384
"""The longest sequence that a page draws: it looks at every pair that some round sees."""

HASHED = 8
"""Rounds that are hashed for the page to choose from."""

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
    touched, so that one may look while a cell trains. The number of rounds, the chunk length and
    the window rule are answered in the page, and are a part of `place`, where None stands for what
    is given here: all rounds that are hashed, which are at least eight, `chunk_length` and `rule`.
    What cannot be shown is a sentence in the picture's place.
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

    # Fewer than one is refused, where the vectors are hashed.
    hashed = max(HASHED, n_hashes) if n_hashes > 0 else n_hashes

    def measure(**chosen) -> Bucketing:
        plan = source.plan(n_hashes=hashed, chunk_length=chunk_length, **chosen)
        way_out = "show fewer rounds, or a part of the sequence"
        check_letters(plan.buckets.numel(), plan.n_buckets, MOST_LETTERS, way_out)
        return measure_bucketing(plan, labels=source.sequence.labels)

    controls = source.controls(
        n_buckets=DEFAULT_BUCKETS if n_buckets is None else n_buckets,
        noise=noise,
        rotations=rotations,
        head=head,
    )
    rounds = {"rounds": n_hashes} if hash is None else {}
    view = BucketingView(lambda: source.origin)
    call = Call(
        explore_bucketing, {**source.given, "n_hashes": n_hashes, "chunk_length": chunk_length}
    )
    return Panel(view, measure, controls, {**rounds, **(place or {})}, call)


@dataclass(frozen=True)
class BucketingView:
    """One round of a `Bucketing`, a token if the reader has chosen one, and another rule if any."""

    origin: Callable[[], str]
    title = "Who sees whom: buckets, chunks and rounds"
    script = "bucketing_view.js"
    place = MappingProxyType({"round": 0, "token": None, "step": LOOK, **AS_PLANNED})

    def ship(self, data: Bucketing) -> dict:
        """Return the buckets, the rule, and how to paint them."""
        colours = style.bucket_colours(data.n_buckets)
        return {
            "buckets": [letters(row, data.n_buckets) for row in data.buckets],
            "digits": digits_for(data.n_buckets),
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
        looked_at, round, token, _ = _settled(data, place)
        return looked_at.describe(round, token)

    def draw_svg(self, data: Bucketing, place: Mapping) -> str:
        """Draw the round as SVG."""
        return draw_svg(*_settled(data, place))

    def plot(self, data: Bucketing, place: Mapping) -> Figure:
        """Draw the round with Matplotlib."""
        return plot_bucketing(*_settled(data, place))


def _settled(data: Bucketing, place: Mapping) -> tuple[Bucketing, int, int | None, int]:
    """Return what a place shows of the data: the plan, round, token, and how far it goes."""
    return *settle(data, place), max(TOKENS, min(LOOK, place["step"]))
