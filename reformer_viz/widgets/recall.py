"""Explore what rounds of hashing find of what full attention looks at, as settings change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reformer_core.models import Trace
from reformer_viz.figures.recall import plot_recall, plotly_recall
from reformer_viz.measure.recall import FullLook, Recall, Setting, compare, look_at_all
from reformer_viz.measure.sequence import tensor_of
from reformer_viz.measure.sparsity_by_rule import lsh_layer, lsh_layers
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import choice, slider
from reformer_viz.widgets.panel import Panel

MOST_TOKENS = 4096
"""The longest sequence: full attention, which everything is held against, takes its square."""

_TOP_KEYS = (1, 2, 4, 8, 16, 32, 64)
_POWERS = tuple(2**k for k in range(1, 10))
_DEFAULTS = {"n_buckets": 64, "chunk_length": 32, "window": "chunks"}
_MADE_UP = 4, 512, 16  # heads, tokens, numbers a vector
_HEADS_LENGTH = 2.0  # of a made-up vector, so that full attention has favourites
GIVEN, RANDOM = "given", "random"


def explore_recall(
    qk: Trace | Tensor | np.ndarray | Sequence | None = None,
    values: Tensor | np.ndarray | Sequence | None = None,
    *,
    n_buckets: int | None = None,
    chunk_length: int | None = None,
    top_k: int = 16,
    window: str | None = None,
    source: str = GIVEN,
    rotations: int = 0,
    layer: int | None = None,
    n_hashes: Sequence[int] | int = (1, 2, 4, 8),
    causal: bool = True,
    padding: Tensor | np.ndarray | Sequence | None = None,
    place: Mapping | None = None,
    **rule,
) -> Panel:
    """Show what is found against the number of rounds, beside theory, as the settings change.

    `qk`, and `values` if the output's error is of interest, are "batch heads length d" or "heads
    length d" such as a traced layer's, copied as they are now; without them random vectors are made
    up. Or `qk` is what `model.trace(tokens)` returns: then vectors, values, padding and rule are
    those of one `layer` (None: the first with LSH attention), and so are the number of buckets,
    chunk length and window if not given. `source` "random" takes random directions of the same
    lengths in the vectors' place. `n_hashes` are the numbers of rounds to measure, and `rotations`
    which draw of rotations. `padding` is True where a token is padding: such a one is neither a
    query nor a key.

    Full attention is computed once and kept. What cannot be shown is a sentence in the picture's
    place.
    """
    layers = lsh_layers(qk) if isinstance(qk, Trace) else []
    if layers:
        layer = layers[0] if layer is None else layer
        defaults = {**_DEFAULTS, **qk.layers[layers[0]].plan.rule()}
    else:
        defaults = _DEFAULTS

    @cache
    def looked_at(layer: int | None) -> _Vectors:
        if isinstance(qk, Trace):
            return _of_layer(qk, layer)
        tensors = {"qk": qk, "values": values, "padding": padding}
        given = {
            name: None if tensor is None else tensor_of(name, tensor).clone()
            for name, tensor in tensors.items()
        }
        if qk is None:
            return _Vectors(**given | {"qk": _made_up()}, causal=causal, name="Made-up vectors")
        return _Vectors(**given, causal=causal, name="Given vectors")

    @cache
    def look(layer: int | None, source: str) -> FullLook:
        given = looked_at(layer)
        _check_length(given.qk)
        vectors = _turned(given.qk) if source == RANDOM else given.qk
        how = {"top_k": _TOP_KEYS[-1], "causal": given.causal, "padding": given.padding}
        return look_at_all(vectors, given.values, **how)

    def measure(
        *,
        source: str,
        n_buckets: int,
        chunk_length: int,
        top_k: int,
        window: str,
        rotations: int,
        layer: int | None = layer,
    ) -> Recall:
        if source not in (GIVEN, RANDOM):
            raise ValueError(f"source must be {GIVEN!r} or {RANDOM!r}, got {source!r}")
        given = looked_at(layer)
        return compare(
            look(layer, source).keep(top_k),
            [Setting(n_buckets, chunk_length)],
            n_hashes=n_hashes,
            seeds=(rotations,),
            window=window,
            label="Random vectors" if source == RANDOM else given.name,
            **{**given.rule, **rule},
        )

    first = {"n_buckets": n_buckets, "chunk_length": chunk_length, "window": window}
    first = {name: defaults[name] if value is None else value for name, value in first.items()}
    controls = {
        "n_buckets": choice("buckets", first["n_buckets"], _POWERS),
        "chunk_length": choice("chunk", first["chunk_length"], _POWERS),
        "top_k": choice("top keys", top_k, _TOP_KEYS),
        "window": choice("window", first["window"], ("chunks", "sliding")),
        "source": choice("vectors", source, [("made up" if qk is None else GIVEN, GIVEN), RANDOM]),
        "rotations": slider("rotations", rotations, 0, 20),
    }
    if layers:
        controls["layer"] = choice("layer", layer, layers)
    given = {"qk": qk, "values": values, "n_hashes": n_hashes, "causal": causal, "padding": padding}
    call = Call(explore_recall, {**given, **rule})
    return Panel(RecallView(), measure, controls, place, call)


@dataclass(frozen=True, kw_only=True)
class _Vectors:
    """Vectors to look at, and what is known of them."""

    qk: Tensor
    values: Tensor | None
    padding: Tensor | None
    causal: bool
    name: str
    rule: Mapping[str, Any] = field(default_factory=dict)


def _of_layer(trace: Trace, layer: int | None) -> _Vectors:
    """Take a layer's vectors out of a trace, and the rule by which it attended."""
    used = lsh_layer(trace, layer)
    rule = used.plan.rule()
    return _Vectors(
        qk=used.qk,
        values=used.values,
        padding=rule["padding"],
        causal=rule["causal"],
        name=f"Layer {layer}'s vectors",
        rule={name: rule[name] for name in ("chunks_before", "chunks_after", "within_bucket")},
    )


@dataclass(frozen=True)
class RecallView:
    """Curves against the number of rounds; their spread is that of the heads."""

    title = "What rounds of hashing find of full attention"

    def describe(self, data: Recall, place: Mapping) -> str:
        """Say what few and many rounds find."""
        return data.describe()

    def plotly(self, data: Recall, place: Mapping) -> Any:
        """Draw the curves with Plotly."""
        return plotly_recall(data)

    def plot(self, data: Recall, place: Mapping) -> Figure:
        """Draw the curves with Matplotlib."""
        return plot_recall(data)


def _check_length(vectors: Tensor) -> None:
    """Refuse a sequence that would keep the reader waiting."""
    if vectors.dim() >= 2 and vectors.shape[-2] > MOST_TOKENS:
        raise ValueError(
            f"vectors must be of at most {MOST_TOKENS:,} tokens to be explored, got "
            f"{vectors.shape[-2]:,}: cut them, or use measure_recall, which takes its time"
        )


def _made_up() -> Tensor:
    """Draw vectors where none are given."""
    vectors = torch.randn(_MADE_UP, generator=torch.Generator().manual_seed(0))
    return _HEADS_LENGTH * vectors


def _turned(vectors: Tensor) -> Tensor:
    """Turn every vector into a random direction, and leave its length."""
    drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)).to(vectors)
    return drawn * vectors.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)
