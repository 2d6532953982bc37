"""Explore what rounds of hashing find of what full attention looks at, as settings change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reformer_viz.figures.recall import plot_recall, plotly_recall
from reformer_viz.measure.recall import FullLook, Recall, Setting, compare, look_at_all
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import choice, slider
from reformer_viz.widgets.panel import Panel

MOST_TOKENS = 4096
"""The longest sequence: full attention, which everything is held against, takes its square."""

_TOP_KEYS = (1, 2, 4, 8, 16, 32, 64)
_POWERS = tuple(2**k for k in range(1, 10))
_MADE_UP = 4, 512, 16  # heads, tokens, numbers a vector
_HEADS_LENGTH = 2.0  # of a made-up vector, so that full attention has favourites
GIVEN, RANDOM = "given", "random"


def explore_recall(
    qk: Tensor | np.ndarray | None = None,
    values: Tensor | np.ndarray | None = None,
    *,
    n_buckets: int = 64,
    chunk_length: int = 32,
    top_k: int = 16,
    window: str = "chunks",
    source: str = GIVEN,
    rotations: int = 0,
    n_hashes: Sequence[int] = (1, 2, 4, 8),
    causal: bool = True,
    padding: Tensor | np.ndarray | None = None,
    place: Mapping | None = None,
    **rule,
) -> Panel:
    """Show what is found against the number of rounds, beside theory, as the settings change.

    `qk`, and `values` if the output's error is of interest, are "batch heads length d" or "heads
    length d" such as a traced layer's, copied as they are now; without them random vectors are made
    up. `source` "random" takes random directions of the same lengths in their place. `n_hashes` are
    the numbers of rounds to measure, and `rotations` which draw of rotations. `padding` is True
    where a token is padding: such a one is neither a query nor a key.

    Full attention is computed once and kept. What cannot be shown is a sentence in the picture's
    place.
    """
    given = _made_up() if qk is None else _copied(qk)
    given_values = None if values is None else _copied(values)
    given_padding = None if padding is None else _copied(padding)

    @cache
    def look(source: str) -> FullLook:
        _check_length(given)
        vectors = _turned(given) if source == RANDOM else given
        return look_at_all(
            vectors, given_values, top_k=_TOP_KEYS[-1], causal=causal, padding=given_padding
        )

    def measure(
        *, source: str, n_buckets: int, chunk_length: int, top_k: int, window: str, rotations: int
    ) -> Recall:
        return compare(
            look(source).keep(top_k),
            [Setting(n_buckets, chunk_length)],
            n_hashes=n_hashes,
            seeds=(rotations,),
            window=window,
            label=f"{source.capitalize()} vectors",
            **rule,
        )

    controls = {
        "n_buckets": choice("buckets", n_buckets, _POWERS),
        "chunk_length": choice("chunk", chunk_length, _POWERS),
        "top_k": choice("top keys", top_k, _TOP_KEYS),
        "window": choice("window", window, ("chunks", "sliding")),
        "source": choice("vectors", source, (GIVEN, RANDOM)),
        "rotations": slider("rotations", rotations, 0, 20),
    }
    call = Call(
        explore_recall,
        {
            "qk": qk,
            "values": values,
            "n_hashes": n_hashes,
            "causal": causal,
            "padding": padding,
            **rule,
        },
    )
    return Panel(RecallView(), measure, controls, dict(place or {}), call)


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


def _copied(vectors: Tensor | np.ndarray) -> Tensor:
    """Keep vectors as they are now."""
    return torch.as_tensor(vectors).detach().clone()


def _made_up() -> Tensor:
    """Draw vectors where none are given."""
    vectors = torch.randn(_MADE_UP, generator=torch.Generator().manual_seed(0))
    return _HEADS_LENGTH * vectors


def _turned(vectors: Tensor) -> Tensor:
    """Turn every vector into a random direction, and leave its length."""
    drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)).to(vectors)
    return drawn * vectors.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)
