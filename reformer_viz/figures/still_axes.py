"""Axes of a still chart: from values to places on paper, with ticks that people would choose."""

from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import unescape
from math import ceil, floor, log10
from typing import Any

import numpy as np

from reformer_viz.figures.svg import Number

EDGE = 0.05
"""The part of a range that stays free at its ends."""

_MOST_DECADES = 8
_UNITS = ((1e9, "G"), (1e6, "M"), (1e4, "k"))  # from ten thousand on, as Plotly writes them


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: its range in its own scale, and the two places where that begins and ends."""

    low: Number
    high: Number
    start: Number
    end: Number
    log: bool = False
    categories: tuple[str, ...] = ()
    layout: Any = None
    """Plotly's description of it."""

    def scaled(self, values: Iterable) -> np.ndarray:
        """Bring values to the axis's scale; NaN where they have no place on it."""
        if self.categories:
            at = {name: place for place, name in enumerate(self.categories)}
            return np.array([at.get(str(value), np.nan) for value in values], dtype=np.float64)
        numbers = as_numbers(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.log10(numbers) if self.log else numbers
        return np.where(np.isfinite(scaled), scaled, np.nan)

    def at(self, scaled: np.ndarray | Number) -> np.ndarray | Number:
        """Place what is in the axis's scale already."""
        share = (np.asarray(scaled) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def place(self, values: Iterable) -> np.ndarray:
        """Place values."""
        return self.at(self.scaled(values))

    def share(self, place: Number) -> float:
        """Return how far along the axis a place is, from 0 to 1."""
        return float((place - self.start) / (self.end - self.start))

    def ticks(self) -> list[tuple[float, str]]:
        """Return the places of the ticks and what is written there."""
        values, labels = self._tick_values()
        places = self.place(values)
        low, high = sorted((self.start, self.end))
        return [
            (float(place), "" if self.layout.showticklabels is False else label)
            for place, label in zip(places, labels, strict=True)
            if low - 0.5 <= place <= high + 0.5
        ]

    def _tick_values(self) -> tuple[Sequence, list[str]]:
        layout = self.layout
        if layout.tickvals is not None:
            values = list(layout.tickvals)
            texts = layout.ticktext if layout.ticktext is not None else map(self._write, values)
            return values, [plain(text) for text in texts]
        if self.categories:
            return self.categories, list(self.categories)
        values = decades(self.low, self.high) if self.log else self._steps()
        return values, [self._write(value) for value in values]

    def _steps(self) -> list[float]:
        low, high = sorted((self.low, self.high))
        step = self.layout.dtick
        room = abs(self.end - self.start)
        if not isinstance(step, Number):
            across = (self.layout.plotly_name or "").startswith("xaxis")
            step = nice_step(high - low, max(2, min(10, room / (70 if across else 40))))
        return [round(k * step, 12) for k in range(ceil(low / step), floor(high / step) + 1)]

    def _write(self, value: Number) -> str:
        layout = self.layout
        written = write(value, layout.tickformat)
        return f"{layout.tickprefix or ''}{written}{layout.ticksuffix or ''}"


def axis_of(
    layout: Any, values: Sequence[np.ndarray], ends: tuple[Number, Number], edge: Number = EDGE
) -> Axis:
    """Make an axis that has room for all values, unless Plotly's description says its range.

    `edge` is the part of the range that stays free at both ends, but not below a ground at 0.
    """
    start, end = ends
    categories = _categories(layout, values)
    axis = Axis(
        low=0,
        high=1,
        start=start,
        end=end,
        categories=categories,
        layout=layout,
        log=is_log(layout),
    )
    scaled = [axis.scaled(part) for part in values] or [np.zeros(1)]
    low, high = _range_of(layout, np.concatenate(scaled), bool(categories), edge)
    return replace(axis, low=low, high=high)


def is_log(layout: Any) -> bool:
    """Say whether an axis is logarithmic."""
    return layout.type == "log"


def raw(values: Iterable | None) -> np.ndarray:
    """Return what a trace holds as an array, also where Plotly keeps its bytes as text."""
    if values is None:
        return np.zeros(0)
    if isinstance(values, dict):
        numbers = np.frombuffer(b64decode(values["bdata"]), values["dtype"])
        shape = [int(size) for size in str(values.get("shape", numbers.size)).split(",")]
        return numbers.reshape(shape)
    return values if isinstance(values, np.ndarray) else np.array(list(values))


def as_numbers(values: Iterable | None) -> np.ndarray:
    """Read numbers as Plotly does: what is none is a gap."""
    values = raw(values)
    if values.dtype.kind in "OUS":
        return np.array([_number_or_gap(value) for value in values.ravel()]).reshape(values.shape)
    return values.astype(np.float64)


def nice_step(span: Number, most: Number) -> float:
    """Return 1, 2 or 5 times a power of ten, such that at most so many steps fit."""
    least = max(span, 1e-300) / most
    power = 10.0 ** floor(log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def write(value: Number, form: str | None = None) -> str:
    """Write a number by a format of d3's that Python knows as well, or shortly."""
    if form and not form.endswith("s"):
        return format(int(value) if form.endswith("d") else value, form.replace("~", ""))
    for unit, name in _UNITS:
        if abs(value) >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.5g}{name}"
    return f"{value:.5g}"


def plain(words: object) -> str:
    """Take the tags out of Plotly's text, but for its line breaks, and read its entities."""
    words = str(words).replace("<br>", "\n").replace("<br/>", "\n")
    parts = words.split("<")
    return unescape(parts[0] + "".join(part.partition(">")[2] for part in parts[1:]))


def _number_or_gap(value: object) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def _categories(layout: Any, values: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Return the names on an axis of names, in the order in which they are met."""
    named = any(np.asarray(part).dtype.kind in "US" for part in values if len(part))
    if layout.type != "category" and not (layout.type in (None, "-") and named):
        return ()
    given = layout.categoryarray if layout.categoryarray is not None else ()
    met = [str(name) for part in values for name in part]
    return tuple(dict.fromkeys([*map(str, given), *met]))


def _range_of(layout: Any, scaled: np.ndarray, named: bool, edge: Number) -> tuple[float, float]:
    """Return where an axis begins and ends, in its own scale."""
    there = scaled[np.isfinite(scaled)]
    low, high = (float(there.min()), float(there.max())) if there.size else (0.0, 1.0)
    free = edge * (high - low) if high > low else (0.5 if is_log(layout) else abs(high) / 2 or 0.5)
    if named:
        low, high = low - 0.5, high + 0.5
    elif not is_log(layout) and (layout.rangemode in ("tozero", "nonnegative")):
        low, high = min(low, 0.0), high + free
    else:
        low, high = low - free, high + free
    given = layout.range if layout.range is not None else (None, None)
    low, high = (
        auto if said is None else float(said) for auto, said in zip((low, high), given, strict=True)
    )
    reverse = isinstance(layout.autorange, str) and "reversed" in layout.autorange
    return (high, low) if reverse and layout.range is None else (low, high)


def decades(low: Number, high: Number) -> list[float]:
    """Return powers of ten around two logarithms; of few, their double and fivefold as well."""
    low, high = sorted((low, high))
    first, last = floor(low), ceil(high)
    every = ceil((last - first) / _MOST_DECADES) or 1
    factors = (1, 2, 5) if high - low < 2 else (1,)
    return [m * 10.0**power for power in range(first, last + 1, every) for m in factors]
