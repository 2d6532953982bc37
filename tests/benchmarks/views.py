"""How long controls take to move a picture, how much each view draws, and how large its pages are.

`make bench-views`, or python -m tests.benchmarks.views: some minutes. Everything in the kernel is
measured in processes of their own; everything on the screen by the page itself.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.explorers import EXPLORERS, FIGURES
from tests.benchmarks.race import ROOT
from tests.benchmarks.record import RESULTS, VIEWS, machine, versions, write
from tests.conftest import find_chromium

SCHEMA = 1
PACKAGES = ("torch", "numpy", "matplotlib", "plotly", "ipywidgets", "anywidget", "jupyterlab")
PARTS = ("controls", "display", "figures", "page", "lab")
LENGTHS, ON_SCREEN = (1024, 16_384), 1024
_MOST_SECONDS, _FIRST_FIGURE, _LONGEST_FIGURE = 10.0, 4096, 2**20
_PATIENCE_S = 900


def main(arguments: list[str] | None = None) -> int:
    """Measure what the arguments say, and write it; what was not asked for stays as it was."""
    asked = _parser().parse_args(arguments)
    path = RESULTS / f"{asked.name}.json"
    record = new_record()
    if path.exists() and (asked.parts != PARTS or asked.only):
        known = json.loads(path.read_text())["runs"]
        record["runs"] = [run for run in known if not _is_asked(run, asked)]
    for run in runs(asked):
        record["runs"].append(run)
        print(in_a_line(run), flush=True)
        record["runs"].sort(key=_place)
        write(record, path)
    print(os.path.relpath(path))
    return 0


def new_record() -> dict[str, Any]:
    """Begin a record: everything but the runs."""
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine("cpu"),
        "versions": {**versions(PACKAGES, "reformer_viz"), "browser": browser_version()},
        "settings": {"lengths": list(LENGTHS), "on_screen": ON_SCREEN},
        "runs": [],
    }


def browser_version() -> str | None:
    """Return what the browser calls itself."""
    path = find_chromium()
    if path is None:
        return None
    return subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()


def runs(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure, part by part."""
    keys = [key for key in EXPLORERS if not asked.only or key in asked.only]
    if "controls" in asked.parts:
        for key in keys:
            yield from of_controls(key)
    if "display" in asked.parts:
        for key in keys:
            yield from of_display(key)
    if "figures" in asked.parts:
        for key in FIGURES:
            if not asked.only or key in asked.only:
                yield from of_figure(key)
    yield from on_screen(asked.parts, keys)


def of_controls(key: str) -> Iterator[dict]:
    """Time the kernel's part of every control, at every length that the explorer takes."""
    for length in _lengths_of(key, LENGTHS):
        for found in worker("controls", key, length):
            yield {"part": "controls", "view": key, "length": length, **found}


def of_display(key: str) -> Iterator[dict]:
    """Make the explorer, as usual and at the greatest length that it takes."""
    most = EXPLORERS[key].most
    for length in _lengths_of(key, (ON_SCREEN, *([most] if most else []))):
        for found in worker("display", key, length):
            yield {"part": "display", "view": key, "length": length, **found}


def of_figure(key: str) -> Iterator[dict]:
    """Draw a figure of more and more tokens, for as long as one has the patience."""
    length, seconds = _FIRST_FIGURE, 0.0
    while seconds < _MOST_SECONDS and length <= _LONGEST_FIGURE:
        for found in worker("figure", key, length):
            yield {"part": "figures", "view": key, "length": length, **found}
            seconds = found.get("seconds", _MOST_SECONDS)
        length *= 2


def on_screen(parts: tuple[str, ...], keys: list[str]) -> Iterator[dict]:
    """Time keys in a real browser, where there is one."""
    path = find_chromium()
    if path is None or not {"page", "lab"} & set(parts):
        return
    from tests.benchmarks.views_page import chromium, exported, live

    with TemporaryDirectory() as name, chromium(path) as browser:
        folder = Path(name)
        for key in keys if "page" in parts else ():
            for found in exported(browser, key, ON_SCREEN, folder):
                yield {"part": "page", "view": key, "length": ON_SCREEN, **found}
        moved = [key for key in keys if key != "training"]  # whose controls are all in the page
        for key, found in live(browser, moved, ON_SCREEN, folder) if "lab" in parts else ():
            yield {"part": "lab", "view": key, "length": ON_SCREEN, **found}


def worker(what: str, key: str, length: int) -> Iterator[dict]:
    """Let a process of its own measure; yield what it found, or the reason why it did not."""
    command = [sys.executable, "-m", "tests.benchmarks.views_worker", what, key, str(length)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        yield {"skipped": f"takes longer than {_PATIENCE_S} s"}
        return
    yield from map(json.loads, done.stdout.splitlines())
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        yield {"skipped": f"ended with exit code {done.returncode}: {last}"}


def in_a_line(run: dict[str, Any]) -> str:
    """Say what was found in a line of output."""
    head = f"{run['part']:9}{run['view']:17}{run['length'] or '':>8}  {run.get('control', ''):28}"
    if "skipped" in run or run.get("problem"):
        return f"{head}{run.get('skipped') or run['problem']}"
    seconds = run["seconds"] if isinstance(run["seconds"], list) else [run["seconds"]]
    said = f"min {1000 * min(seconds):8.1f} ms  median {1000 * median(seconds):8.1f} ms"
    if run.get("peak_bytes"):
        said += f"  peak {run['peak_bytes'] / 2**20:,.0f} MiB"
    if run.get("page_bytes"):
        said += f"  page {run['page_bytes'] / 1e6:.2f} MB"
    return head + said


def _lengths_of(key: str, wanted: tuple[int, ...]) -> list[int]:
    """Return the lengths that an explorer takes; 0 for one that has none."""
    most = EXPLORERS[key].most
    return [0] if most is None else [length for length in wanted if length <= most]


def _place(run: dict[str, Any]) -> tuple[int, int]:
    """Return where a run stands among the others, whenever it was measured."""
    return PARTS.index(run["part"]), [*EXPLORERS, *FIGURES].index(run["view"])


def _is_asked(run: dict[str, Any], asked: argparse.Namespace) -> bool:
    return run["part"] in asked.parts and (not asked.only or run["view"] in asked.only)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.views", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--only", nargs="+", choices=[*EXPLORERS, *FIGURES], help="views")
    parser.add_argument("--name", default=VIEWS, help="of the file of results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
