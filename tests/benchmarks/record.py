"""What a benchmark leaves behind: a JSON file that says who, where and when, and every time."""

import json
import os
import platform
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.bounds import work_of
from tests.benchmarks.case import ALWAYS_IN, Case
from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.race import ROOT, Outcome

RESULTS = Path(__file__).resolve().parent / "results"
LOCAL = "local"
"""The name of results that git ignores and the README does not show."""
VIEWS = "views"
"""The name of the results of `views.py`, which are not of contestants."""
SCHEMA = 1
PACKAGES = ("torch", "numpy", "reformer-pytorch", "transformers")


def machine(device: str) -> dict[str, Any]:
    """Describe the machine without naming it."""
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": platform.system(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def cpu_name() -> str:
    """Return the processor's model name."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Return how much memory the machine has, where it tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def versions(packages: tuple[str, ...] = PACKAGES, code: str = "reformer_core") -> dict:
    """Return the versions of what was measured, this project's as its commit."""
    found = {name: _version(name) for name in packages}
    return {"python": platform.python_version(), **found, "commit": commit(code)}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit(code: str = "reformer_core") -> str | None:
    """Return the commit that is checked out, with a "+" where code has changed since."""
    try:
        named = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", code, "tests/benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return named + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def new_record(
    device: str, settings: dict[str, Any], peaks: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Begin a record: everything but the runs."""
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(device),
        "versions": versions(),
        "settings": settings,
        "peaks": peaks,
        "contestants": {
            part: [contestant.described() for contestant in entries.values()]
            for part, entries in CONTESTANTS.items()
        },
        "runs": [],
    }


def run_of(case: Case, outcome: Outcome) -> dict[str, Any]:
    """Return the record's entry of one outcome; of an attention also what it must do at least."""
    work = None
    if case.part == "attention":
        dtype = ALWAYS_IN.get(outcome.key, case.dtype)
        kind = CONTESTANTS["attention"][outcome.key].kind
        work = {"dtype": dtype, **vars(work_of(replace(case, dtype=dtype), kind, outcome.which))}
    return {
        "part": case.part,
        "length": case.length,
        "n_hashes": case.n_hashes,
        "contestant": outcome.key,
        "pass": outcome.which,
        "seconds": outcome.seconds,
        "extra_bytes": outcome.extra_bytes,
        "skipped": outcome.skipped,
        "cause": outcome.cause,
        "work": work,
    }


def add(record: dict[str, Any], run: dict[str, Any]) -> None:
    """Add a run to a record; with an earlier one of the same it becomes one of more repeats."""
    same = ("part", "length", "n_hashes", "contestant", "pass")
    for old in record["runs"]:
        if any(old[name] != run[name] for name in same):
            continue
        if not old["seconds"]:
            old.update(run)
        elif run["seconds"]:
            known = [b for b in (old["extra_bytes"], run["extra_bytes"]) if b is not None]
            old["seconds"] = old["seconds"] + run["seconds"]
            old["extra_bytes"] = max(known, default=None)
        return
    record["runs"].append(run)


def write(record: dict[str, Any], path: Path) -> None:
    """Write a record, one run a line, so that a diff can be read."""
    head = {name: value for name, value in record.items() if name != "runs"}
    text = json.dumps(head, indent=1).removesuffix("\n}")
    runs = ",\n".join("  " + json.dumps(run) for run in record["runs"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{text},\n "runs": [\n{runs}\n ]\n}}\n')
