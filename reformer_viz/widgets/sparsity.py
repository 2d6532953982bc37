"""Explore who sees whom: which round sees a pair first, and what full attention would weigh it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from reformer_core.models import Trace
from reformer_viz import style
from reformer_viz.figures.sparsity import Sorted, plot_sparsity, round_colours
from reformer_viz.figures.sparsity_svg import draw_svg, weight_levels
from reformer_viz.measure.pairs import plan_by, rule_of
from reformer_viz.measure.sequence import VectorSequence, make_sequence, take_sequence
from reformer_viz.measure.sparsity import FullWeights, Sparsity
from reformer_viz.measure.sparsity_by_rule import (
    READING,
    WINDOWS,
    SparsityByRule,
    full_weights,
    lsh_layer,
    lsh_layers,
    measure_sparsity_by_rule,
)
from reformer_viz.measure.words import count, in_millionths, in_percent
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import heads, noise_and_rotations, number, slider
from reformer_viz.widgets.panel import Panel
from reformer_viz.widgets.plan_source import DEFAULT_NOISE, DEFAULT_SEED

MOST_TOKENS = 16_384
"""The longest sequence that a page draws: it lists every pair that a round sees."""

HASHED = 8
"""Rounds that are hashed for the page to choose from."""

_LEVELS = 32
_DIGITS = "0123456789abcdefghijklmnopqrstuv"


def explore_sparsity(
    source: Trace | Tensor | np.ndarray | Sequence | None = None,
    *,
    n_tokens: int = 64,
    n_buckets: int = 8,
    n_hashes: int = 4,
    chunk_length: int = 8,
    noise: float | int | None = None,
    layer: int | None = None,
    head: int = 0,
    labels: Iterable[str] | None = None,
    seed: int = DEFAULT_SEED,
    causal: bool = True,
    rotations: int = 0,
    place: Mapping | None = None,
    **rule,
) -> Panel:
    """Show who sees whom, coloured by the round that saw the pair first, beside full attention.

    `source` is what `model.trace(tokens)` returns: then the plan is the one that attention used,
    of one `layer` (None: the first with LSH attention) and `head`, of the batch's first sequence.
    Or it is vectors, "length d_head" or "heads length d_head", which are hashed here with random
    rotations; without it the sequence is made up: a word said twice, each letter a direction plus
    `noise`. `labels` names the tokens; `causal` and `rule` are those of `plan_chunks`. `rotations`
    numbers the random directions, and `place` is where the reader stands.

    The number of rounds, chunk length, window rule and order are answered in the page, up to 16,384
    tokens; above 1,024, neighbours share cells. What cannot be shown is a sentence in its place.
    """
    labels = None if labels is None else list(labels)
    given = {"source": source, "labels": labels, "seed": seed}
    if isinstance(source, Trace):
        call = Call(explore_sparsity, given)
        return _explore_trace(source, layer, head, labels, seed, place, call)

    @cache
    def sequence() -> VectorSequence:
        if source is None:
            return make_sequence(n_tokens, seed)
        return take_sequence(source, seed, labels)

    @lru_cache(maxsize=1)  # tens of megabytes at the greatest length
    def weights(head: int) -> FullWeights:
        return full_weights(sequence().vectors[head], causal, seed)

    def measure(*, n_buckets: int, noise: float, rotations: int, head: int = 0) -> SparsityByRule:
        hashing = {"n_buckets": n_buckets, "n_hashes": max(HASHED, n_hashes), "noise": noise}
        vectors = sequence().vectors
        _check_length(vectors.shape[1])
        buckets = sequence().hash(head=head, seed=seed, draw=rotations, **hashing)
        plan = plan_by(
            buckets, n_buckets=n_buckets, chunk_length=chunk_length, causal=causal, **rule
        )
        return measure_sparsity_by_rule(
            plan,
            vectors[None, [head]],
            chunk_lengths=_offered(chunk_length),
            labels=sequence().labels,
            seed=seed,
            full=weights(head),
        )

    if noise is None:
        noise = 0.0 if source is not None else DEFAULT_NOISE
    controls = {
        "n_buckets": slider("buckets", n_buckets, 2, 32, step=2),
        **noise_and_rotations(noise, rotations),
        **heads(sequence, head),
    }
    given |= {"n_tokens": n_tokens, "n_hashes": n_hashes, "chunk_length": chunk_length}
    call = Call(explore_sparsity, given | {"causal": causal, **rule})
    place = {"rounds": n_hashes, **(place or {})}
    return Panel(SparsityView(lambda: sequence().origin), measure, controls, place, call)


def _explore_trace(
    trace: Trace,
    layer: int | None,
    head: int,
    labels: list[str] | None,
    seed: int,
    place: Mapping | None,
    call: Call,
) -> Panel:
    """Show the plans that a model's LSH layers used."""
    lsh = lsh_layers(trace)
    layer = next(iter(lsh), 0) if layer is None else layer

    def measure(*, layer: int, head: int) -> SparsityByRule:
        used = lsh_layer(trace, layer)
        _check_length(used.plan.buckets.shape[-1])
        return measure_sparsity_by_rule(
            used.plan,
            used.qk,
            head=head,
            chunk_lengths=_offered(used.plan.chunk_length),
            labels=labels,
            seed=seed,
        )

    n_heads = trace.layers[0].values.shape[1]
    controls = {
        "layer": number("layer", layer, 0, len(trace.layers) - 1),
        "head": number("head", head, 0, n_heads - 1),
    }
    layers = count(len(trace.layers), "layer")
    said = f"A model's own plan: LSH attention in {len(lsh)} of {layers}."
    return Panel(SparsityView(lambda: said), measure, controls, place, call)


