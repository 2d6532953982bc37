"""An exercise that knows its right answer, and what the usual wrong ones mean.

Checking is comparing: what the reader's function returns against what the package returns, and if
they differ, against what each known mistake returns. So a hint names the mistake that was made, and
a test proves it: every mistake, handed in as an answer, must get its own hint.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

NOT_WRITTEN = "not written yet: fill in the function above and run its cell again"


@dataclass(frozen=True)
class Verdict:
    """Say whether an answer is right, and in words what is wrong with it."""

    passed: bool
    words: str

    def __repr__(self) -> str:
        return ("right: " if self.passed else "not yet: ") + self.words


@dataclass(frozen=True)
class Mistake:
    """Describe a wrong answer that people give, by the answer itself and by a hint."""

    answer: Any
    """Of the same kind as the right one: a function, or a value."""
    hint: str
    """One or two sentences: what went wrong, without the solution."""
    shows: Callable[..., bool] | None = None
    """Whether `(got, expected, *case)` shows this mistake, where one mistake has many answers.

    Without it an answer shows the mistake that gives the same. It is asked of cases that differ.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class Exercise:
    """Judge answers to one question: `exercise(answer)` gives a `Verdict` and never raises.

    `right` is a function, or, where a value is asked for, that value. `cases` makes the arguments
    to try, the easiest first; it is called anew for each check, so it has to be deterministic.
    `observe(answer, *case)` is what two answers are compared by, by default what they return.
    Floats agree within `tolerance`, relative to the larger of 1 and the right number.
    """

    right: Any
    mistakes: Sequence[Mistake]
    cases: Callable[[], Iterable[tuple]] = lambda: [()]
    observe: Callable[..., Any] | None = None
    tolerance: float = 1e-5
    insight: str = ""
    """What a right answer shows; said when it is given."""

    def __call__(self, answer: Any) -> Verdict:
        """Compare an answer with the right one, case by case, then with the known mistakes."""
        if answer is None or answer is Ellipsis:
            return Verdict(False, NOT_WRITTEN)
        if callable(self.right) and not callable(answer):
            return Verdict(False, f"a function is asked for, got {_shown(answer)}")
        expected = [self._run(self.right, case) for case in self.cases()]
        got = []
        for case, should in zip(self.cases(), expected, strict=True):
            try:
                got.append(self._run(answer, case))
            except NotImplementedError:
                return Verdict(False, NOT_WRITTEN)
            except Exception as error:  # whatever a reader's code may raise is an answer here
                return Verdict(False, self._named(got, expected) or _stopped(error, case))
            if got[-1] is None and should is not None:
                return Verdict(False, "the function returns nothing: end it with `return`")
        wrong = [i for i, _ in enumerate(got) if not same(got[i], expected[i], self.tolerance)]
        if not wrong:
            return Verdict(True, self.insight or f"in all {len(got)} cases")
        found = difference(got[wrong[0]], expected[wrong[0]], self.tolerance)
        return Verdict(False, self._named(got, expected) or found)

    def _named(self, got: list, expected: list) -> str:
        """Return the hint of the mistake that gives the same wrong answers, if one does."""
        if self._agree(got, expected):  # so far nothing is wrong
            return ""
        for mistake in self.mistakes:
            cases = list(self.cases())[: len(got)]
            with suppress(Exception):  # a mistake may stop where the answer did not
                if self._shows(mistake, got, expected, cases):
                    return mistake.hint
        return ""

    def _shows(self, mistake: Mistake, got: list, expected: list, cases: list[tuple]) -> bool:
        """Say whether a mistake explains every answer that is wrong."""
        if mistake.shows is None:
            return self._agree(got, [self._run(mistake.answer, case) for case in cases])
        return all(
            mistake.shows(a, b, *case)
            for a, b, case in zip(got, expected, cases, strict=False)
            if not same(a, b, self.tolerance)
        )

    def _agree(self, some: list, others: list) -> bool:
        """Say whether answers agree, as far as there are any of both."""
        return all(same(a, b, self.tolerance) for a, b in zip(some, others, strict=False))

    def _run(self, answer: Any, case: tuple) -> Any:
        """Try an answer on copies of the arguments, without touching the global random state."""
        if not callable(answer):
            return answer
        case = copy.deepcopy(case)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.observe(answer, *case) if self.observe else answer(*case)


def same(a: Any, b: Any, tolerance: float) -> bool:
    """Say whether two answers agree: equal shapes and kinds, and numbers within the tolerance."""
    if isinstance(b, (tuple, list)):
        return (
            isinstance(a, (tuple, list))
            and len(a) == len(b)
            and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
        )
    if not _is_numeric(b):
        return type(a) is type(b) and a == b
    if not _is_numeric(a):
        return False
    a, b = _array(a), _array(b)
    if a.shape != b.shape or (a.dtype == bool) != (b.dtype == bool):
        return False
    if a.dtype.kind in "bui" and b.dtype.kind in "bui":
        return bool((a == b).all())
    return bool(_close(a, b, tolerance).all())


def difference(got: Any, expected: Any, tolerance: float) -> str:
    """Say where two answers differ first: their kind, their shape, or a number of theirs."""
    if isinstance(expected, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(expected):
            return f"{len(expected)} results are asked for, got {_shown(got)}"
        pairs = enumerate(zip(got, expected, strict=True))
        at = next(i for i, (a, b) in pairs if not same(a, b, tolerance))
        said = difference(got[at], expected[at], tolerance)
        return f"result {at + 1} of {len(expected)}: {said}"
    if not (_is_numeric(got) and _is_numeric(expected)):
        return f"{_shown(expected)} is right, got {_shown(got)}"
    a, b = _array(got), _array(expected)
    if a.shape != b.shape:
        return f"the shape must be {b.shape}, got {a.shape}"
    if (a.dtype == bool) != (b.dtype == bool):
        return f"the values must be {_kind(b)}, got {_kind(a)}"
    if not a.shape:
        return f"{_number(b.item())} is right, got {_number(a.item())}"
    differs = ~_close(a.astype(float), b.astype(float), tolerance)
    where = tuple(int(i) for i in np.argwhere(differs)[0])
    return (
        f"{int(differs.sum()):,} of {a.size:,} numbers differ; the first, at {list(where)}, "
        f"should be {_number(b[where].item())}, got {_number(a[where].item())}"
    )


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """Compare number by number; what is nowhere a number agrees with itself."""
    return np.asarray(np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def _is_numeric(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float))


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _number(value: bool | int | float) -> str:
    return str(value) if isinstance(value, bool) else f"{value:.6g}"


def _kind(array: np.ndarray) -> str:
    return "True or False" if array.dtype == bool else "numbers"


def _shown(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, (Tensor, np.ndarray)) and math.prod(value.shape) > 8:
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return repr(value) if len(repr(value)) < 60 else f"a {type(value).__name__}"


def _stopped(error: Exception, case: tuple) -> str:
    """Report an error of the reader's function, with what it was given."""
    given = ", ".join(_shown(value) for value in case)
    said = " ".join(str(error).split())[:200]
    return f"it stopped with {type(error).__name__}: {said} (given {given})"
