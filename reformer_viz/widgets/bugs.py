"""The bug switchboard: switch a known mistake on and see it, or guess which one is on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from reformer_viz.figures.bugs import plot_bug, plotly_bug
from reformer_viz.measure.bugs import BUGS, DEFAULT_SEED, MYSTERIES, Riddle, measure_bug
from reformer_viz.measure.sequence import make_sequence, take_sequence
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import choice, slider
from reformer_viz.widgets.panel import Panel

_TOKENS = 32


def explore_bugs(
    qk: Tensor | np.ndarray | Sequence | None = None,
    *,
    bug: str = "none",
    guess: str | None = None,
    n_buckets: int = 4,
    n_hashes: int = 2,
    chunk_length: int = 4,
    seed: int = DEFAULT_SEED,
    place: Mapping | None = None,
) -> Panel:
    """Show LSH attention with one mistake switched on, or with a secret one to be guessed.

    `qk`, "length d_head" of at most 128 tokens, is made up if not given. `bug` is "none", a name of
    `reformer_viz.measure.bugs.BUGS`, or "mystery 1" to "mystery 7".
    """

    @cache
    def vectors() -> Tensor:
        source = make_sequence(_TOKENS, seed) if qk is None else take_sequence(qk, seed)
        return source.noisy(head=0, noise=0.3 if qk is None else 0)

    def measure(*, bug: str, guess: str | None, **rule: int) -> Riddle:
        hidden = MYSTERIES.get(bug, bug)
        if guess is not None and guess not in BUGS:
            raise ValueError(f"guess must be None or one of {', '.join(BUGS)}, got {guess!r}")
        symptoms = measure_bug(vectors(), hidden, seed=seed, **rule)
        return Riddle(chosen=bug, symptoms=symptoms, guess=guess)

    titles = [(known.title, name) for name, known in BUGS.items()]
    switches = [("none", "none"), *titles, *((name, name) for name in MYSTERIES)]
    controls = {
        "bug": choice("bug", bug, switches),
        "guess": choice("guess", guess, [("no guess", None), *titles]),
        "n_hashes": slider("rounds", n_hashes, 1, 4),
        "n_buckets": slider("buckets", n_buckets, 2, 8, step=2),
        "chunk_length": slider("chunk length", chunk_length, 2, 16),
    }
    call = Call(explore_bugs, {"qk": qk, "seed": seed})
    return Panel(BugView(), measure, controls, place, call)


@dataclass(frozen=True)
class BugView:
    """The sorting, the pairs and the errors, of whatever is switched on."""

    title = "Which bug is on?"

    def describe(self, data: Riddle, place: Mapping) -> str:
        """Say the symptoms, and whether the guess is right."""
        return data.describe()

    def plotly(self, data: Riddle, place: Mapping) -> Any:
        """Draw the symptoms with Plotly."""
        return plotly_bug(data.symptoms)

    def plot(self, data: Riddle, place: Mapping) -> Figure:
        """Draw the symptoms with Matplotlib."""
        return plot_bug(data.symptoms)
