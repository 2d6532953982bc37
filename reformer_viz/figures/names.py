"""Names of tokens in cells that have no room for them: shortened, or upright."""

from reformer_viz.figures.svg import Number

_LETTER, _ELLIPSIS, _HEIGHT = 0.62, 0.9, 0.8  # how wide, and how high, of the size of the letters


def name_in_cell(name: str, width: Number, height: Number, size: Number) -> tuple[str, bool]:
    """Return as much of a name as fits a cell, and whether it has to stand upright for that.

    All lengths are in one unit. What is left out is an ellipsis; where no letter has room, there is
    nothing.
    """
    flat, upright = _shortened(name, width, size), _shortened(name, height, size)
    stands = len(upright) > len(flat) and _HEIGHT * size <= width
    return (upright, True) if stands else (flat, False)


def _shortened(name: str, room: Number, size: Number) -> str:
    letters = room / size
    if _LETTER * len(name) <= letters:
        return name
    kept = int((letters - _ELLIPSIS) / _LETTER)
    return f"{name[:kept]}…" if kept > 0 else ""
