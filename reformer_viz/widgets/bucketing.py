"""Explore where hashing sends tokens, and whom they may then look at."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from ipywidgets import BoundedIntText, Button, FloatSlider, IntSlider, Widget
from matplotlib.figure import Figure
from torch import Tensor

from reformer_core.bucketing import plan_chunks
from reformer_viz import style
from reformer_viz.figures.bucketing import plot_bucketing
from reformer_viz.figures.bucketing_svg import draw_svg
from reformer_viz.measure.bucketing import Bucketing, measure_bucketing
from reformer_viz.measure.sequence import VectorSequence, make_sequence, take_sequence
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.panel import Panel

MOST_TOKENS = 2048
"""The longest sequence that a page draws: it looks at every pair of tokens."""

DEFAULT_NOISE, DEFAULT_SEED = 0.4, 152
"""A draw in which buckets differ in size and one is too large for its window, as in real use."""

_STYLE = {"description_width": "92px"}
_LAST_STEP = 4  # of bucketing_view.js: everything is drawn


def explore_bucketing(
    vectors: Tensor | np.ndarray | None = None,
    *,
    n_tokens: int = 64,
    n_buckets: int = 8,
    n_hashes: int = 4,
    chunk_length: int = 8,
    noise: float | int | None = None,
    labels: Iterable[str] | None = None,
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

    Hashing stays in the kernel, with random numbers of its own: no model and no global state is
    touched, so that one may look while a cell trains. What the window shows is answered in the
    page. What cannot be shown is a sentence in the picture's place.
    """

    @cache
    def sequence() -> VectorSequence:
        if vectors is None:
            return make_sequence(n_tokens, seed)
        return take_sequence(vectors, seed, labels)

    def measure(*, chunk_length: int, rotations: int, head: int = 0, **hashing) -> Bucketing:
        _check_length(sequence().vectors.shape[1])
        buckets = sequence().hash(head=head, seed=seed, draw=rotations, **hashing)
        plan = plan_chunks(
            buckets,
            n_buckets=hashing["n_buckets"],
            chunk_length=chunk_length,
            causal=causal,
            **rule,
        )
        return measure_bucketing(plan, labels=sequence().labels)

    if noise is None:
        noise = 0.0 if vectors is not None else DEFAULT_NOISE
    labels = None if labels is None else list(labels)
    controls = _controls(n_buckets, n_hashes, chunk_length, noise, rotations)
    if vectors is not None and vectors.ndim == 3 and len(vectors) > 1:
        controls["head"] = _number("head", head, 0, len(vectors) - 1)
    return Panel(
        BucketingView(lambda: sequence().origin),
        measure,
        controls,
        {"round": 0, "token": None, "step": _LAST_STEP, **(place or {})},
        Call(
            explore_bucketing,
            {"vectors": vectors, "n_tokens": n_tokens, "labels": labels, "seed": seed}
            | {"causal": causal, **rule},
        ),
    )


@dataclass(frozen=True)
class BucketingView:
    """One round of a `Bucketing`, and one token in it if the reader has chosen one."""

    origin: Callable[[], str]
    title = "Who sees whom: buckets, chunks and rounds"
    script = "bucketing_view.js"

    def ship(self, data: Bucketing) -> dict:
        """Return the buckets, the rule, and how to paint them."""
        colours = style.bucket_colours(data.n_buckets)
        return {
            "buckets": data.buckets.tolist(),
            "n_buckets": data.n_buckets,
            "chunk_length": data.chunk_length,
            "chunks_before": data.chunks_before,
            "chunks_after": data.chunks_after,
            "window": data.window,
            "within_bucket": data.within_bucket,
            "causal": data.causal,
            "padding": None if data.padding is None else data.padding.astype(int).tolist(),
            "labels": data.labels,
            "colours": colours,
            "text_colours": [style.text_on(colour) for colour in colours],
            "hatched": style.needs_hatching(data.n_buckets),
            "caption": self.origin(),
        }

    def describe(self, data: Bucketing, place: Mapping) -> str:
        """Say what the round does, or what it does with the chosen token."""
        token = place["token"]
        return data.describe(
            _nearest(place["round"], data.n_rounds),
            None if token is None else _nearest(token, data.length),
        )

    def draw_svg(self, data: Bucketing, place: Mapping) -> str:
        """Draw the round as SVG."""
        return draw_svg(data, _nearest(place["round"], data.n_rounds))

    def plot(self, data: Bucketing, place: Mapping) -> Figure:
        """Draw the round with Matplotlib."""
        return plot_bucketing(data, _nearest(place["round"], data.n_rounds))


def _nearest(index: int, size: int) -> int:
    """Keep the reader's place when the data became smaller, as the page does."""
    return max(0, min(size - 1, index))


def _check_length(length: int) -> None:
    if length > MOST_TOKENS:
        raise ValueError(
            f"the explorer draws at most {MOST_TOKENS:,} tokens, got {length:,}: give it a part, "
            f"such as vectors[..., :{MOST_TOKENS}, :]"
        )


def _controls(
    n_buckets: int, n_hashes: int, chunk_length: int, noise: float | int, rotations: int
) -> dict[str, Widget]:
    controls = {
        "n_buckets": _slider("buckets", n_buckets, 2, 32, step=2),
        "n_hashes": _slider("rounds", n_hashes, 1, 8),
        "chunk_length": _slider("chunk length", chunk_length, 2, 32),
        "noise": FloatSlider(
            description="noise", value=noise, min=0.0, max=max(2.0, noise), step=0.05, style=_STYLE
        ),
        "rotations": _number("rotations", rotations, 0, 9999),
    }
    again = Button(description="New rotations", tooltip="Hash with other random directions")

    def draw_again(_: Button) -> None:
        controls["rotations"].value += 1

    again.on_click(draw_again)
    return {**controls, "new_rotations": again}


def _slider(description: str, value: int, low: int, high: int, step: int = 1) -> IntSlider:
    """Make a slider that reaches its first value, also one that no plan can be made of."""
    low, high = min(low, value), max(high, value)
    return IntSlider(
        description=description, value=value, min=low, max=high, step=step, style=_STYLE
    )


def _number(description: str, value: int, low: int, high: int) -> BoundedIntText:
    return BoundedIntText(
        description=description,
        value=value,
        min=low,
        max=high,
        style=_STYLE,
        layout={"width": "180px"},
    )