@dataclass(frozen=True)
class SparsityView:
    """A `SparsityByRule` under the rule, the number of rounds and the order that a reader chose.

    In a place, None stands for the data's own: its rule, all its rounds.
    """

    origin: Callable[[], str]
    title = "Who sees whom, and which round saw it first"
    script = "sparsity_view.js"
    place = MappingProxyType(
        {
            "rounds": None,
            "chunk_length": None,
            "window": None,
            "order": READING,
            "row": None,
            "column": None,
        }
    )

    def ship(self, data: SparsityByRule) -> dict:
        """Return the buckets, the rule, a small picture of the weights, and what rules find."""
        plan, mass = data.plan, data.masses[data.plan.window, data.plan.chunk_length]
        levels, top = weight_levels(mass.weights, _LEVELS)
        padding, colours = plan.padding, round_colours(data.n_rounds)
        return {
            "buckets": plan.buckets[0, 0].tolist(),
            **rule_of(plan),
            "padding": None if padding is None else padding[0].int().tolist(),
            "labels": data.labels,
            "length": data.grid.length,
            "per_cell": data.grid.per_cell,
            "cells": data.grid.n_cells,
            "rounds": data.n_rounds,
            "chunk_lengths": data.chunk_lengths,
            "mass": {window: _found(data, window) for window in WINDOWS},
            "drawn": f"{len(mass.queries):,} of {mass.n_askers:,}" if mass.sampled else None,
            "weights": ["".join(" " if x < 0 else _DIGITS[x] for x in row) for row in levels],
            "lightest": in_percent(round(top, 4)),
            "top": round(top, 4),
            "per_weight": mass.grid.per_cell,
            "scale": style.scale_colours(_LEVELS),
            "colours": colours,
            "text_colours": [style.text_on(colour) for colour in colours],
            "hatched": style.needs_hatching(data.n_rounds),
            "caption": self.origin(),
        }

    def describe(self, data: SparsityByRule, place: Mapping) -> str:
        """Say what the rounds see, find and cost, or which of them see the chosen pair."""
        rule, rounds, order = _settled(data, place)
        cell = _cell(data, place)
        if cell is None:
            return data.under(*rule).describe(rounds)
        return data.describe_cell(*rule, rounds, order, *cell)

    def draw_svg(self, data: SparsityByRule, place: Mapping) -> str:
        """Draw it as SVG."""
        return draw_svg(*_shown(data, place))

    def plot(self, data: SparsityByRule, place: Mapping) -> Figure:
        """Draw it with Matplotlib."""
        return plot_sparsity(*_shown(data, place))


def _shown(
    data: SparsityByRule, place: Mapping
) -> tuple[Sparsity, int, Sorted | None, tuple[int, int] | None]:
    """Return what a place shows of the data: rounds, an order if not the text's, and a cell."""
    rule, rounds, order = _settled(data, place)
    sorting = None if order == READING else Sorted(order, data.cells(*rule, order))
    return data.under(*rule), rounds, sorting, _cell(data, place)


def _cell(data: SparsityByRule, place: Mapping) -> tuple[int, int] | None:
    """Return row and column of the chosen cell, the nearest that the data have."""
    if place["row"] is None or place["column"] is None:
        return None
    return tuple(max(0, min(data.grid.n_cells - 1, place[axis])) for axis in ("row", "column"))


def _settled(data: SparsityByRule, place: Mapping) -> tuple[tuple, int, int]:
    """Keep the reader's place where the data became smaller, as the page does."""
    window, chunk_length = place["window"], place["chunk_length"]
    if window not in WINDOWS:
        window = data.plan.window
    if chunk_length not in data.chunk_lengths:
        chunk_length = data.plan.chunk_length
    rounds = data.n_rounds if place["rounds"] is None else place["rounds"]
    order = max(READING, min(data.n_rounds - 1, place["order"]))
    return (window, chunk_length), max(1, min(data.n_rounds, rounds)), order


def _found(data: SparsityByRule, window: str) -> list[list[list[int]]]:
    """List, by chunk length and number of rounds, the weight found and its standard error."""
    numbers = range(1, data.n_rounds + 1)
    masses = [data.masses[window, chunk_length] for chunk_length in data.chunk_lengths]
    return [
        [[in_millionths(m.share(n)), in_millionths(m.error(n))] for n in numbers] for m in masses
    ]


def _offered(chunk_length: int) -> list[int]:
    """Offer chunk lengths around one's own: a quarter, a half, twice, four times."""
    return [length for length in (chunk_length // 4, chunk_length // 2) if length] + [
        2 * chunk_length,
        4 * chunk_length,
    ]


def _check_length(length: int) -> None:
    if length > MOST_TOKENS:
        raise ValueError(
            f"the explorer draws at most {MOST_TOKENS:,} tokens, got {length:,}: give it a part, "
            f"or draw them all with plot_sparsity(measure_sparsity(plan, qk))"
        )
