"""All contestants of a case at once, each in its own process, and one run at a time in turn.

A machine is slower in some minutes than in others. So nobody's repeats are taken together: they
are spread over the same minutes as everybody else's.
"""

import json
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from tests.benchmarks.case import Case
from tests.benchmarks.worker import Orders

ROOT = Path(__file__).resolve().parents[2]
_PAUSE_S = 0.03
"""Threads of the last contestant spin for some milliseconds before they sleep."""
_LONG_S = 60
"""A run this long is not repeated: bad moments are averaged in it."""
_START_S = 300


def worker_command(orders: Orders) -> list[str]:
    """Return the command that starts a worker."""
    return [sys.executable, "-m", "tests.benchmarks.worker", orders.to_json()]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How long and how often."""

    repeats: int = 7
    """How often at most; a slow contestant is timed less often, but at least once."""
    seconds: float = 20.0
    """How long one contestant's repeats of one pass may take together."""
    limit_s: float = 240.0
    """A run that takes longer than this is stopped and recorded as skipped."""
    memory_bytes: int = 4 * 2**30
    threads: int = 1


@dataclass
class Outcome:
    """What one contestant did in one pass of a case."""

    key: str
    which: str
    seconds: list[float] = field(default_factory=list)
    extra_bytes: int | None = None
    skipped: str | None = None
    """Why there are no numbers."""
    cause: Literal["absent", "limit", "failed"] | None = None
    """What kind of reason that is; "failed" is a mistake in somebody's code."""

    def take(self, answer: dict[str, Any]) -> float | None:
        """Note an answer; return the seconds of a run, or None where there was none."""
        if "seconds" not in answer:
            ((self.cause, self.skipped),) = answer.items()
            return None
        found = [b for b in (self.extra_bytes, answer["extra_bytes"]) if b is not None]
        self.extra_bytes = max(found, default=None)
        return answer["seconds"]

    def __str__(self) -> str:
        """Say it in a line of output."""
        if not self.seconds:
            said = f"{self.cause}: {self.skipped}"
        else:
            said = f"min {min(self.seconds):8.3f} s  median {median(self.seconds):8.3f} s"
            if self.extra_bytes is not None:
                said += f"  {self.extra_bytes / 2**20:7,.0f} MiB"
            said += f"  of {len(self.seconds)}"
        return f"{self.which:8}{self.key:24}{said}"


class Hopeless:
    """Who met a limit, and where: whoever could not do less is not asked to do more."""

    def __init__(self) -> None:
        self._met: list[tuple[Case, Outcome]] = []

    def add(self, case: Case, outcome: Outcome) -> None:
        """Remember an outcome that met a limit."""
        if outcome.cause == "limit":
            self._met.append((case, outcome))

    def known(self, case: Case, key: str, which: str) -> Outcome | None:
        """Return the outcome without trying, if a case that is no larger has shown it."""
        for met, outcome in self._met:
            is_no_larger = met.length <= case.length and met.n_hashes <= case.n_hashes
            if (met.part, outcome.key, outcome.which) == (case.part, key, which) and is_no_larger:
                reason = f"{outcome.skipped} ({met.length:,} tokens x {met.n_hashes} already)"
                return Outcome(key, which, skipped=reason, cause="limit")
        return None


def repeats_of(first_s: float, rules: Rules) -> int:
    """Return how many more runs fit, given how long the first one took: 1 at least, if not long."""
    if first_s > _LONG_S:
        return 0
    return max(1, min(rules.repeats, int(rules.seconds / max(first_s, 1e-9))))


def in_turn(repeats: dict[str, int]) -> Iterator[str]:
    """Yield each key as often as it says, all spread evenly from beginning to end."""
    rounds = max(repeats.values(), default=0)
    for turn in range(rounds):
        for key, n in repeats.items():
            if (turn + 1) * n // rounds > turn * n // rounds:
                yield key


class Runner:
    """One contestant's process."""

    def __init__(self, key: str, case: Case, rules: Rules) -> None:
        orders = Orders(key=key, case=case, threads=rules.threads, memory_bytes=rules.memory_bytes)
        self._limit_s = rules.limit_s
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            worker_command(orders),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._end: dict[str, Any] | None = None

    def __enter__(self) -> "Runner":
        self._note(self._read(_START_S))
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def run(self, which: str) -> dict[str, Any]:
        """Ask for one run and return the answer; whoever has ended gives the same one for ever."""
        if self._end is None:
            with suppress(BrokenPipeError):  # it is dead: reading tells
                self._process.stdin.write(which + "\n")
                self._process.stdin.flush()
            return self._note(self._read(self._limit_s))
        return self._end

    def _note(self, answer: dict[str, Any]) -> dict[str, Any]:
        if not {"ready", "seconds"} & set(answer):
            self._end = answer
            self._process.kill()  # its memory is for the others
        return answer

    def _read(self, limit_s: float) -> dict[str, Any]:
        """Wait for a line; a process that is slow or dead gets an answer made for it."""
        ready, _, _ = select.select([self._process.stdout], [], [], limit_s)
        if not ready:
            return {"limit": f"takes longer than {limit_s:.0f} s"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else self._death()

    def _death(self) -> dict[str, str]:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return {"limit": "was killed, as systems do when memory runs out"}
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or ["without a word"])[-1]
        return {"failed": f"ended with exit code {code}: {last}"}


def race(
    case: Case, keys: Iterable[str], passes: Iterable[str], rules: Rules, hopeless: Hopeless
) -> Iterator[Outcome]:
    """Measure contestants on a case and yield one outcome for each of them and pass."""
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for which in passes:
            outcomes = {key: hopeless.known(case, key, which) for key in keys}
            able = [key for key, outcome in outcomes.items() if outcome is None]
            for key in able:
                if key not in runners:
                    runners[key] = stack.enter_context(Runner(key, case, rules))
            for outcome in _race(which, {key: runners[key] for key in able}, rules):
                hopeless.add(case, outcome)
                outcomes[outcome.key] = outcome
            yield from outcomes.values()


def _race(which: str, runners: dict[str, Runner], rules: Rules) -> list[Outcome]:
    """Run each once to see its memory and its pace, then all in turn."""
    outcomes = {key: Outcome(key, which) for key in runners}
    repeats = {}
    for key, runner in runners.items():
        first_s = outcomes[key].take(runner.run(which))
        if first_s is not None:
            repeats[key] = repeats_of(first_s, rules)
            if repeats[key] < 2:
                outcomes[key].seconds.append(first_s)
    for key in in_turn(repeats):
        time.sleep(_PAUSE_S)
        seconds = outcomes[key].take(runners[key].run(which))
        if seconds is not None:
            outcomes[key].seconds.append(seconds)
    return list(outcomes.values())
