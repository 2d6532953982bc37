"""Numbers in words, the same ones in every sentence, and in the browser."""

import numpy as np
from jaxtyping import Int

MILLION = 10**6
_POSITIONS_IN_A_SENTENCE = 8
_SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "←", "\0": "∅"}


def readable(label: str) -> str:
    """Write signs for what shows nothing, or would break a line."""
    return "".join(
        _SIGNS.get(c, c) if c in _SIGNS or c.isprintable() else f"{ord(c):02X}" for c in label
    )


def count(number: int, what: str) -> str:
    """Write a number of things: "1 pair", "2,345 pairs"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def listed(positions: Int[np.ndarray, " some"]) -> str:
    """List positions in brackets, the first few of many."""
    if not len(positions):
        return ""
    shown = ", ".join(f"{position:,}" for position in positions[:_POSITIONS_IN_A_SENTENCE])
    return f" ({shown}{', …' if len(positions) > _POSITIONS_IN_A_SENTENCE else ''})"


def percent(part: int, whole: int) -> str:
    """Write a share with one decimal, below 10 % with two, and never round something to nothing.

    Halves are rounded up, in integers, as the browser does. `whole` must not be 0.
    """
    if 0 < part * 20_000 < whole:
        return "less than 0.01 %"
    if 10 * part < whole:
        hundredths = (20_000 * part + whole) // (2 * whole)
        return f"{hundredths // 100}.{hundredths % 100:02} %"
    tenths = (2_000 * part + whole) // (2 * whole)
    return f"{tenths // 10:,}.{tenths % 10} %"


def in_percent(share: float) -> str:
    """Write a share in [0, 1], known to a millionth, as `percent` does."""
    return percent(in_millionths(share), MILLION)


def in_millionths(share: float) -> int:
    """Round a share to a whole number of millionths: floats are not the same on every machine."""
    return round(share * MILLION)
