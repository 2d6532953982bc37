"""One explorer or one figure in a process of its own: what it took, as lines of JSON.

Started by `views.py` as `python -m tests.benchmarks.views_worker controls bucketing 1024`.
"""

import json
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from ipywidgets import BoundedIntText, Dropdown, FloatSlider, IntSlider, Textarea, Widget

from reformer_viz.widgets.panel import Panel
from tests.benchmarks.explorers import EXPLORERS, FIGURES
from tests.benchmarks.worker import ProcessMemory

MOST_MOVES, SECONDS = 9, 8.0
"""How often a control is moved, and how many seconds that may take: it is moved once at least."""


def other_values(control: Widget) -> Iterator[Any]:
    """Yield values to move a control to, each another than the one before, without end."""
    value = control.value
    if isinstance(control, IntSlider | FloatSlider):
        steps = round((control.max - control.min) / control.step)
        here = round((value - control.min) / control.step)
        way = [*range(here + 1, steps + 1), *range(steps - 1, -1, -1), *range(1, here + 1)]
        values = [control.min + step * control.step for step in way]
    elif isinstance(control, Dropdown):
        options = [option[1] if isinstance(option, tuple) else option for option in control.options]
        values = [option for option in options if option != value] + [value]
    elif isinstance(control, BoundedIntText):
        values = [*range(value + 1, control.max + 1), *range(control.min, value + 1)]
    elif isinstance(control, Textarea):
        values = [f"{value[: -k - 1]}{'~' * (k + 1)}" for k in range(MOST_MOVES + 1)] + [value]
    else:
        raise ValueError(f"{type(control).__name__} is a control that nobody here can move")
    return cycle(values)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that some work took, by the clock and of this process's time."""
    start, cpu = perf_counter(), process_time()
    work()
    return perf_counter() - start, process_time() - cpu


def repeat(move: Callable[[], object]) -> dict[str, list[float]]:
    """Do something once to warm up and then several times, as the time allows."""
    first, cpu = timed(move)
    times = [timed(move) for _ in range(min(MOST_MOVES, int(SECONDS / max(first, 1e-9))))]
    seconds, cpu_seconds = zip(*times or [(first, cpu)], strict=True)
    return {"seconds": list(seconds), "cpu_seconds": list(cpu_seconds)}


def written(panel: Panel) -> str:
    """Write what a page is sent: part of what the kernel does."""
    return json.dumps(panel._link.data)


def moves_of(panel: Panel) -> Iterator[tuple[str, dict]]:
    """Move every control of an explorer, one after the other, and back."""
    if panel.chart is not None:
        panel._link.shown = True  # as where a page shows the live chart
    for name, control in panel.controls.items():
        if not control.has_trait("value"):
            continue
        start, values = control.value, other_values(control)

        def move() -> None:
            control.value = next(values)  # noqa: B023 (called at once)
            written(panel)

        yield name, repeat(move)
        control.value = start
    if not panel.controls:
        yield "refresh", repeat(lambda: (panel.refresh(), written(panel)))
    if panel._chart is not None:
        panel._link.shown = False
        yield "a picture without Plotly", repeat(panel.refresh)
    if hasattr(panel._view, "ship_late"):
        yield "weights, which follow", repeat_late(panel)


def repeat_late(panel: Panel) -> dict[str, list[float]]:
    """Move the head, untimed, and compute what follows."""
    heads, times = other_values(panel.controls["head"]), []
    for _ in range(MOST_MOVES):
        panel.controls["head"].value = next(heads)
        times.append(timed(lambda: json.dumps(panel._late())))
    seconds, cpu_seconds = zip(*times, strict=True)
    return {"seconds": list(seconds), "cpu_seconds": list(cpu_seconds)}


def controls(key: str, length: int) -> Iterator[dict]:
    """Time every control of an explorer."""
    panel = EXPLORERS[key].make(length)
    for name, times in moves_of(panel):
        problem = {"problem": panel.problem} if panel.problem else {}
        yield {"control": name, **times, **problem}


def display(key: str, length: int) -> Iterator[dict]:
    """Make an explorer and what its cell displays; weigh its exported page."""
    made = EXPLORERS[key].make(32) if EXPLORERS[key].most else None  # loads the code
    del made
    memory, shown = ProcessMemory(), []

    def work() -> None:
        panel = EXPLORERS[key].make(length)
        shown.extend([panel, panel._html()])

    seconds, cpu_seconds = timed(work)
    panel, html = shown
    facts = {"seconds": seconds, "cpu_seconds": cpu_seconds, **memory_facts(memory)}
    with TemporaryDirectory() as folder:
        size = panel.save_html(Path(folder) / "page.html").stat().st_size
    problem = {"problem": panel.problem} if panel.problem else {}
    yield {**facts, "output_bytes": len(html.encode()), "page_bytes": size, **problem}


def figure(key: str, length: int) -> Iterator[dict]:
    """Measure and draw a figure, to PNG."""
    FIGURES[key](64)._repr_png_()
    memory = ProcessMemory()
    seconds, cpu_seconds = timed(lambda: FIGURES[key](length)._repr_png_())
    yield {"seconds": seconds, "cpu_seconds": cpu_seconds, **memory_facts(memory)}


def memory_facts(memory: ProcessMemory) -> dict:
    """Return what a run added at its peak, and the whole process at its peak."""
    extra = memory.extra()
    peak = None if extra is None else extra + memory.before * 1024
    return {"extra_bytes": extra, "peak_bytes": peak}


WORK = {"controls": controls, "display": display, "figure": figure}

if __name__ == "__main__":
    what, which, tokens = sys.argv[1:]
    for found in WORK[what](which, int(tokens)):
        print(json.dumps(found), flush=True)
