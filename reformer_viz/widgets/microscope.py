"""Explore one head of a trained model: its text, sorted order, chunks and matrix, all linked."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch
from ipywidgets import BoundedIntText, Button, Dropdown, Textarea, Widget
from matplotlib.figure import Figure
from torch import Tensor

from reformer_core.models import ReformerLM
from reformer_viz import style
from reformer_viz.figures.microscope import plot_microscope
from reformer_viz.figures.microscope_svg import draw_svg
from reformer_viz.measure.microscope import (
    HALF_PERCENTS,
    N_BYTES,
    Microscope,
    Specimen,
    Weights,
    copy_of,
    take_specimen,
)
from reformer_viz.measure.pairs import rule_of
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.panel import Panel
from reformer_viz.widgets.plan_rule import AS_PLANNED, settle

MOST_TOKENS = 16_384
"""The longest sequence that a page still answers for at once."""

_MOST_WEIGHTS, _MOST_OF_A_QUERY = 1 << 17, 64
"""What a page stores: so many weights, the heaviest of every query, and no more of one query."""

_STYLE = {"description_width": "64px"}


def explore_model(
    model: ReformerLM,
    tokens: str | Sequence[int] | np.ndarray | Tensor,
    *,
    layer: int | None = None,
    head: int = 0,
    rotations: int = 0,
    encode: Callable[[str], Sequence[int] | Tensor] | None = None,
    decode: Callable[[list[int]], str] | None = None,
    padding: Sequence | np.ndarray | Tensor | None = None,
    place: Mapping | None = None,
) -> Panel:
    """Look at what a model's LSH attention does with a sequence: who sees whom, with what weight.

    Choose a token, and its bucket-mates light up in the text, in sorted order and in the matrix:
    those that its window shows, those that it loses, and those that other rounds find. The window
    rule, the chunk length and the number of rounds can be changed in the page, which then shows
    what the same buckets would have led to; layer, head, rotations and text ask the model.

    A copy of the model is looked at, as it is now and evaluating, so that one may go on training.
    `tokens` are numbers, or text for a model of bytes; other models take text when `encode` turns
    it into numbers. `decode` says what to call a list of one token. `padding` is True where one of
    `tokens` is padding; a text that is typed has none. `rotations` are evaluation's,
    0, or those of a step of training. `place` is where the reader stands. What cannot be shown is
    a sentence in the picture's place.
    """
    looked_at = copy_of(model)
    text = _text_of(tokens, model.config.vocab_size, encode, decode)

    @lru_cache(maxsize=2)
    def rotated(rotations: int) -> ReformerLM:
        return copy_of(looked_at, rotations) if rotations else looked_at

    @lru_cache(maxsize=4)
    def specimen(typed: str | None, rotations: int) -> Specimen:
        given, padded = (tokens, padding) if typed == text else (typed, None)
        if isinstance(given, str) and encode is not None:
            given = encode(given)
        _check_length(given)
        return take_specimen(rotated(rotations), given, padding=padded, decode=decode)

    def measure(
        *, layer: int | None, head: int, rotations: int, text: str | None = None
    ) -> Microscope:
        return specimen(text, rotations).look(layer, head)

    return Panel(
        MicroscopeView(),
        measure,
        _controls(model, layer, head, rotations, text),
        place,
        _ModelCall(
            explore_model,
            {
                "model": model,
                "tokens": tokens,
                "encode": encode,
                "decode": decode,
                "padding": padding,
            },
            text,
        ),
    )


@dataclass(frozen=True)
class _ModelCall(Call):
    """The line of code, in which a text that was typed stands for the tokens."""

    text: str | None

    def arguments(self, values: Mapping) -> str:
        typed = {"tokens": values["text"]} if values.get("text") != self.text else {}
        others = {name: value for name, value in values.items() if name != "text"}
        return super().arguments({**typed, **others})


@dataclass(frozen=True)
class MicroscopeView:
    """One head, one round of it, a token if the reader has chosen one, and another rule if any."""

    title = "The microscope: what one head does with a text"
    script = "microscope_view.js"
    place = MappingProxyType({"round": 0, "token": None, **AS_PLANNED})

    def ship(self, data: Microscope) -> dict:
        """Return the buckets, the model's own rule, and how to paint them."""
        colours = style.bucket_colours(data.n_buckets)
        return {
            "buckets": data.buckets.tolist(),
            **rule_of(data),
            "padding": None if data.padding is None else data.padding.astype(int).tolist(),
            "layer": data.layer,
            "head": data.head,
            "labels": data.labels,
            "colours": colours,
            "text_colours": [style.text_on(colour) for colour in colours],
            "accent": style.PALETTE[0],
            "hatched": style.needs_hatching(data.n_buckets),
            "caption": _caption(data),
        }

    def ship_late(self, data: Microscope) -> dict:
        """Return the heaviest weights of every query, packed: half percents, a byte each."""
        most = max(1, min(_MOST_OF_A_QUERY, _MOST_WEIGHTS // data.length))
        return {**_packed(data.weights, most), "most": most}

    def answer(self, data: Microscope, token: int) -> dict:
        """Return all weights of one query, of which a page of a long text holds only some."""
        keys, shares = data.weights_of(token)
        alone = Weights(starts=np.array([0, len(keys)]), keys=keys, shares=shares)
        return {"weights": alone.heaviest(0, HALF_PERCENTS)}

    def describe(self, data: Microscope, place: Mapping) -> str:
        """Say what the round does, or what it does with the chosen token."""
        looked_at, round, token = settle(data, place)
        return looked_at.describe(round, token)

    def draw_svg(self, data: Microscope, place: Mapping) -> str:
        """Draw the round as SVG."""
        return draw_svg(*settle(data, place))

    def plot(self, data: Microscope, place: Mapping) -> Figure:
        """Draw the round with Matplotlib."""
        return plot_microscope(*settle(data, place))


def _packed(weights: Weights, most: int) -> dict:
    """Pack the heaviest pairs of every query, none of 0 half percents, in descending order."""
    halves = weights.half_percents.astype(np.int64)
    query = np.repeat(np.arange(len(weights.starts) - 1), np.diff(weights.starts))
    order = np.lexsort((weights.keys, -halves, query))  # within a query, the heaviest first
    rank = np.arange(len(order)) - weights.starts[query]
    kept = order[(rank < most) & (halves[order] > 0)]
    counts = np.bincount(query[kept], minlength=len(weights.starts) - 1)
    return {
        "counts": _as_text(counts, "u1"),
        "keys": _as_text(weights.keys[kept], "<u2"),
        "halves": _as_text(halves[kept], "u1"),
    }


def _as_text(numbers: np.ndarray, dtype: str) -> str:
    return b64encode(numbers.astype(dtype).tobytes()).decode()


def _caption(data: Microscope) -> str:
    others = ", ".join(f"{layer} {kind}" for layer, kind in enumerate(data.layers))
    return (
        f"A copy of the model, evaluating. Its layers: {others}. Weights are of one softmax over "
        f"the keys of all rounds, in half percents."
    )


def _text_of(
    tokens: str | Sequence[int] | np.ndarray | Tensor,
    vocab_size: int,
    encode: Callable | None,
    decode: Callable | None,
) -> str | None:
    """Return the text to begin with where text can be typed, else None.

    Tokens that no text has are left out here: what is looked at are the tokens, and it says so.
    """
    if isinstance(tokens, str):
        return tokens
    if encode is None and vocab_size != N_BYTES:
        return None
    numbers = torch.as_tensor(tokens).flatten().tolist()
    if decode is None:
        numbers = [n for n in numbers if isinstance(n, int) and n in range(N_BYTES)]
        return bytes(numbers).decode(errors="replace") if encode is None else ""
    try:
        return decode(numbers)
    except ValueError:
        return ""


def _check_length(tokens: str | Sequence[int] | np.ndarray | Tensor) -> None:
    length = len(tokens.encode()) if isinstance(tokens, str) else torch.as_tensor(tokens).numel()
    if length > MOST_TOKENS:
        raise ValueError(
            f"the explorer draws at most {MOST_TOKENS:,} tokens, got {length:,}: give it a part, "
            f"such as tokens[:{MOST_TOKENS}]"
        )


def _controls(
    model: ReformerLM, layer: int | None, head: int, rotations: int, text: str | None
) -> dict[str, Widget]:
    """Make controls that reach their first values, also those that cannot be shown."""
    config = model.config
    lsh = [i for i in range(config.n_layers) if config.attention_of(i) == "lsh"]
    layer = lsh[0] if layer is None and lsh else layer
    layers = lsh if layer in lsh else [*lsh, layer]
    controls = {
        "layer": Dropdown(
            description="layer",
            options=[("none" if i is None else f"{i}", i) for i in layers],
            value=layer,
            style=_STYLE,
            layout={"width": "140px"},
        ),
        "head": _number("head", head, min(0, head), max(config.n_heads - 1, head)),
        "rotations": _number("rotations", rotations, min(0, rotations), 9999),
    }
    again = Button(description="New rotations", tooltip="Hash with those of another training step")

    def draw_again(_: Button) -> None:
        controls["rotations"].value += 1

    again.on_click(draw_again)
    controls["new_rotations"] = again
    if text is not None:
        controls["text"] = Textarea(
            description="text", value=text, rows=3, style=_STYLE, layout={"width": "98%"}
        )
    return controls


def _number(description: str, value: int, low: int, high: int) -> BoundedIntText:
    return BoundedIntText(
        description=description,
        value=value,
        min=low,
        max=high,
        style=_STYLE,
        layout={"width": "140px"},
    )
