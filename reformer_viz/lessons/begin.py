"""What a reader is told instead of a traceback, where the way out is known."""

import traceback
from collections.abc import Sequence
from typing import Any

from IPython import get_ipython

_NO_ROOM = ("can't allocate memory", "not enough memory", "out of memory")
_NO_NETWORK = ("urlopen error", "Name or service not known", "getaddrinfo failed")


def begin() -> None:
    """Let this notebook answer with a sentence where the way out is known.

    That is when a cell is run before the ones above it, when the machine has too little memory, and
    when something has to be downloaded without network. Every other error keeps its traceback. May
    be called again; does nothing outside IPython.
    """
    shell = get_ipython()
    if shell is not None:
        kinds = (NameError, MemoryError, RuntimeError, OSError)
        shell.set_custom_exc(kinds, _answer)


def advice(error: BaseException) -> str | None:
    """Say what to do about an error, or return None where only its traceback can help."""
    said = str(error)
    if type(error) is NameError and getattr(error, "name", None):
        return (
            f"'{error.name}' is not there yet{_place_of(error)}: this cell needs the ones above "
            f"it, or is its name misspelt? Choose Run, then 'Run All Above Selected Cell' (in "
            f"Colab: Runtime, then 'Run before')."
        )
    if isinstance(error, MemoryError) or _says(said, _NO_ROOM):
        return (
            "This machine has not enough free memory for this cell. Close other notebooks "
            "(Kernel, then 'Shut Down All Kernels'), or make the lengths, depths or batch in this "
            "cell smaller, and run it again: everything before it is still there."
        )
    if isinstance(error, OSError) and _says(said, _NO_NETWORK):
        return (
            "Nothing could be downloaded: is there a network? The lessons' own text needs none: "
            "`TextBytes()` reads what Python carries, `TextBytes.from_file(path)` a file of yours."
        )
    return None


def _place_of(error: BaseException) -> str:
    """Say in which line of which function an error arose, and how that line reads."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    function = "" if last.name.startswith("<") else f" of {last.name}"
    line = f", `{last.line}`" if last.line else ""
    return f" (line {last.lineno}{function}{line})"


def _says(said: str, words: Sequence[str]) -> bool:
    return any(word in said for word in words)


def _answer(shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: int | None = None):
    """Print the advice, or show the traceback as ever: IPython's own signature."""
    words = advice(error)
    if words is None:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        return None
    print(words)  # noqa: T201 - a cell's answer to its reader
    return []
