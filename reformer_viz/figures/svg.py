"""Words of SVG: few characters, the same bytes on every machine, and no text that breaks out."""

from html import escape

import numpy as np

Number = float | int | np.number


def number(x: Number, digits: int = 2) -> str:
    """Write a length with at most so many decimals."""
    written = f"{x:.{digits}f}"
    if digits:
        written = written.rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def element(tag: str, content: str = "", **attributes: object) -> str:
    """Write an element; `stroke_width` is `stroke-width`, and what is None is left out."""
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{said}>{content}</{tag}>" if content else f"<{tag}{said}/>"


def text(
    words: object, x: Number, y: Number, anchor: str | None = "middle", **attributes: object
) -> str:
    """Write words at a place: `anchor` is which part of them stands there, None its group's."""
    content = escape(printable(str(words))) or " "
    return element("text", content, x=x, y=y, text_anchor=anchor, **attributes)


def printable(words: str) -> str:
    """Leave out the characters that XML must not hold."""
    return "".join(c for c in words if c.isprintable() or c in "\t\n")


def path(left: np.ndarray, top: Number, width: Number, height: Number, colour: str) -> str:
    """Draw boxes of one size and colour, at several places in one row."""
    w, h, y = number(width), number(height), number(top)
    cells = "".join(f"M{number(x)} {y}h{w}v{h}h-{w}z" for x in left)
    return f'<path d="{cells}" fill="{colour}"/>'


def rect(x: Number, y: Number, width: Number, height: Number, colour: str) -> str:
    """Draw one box."""
    return path(np.array([x]), y, width, height, colour)


def runs(chosen: np.ndarray) -> str:
    """Outline the chosen cells, neighbours in a row together."""
    edges = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return "".join(
        f"M{a} {row}h{b - a}v1h{a - b}z" for (row, a), (_, b) in zip(starts, ends, strict=True)
    )


def _value(value: object) -> str:
    return number(value) if isinstance(value, Number) else escape(str(value))
