"""Where a reader stands in a view: what may be said of it, and a sentence for what may not."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

COLUMNS = "sorted as in the last snapshot", "in reading order"
_WORDS = {
    "window": (None, "chunks", "sliding"),
    "within_bucket": (None, True, False),
    "columns": COLUMNS,
}


def checked(place: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Return a place, or a part of one, if it is one of the view that begins at `first`.

    What is no word is a whole number, or None where the view begins with that. One beyond the data
    is none of this: they may grow, and a view shows the nearest. Raises ValueError for other names
    and values.
    """
    unknown = [str(name) for name in place if name not in first]
    if unknown:
        raise ValueError(f"a place here has {', '.join(first) or 'no names'}, got {unknown[0]}")
    return {name: _value(name, value, first[name] is None) for name, value in place.items()}


def _value(name: str, value: object, or_none: bool) -> object:
    if name in _WORDS:
        if value not in _WORDS[name]:
            words = ", ".join(map(repr, _WORDS[name]))
            raise ValueError(f"a place's {name} must be one of {words}, got {value!r}")
        return value
    if value is None and or_none:
        return None
    if not isinstance(value, Integral):
        what = "a whole number or None" if or_none else "a whole number"
        raise ValueError(f"a place's {name} must be {what}, got {value!r}")
    return int(value)
