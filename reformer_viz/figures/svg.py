"""The few shapes that still pictures are made of, as SVG: the same bytes on every machine."""

from html import escape

import numpy as np

Number = float | int | np.number


def path(left: np.ndarray, top: Number, width: Number, height: Number, colour: str) -> str:
    """Draw boxes of one size and colour, at several places in one row."""
    w, h, y = number(width), number(height), number(top)
    cells = "".join(f"M{number(x)} {y}h{w}v{h}h-{w}z" for x in left)
    return f'<path d="{cells}" fill="{colour}"/>'


def rect(x: Number, y: Number, width: Number, height: Number, colour: str) -> str:
    """Draw one box."""
    return path(np.array([x]), y, width, height, colour)


def text(words: object, x: Number, y: Number, anchor: str = "middle") -> str:
    """Write words, whatever they hold."""
    return (
        f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}">{escape(str(words))}</text>'
    )


def number(x: Number) -> str:
    """Write a length with at most two decimals."""
    return f"{x:.2f}".rstrip("0").rstrip(".")


def runs(chosen: np.ndarray) -> str:
    """Outline the chosen cells, neighbours in a row together."""
    edges = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return "".join(
        f"M{a} {row}h{b - a}v1h{a - b}z" for (row, a), (_, b) in zip(starts, ends, strict=True)
    )
