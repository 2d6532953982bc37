"""The line of code that leads back to what an explorer shows."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 120  # characters of a value that is written out: longer ones keep their name


@dataclass(frozen=True)
class Call:
    """An explorer's function, and the arguments that no control changes.

    Those are left out where they are the function's defaults. What cannot be written in a line,
    such as vectors or a model, is written as its parameter's name, as the caller may call it too.
    """

    function: Callable
    given: Mapping[str, Any]

    def arguments(self, values: Mapping[str, Any]) -> str:
        """Write the arguments that lead to these values of the controls."""
        parameters = inspect.signature(self.function).parameters
        written = []
        for name, value in {**self.given, **values}.items():
            parameter = parameters.get(name)
            if name not in values and parameter is not None and value is parameter.default:
                continue
            text = literal(value) if is_short(value) else name
            by_place = parameter is not None and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            written.append(text if by_place and not written else f"{name}={text}")
        return ", ".join(written)

    def code(self, values: Mapping[str, Any], place: Mapping[str, Any]) -> str:
        """Write the whole call."""
        parts = [self.arguments(values), f"place={literal(dict(place))}" if place else ""]
        return f"{self.function.__name__}({', '.join(filter(None, parts))})"


def is_short(value: object) -> bool:
    """Say whether a value can be written out in a line."""
    plain = type(value) in (bool, int, float, str, list, tuple, dict) or value is None
    return plain and _is_plain(value) and len(literal(value)) <= _LONGEST


def literal(value: object) -> str:
    """Write a value as Python would read it, and as page.js writes the same value."""
    if isinstance(value, dict):
        items = (f"{literal(name)}: {literal(item)}" for name, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(literal, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(float(f"{value:.12g}") if isinstance(value, float) else value)


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
