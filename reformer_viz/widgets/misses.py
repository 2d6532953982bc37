"""Explore the price of a miss: answers by whether their key was seen, bits painted on a text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from ipywidgets import Widget
from matplotlib.figure import Figure
from torch import Tensor

from reformer_core.config import ReformerConfig
from reformer_core.models import ReformerLM
from reformer_core.tasks import Duplicate, Task
from reformer_core.tasks.duplicate import HELD_OUT
from reformer_viz.figures.misses import plot_miss_cost, plot_misses
from reformer_viz.figures.misses_plotly import plotly_miss_cost, plotly_misses
from reformer_viz.measure.microscope import as_tokens, copy_of
from reformer_viz.measure.misses import (
    MissCost,
    Misses,
    MissReading,
    measure_miss_cost,
    measure_misses,
)
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import choice, slider
from reformer_viz.widgets.panel import Panel

MOST_TOKENS = 1024
"""The longest text that is painted."""

_MOST_READ = 1 << 14  # tokens of Duplicate's sequences, all together
_WINDOWS = 16  # of a text's held-out ones
_LEAST_ROUNDS = 4


def explore_misses(
    model: ReformerLM,
    source: Task | str | Sequence[int] | np.ndarray | Tensor,
    *,
    n_hashes: int | None = None,
    layer: int | None = None,
    sequence: int | None = None,
    max_hashes: int | None = None,
    labels: Sequence[str] | None = None,
    place: Mapping | None = None,
) -> Panel:
    """Show what keys that no round saw cost a model: wrong answers, or bits of a text.

    `source` is Duplicate, where the needed key of every answer is known: for each position one sees
    whether it was seen and whether the answer was right, of one held-out `sequence` or (None) of
    all that are read. Or it is a text, of which every token is painted with what missed keys cost
    it: a string for a model of bytes, one sequence of tokens or rows of them, or a task of texts,
    whose held-out windows are the sequences. `labels` names the tokens of a single sequence.

    Measured are 1 to `max_hashes` rounds (None: the model's own number, and at least 4), of which
    `n_hashes` are shown (None: the model's own). With `layer` only that layer hashes, and the other
    LSH layers attend to all. A copy of the model is looked at, as it is now. What cannot be shown
    is a sentence in the picture's place.
    """
    config = model.config
    most = max(_LEAST_ROUNDS, config.n_hashes) if max_hashes is None else max_hashes
    measure_kind = _measured_answers if isinstance(source, Duplicate) else _measured_costs
    measured = measure_kind(copy_of(model), source, most, labels)

    def measure(*, n_hashes: int, layer: int | None, sequence: int | None = None) -> MissReading:
        return MissReading(of=measured(layer, sequence), n_hashes=n_hashes)

    return Panel(
        MissesView(),
        measure,
        {
            "n_hashes": slider(
                "rounds", min(config.n_hashes, most) if n_hashes is None else n_hashes, 1, most
            ),
            "layer": _layers(config, layer),
            **_sequences(source, sequence),
        },
        place,
        Call(
            explore_misses,
            {"model": model, "source": source, "max_hashes": max_hashes, "labels": labels},
        ),
    )


@dataclass(frozen=True)
class MissesView:
    """Answers by position, or a painted text."""

    title = "The price of a miss"

    def describe(self, data: MissReading, place: Mapping) -> str:
        """Say what seen and missed keys led to."""
        return data.describe()

    def plotly(self, data: MissReading, place: Mapping) -> Any:
        """Draw it with Plotly."""
        draw = plotly_misses if isinstance(data.of, Misses) else plotly_miss_cost
        return draw(data.of, data.n_hashes)

    def plot(self, data: MissReading, place: Mapping) -> Figure:
        """Draw it with Matplotlib."""
        draw = plot_misses if isinstance(data.of, Misses) else plot_miss_cost
        return draw(data.of, data.n_hashes)


def _measured_answers(
    model: ReformerLM, task: Duplicate, max_hashes: int, labels: Sequence[str] | None
) -> Callable[[int | None, int | None], Misses]:
    """Return what measures the answers of a layer, each layer once."""

    @cache
    def of_layer(layer: int | None) -> Misses:
        n_sequences = _n_sequences(task)
        return measure_misses(
            model, task, max_hashes=max_hashes, n_sequences=n_sequences, layer=layer
        )

    def measured(layer: int | None, sequence: int | None) -> Misses:
        if labels is not None:
            raise ValueError("labels must be None for Duplicate, got some: they name a text")
        misses = of_layer(layer)
        return misses if sequence is None else misses.of(sequence)

    return measured


def _measured_costs(
    model: ReformerLM, source: Any, max_hashes: int, labels: Sequence[str] | None
) -> Callable[[int | None, int | None], MissCost]:
    """Return what measures the costs of a sequence under a layer, each pair of them once."""

    @cache
    def measured(layer: int | None, sequence: int | None) -> MissCost:
        tokens = _tokens_of(source, sequence, model.config.vocab_size)
        return measure_miss_cost(model, tokens, max_hashes=max_hashes, labels=labels, layer=layer)

    return measured


def _tokens_of(source: Any, sequence: int | None, vocab_size: int) -> Tensor:
    """Return one sequence of a source, the first without a number."""
    if isinstance(source, Task):
        source = next(source.held_out(_WINDOWS)).tokens
    rows = _rows(source)
    sequence = 0 if sequence is None else sequence
    if not 0 <= sequence < len(rows):
        raise ValueError(
            f"sequence must be in 0..{len(rows) - 1}, got {sequence}: there are {len(rows)}"
        )
    tokens = as_tokens(rows[sequence], vocab_size)
    if len(tokens) > MOST_TOKENS:
        raise ValueError(
            f"the explorer paints at most {MOST_TOKENS:,} tokens, got {len(tokens):,}: give it a "
            f"part, such as tokens[:{MOST_TOKENS}]"
        )
    return tokens


def _n_sequences(source: Any) -> int:
    """Say how many sequences there are to choose from."""
    if isinstance(source, Duplicate):
        return max(1, min(HELD_OUT, _MOST_READ // source.length))
    if isinstance(source, Task):
        return len(next(source.held_out(_WINDOWS)).tokens)
    return len(_rows(source))


def _rows(source: Any) -> Any:
    """Return a text, or a sequence of tokens, as one row, and rows of them as they are."""
    return source if isinstance(source, Tensor | np.ndarray) and source.ndim == 2 else [source]


def _layers(config: ReformerConfig, layer: int | None) -> Widget:
    """Make the choice among the layers that hash."""
    lsh = [i for i in range(config.n_layers) if config.attention_of(i) == "lsh"]
    return choice("layers", layer, [("all hash", None), *((f"{i} alone", i) for i in lsh)])


def _sequences(source: Any, sequence: int | None) -> dict[str, Widget]:
    """Make the choice among sequences, where there are several."""
    count = _n_sequences(source)
    first = [("all", None)] if isinstance(source, Duplicate) else []
    if count == 1 and sequence is None:
        return {}
    if not first and sequence is None:
        sequence = 0
    options = [*first, *((str(number), number) for number in range(count))]
    return {"sequence": choice("sequence", sequence, options)}
