"""What the README says about the explorers' speed, made from a file of results and nothing else."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from reformer_viz.measure.memory import in_units
from reformer_viz.measure.speed import in_seconds
from tests.benchmarks.tables import table

IN_KERNEL, ON_SCREEN = (0.1, 0.3), 0.25
"""Seconds that a control may take: in the kernel at both lengths, and on the screen."""

_MISSING = "-"
Runs = list[dict[str, Any]]


def section(path: Path) -> str:
    """Return the words and the table on explorers."""
    record = json.loads(path.read_text())
    return "\n\n".join([about(record), explorers_table(record), figures_in_words(record["runs"])])


def about(record: dict[str, Any]) -> str:
    """Say what was measured, on what and when."""
    machine, versions = record["machine"], record["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("plotly", "ipywidgets", "jupyterlab"))
    short, long = record["settings"]["lengths"]
    return (
        f"Measured on {record['date']}: {machine['cpu']}, {machine['cores']} cores; {named}; "
        f"{versions['browser']}; commit {versions['commit']}. Of every control the median time is "
        f"taken, and of all controls the slowest is shown. Kernel: from a control's new value to "
        f"the data that are sent, at {short:,} and {long:,} tokens. Screen: from a key to the "
        f"frame after the redrawn picture, at {record['settings']['on_screen']:,} tokens, in the "
        f"exported page, and in JupyterLab for controls that ask the kernel. The limits are "
        f"{in_seconds(IN_KERNEL[0])} and {in_seconds(IN_KERNEL[1])} in the kernel and "
        f"{in_seconds(ON_SCREEN)} on the screen; what takes longer is **bold**. Controls of "
        f"`explore_memory` run training steps, text and rotations of `explore_model` the model, "
        f"and the sphere of `explore_geometry` starts WebGL, here without a GPU; at its peak a "
        f"process holds Python, torch and Plotly too."
    )


def explorers_table(record: dict[str, Any]) -> str:
    """Tabulate every explorer's slowest control, the size of its page, and how much it draws."""
    runs, (short, long) = record["runs"], record["settings"]["lengths"]
    head = [
        "explorer",
        f"kernel, {short:,}",
        f"kernel, {long:,}",
        "screen, page",
        "screen, JupyterLab",
        "exported page",
        "greatest length",
        "drawn in",
        "memory at its peak",
    ]
    rows = []
    for view in dict.fromkeys(run["view"] for run in runs if run["part"] == "display"):
        own = [run for run in runs if run["view"] == view]
        lengths = (short, long)
        if not any(run["length"] for run in own if run["part"] == "controls"):
            lengths = (0, long)  # it has no length
        timed = [
            slowest(own, "controls", length, limit)
            for length, limit in zip(lengths, IN_KERNEL, strict=True)
        ]
        screen = [
            slowest(own, part, record["settings"]["on_screen"], ON_SCREEN)
            for part in ("page", "lab")
        ]
        rows.append([f"`explore_{view}`", *timed, *screen, *drawn(own)])
    return table(head, rows)


def slowest(runs: Runs, part: str, length: int, limit: float) -> str:
    """Write the median time of the slowest control, and which that is; bold above the limit."""
    found = [
        (median(run["seconds"]), run["control"])
        for run in runs
        if run["part"] == part and length == run["length"] and run.get("seconds")
        if not run.get("problem") and not is_extra(run)
    ]
    if not found:
        return _MISSING
    seconds, control = max(found)
    said = f"{in_seconds(seconds)} ({control})"
    return f"**{said}**" if round(seconds, 3) > limit else said


def is_extra(run: dict[str, Any]) -> bool:
    """Say whether a run is of something beside a control, which the results hold as well."""
    return " " in run["control"] and run["part"] == "controls"


def drawn(runs: Runs) -> list[str]:
    """Write the size of the exported page, and what the greatest length takes."""
    shown = [run for run in runs if run["part"] == "display" and "page_bytes" in run]
    if not shown:
        return [_MISSING] * 4
    first, last = shown[0], max(shown, key=lambda run: run["length"])
    length = f"{last['length']:,}" if last["length"] else _MISSING
    memory = in_units(last["peak_bytes"]) if last["peak_bytes"] else _MISSING
    return [f"{first['page_bytes'] / 1e6:.2f} MB", length, in_seconds(last["seconds"]), memory]


def figures_in_words(runs: Runs) -> str:
    """Say how much the figures draw that know no limit."""
    said = []
    for view in dict.fromkeys(run["view"] for run in runs if run["part"] == "figures"):
        able = [run for run in runs if run["view"] == view and "seconds" in run]
        if able:
            last = max(able, key=lambda run: run["length"])
            memory = f" and {in_units(last['peak_bytes'])}" if last["peak_bytes"] else ""
            said.append(
                f"`{view}` {last['length']:,} tokens in {in_seconds(last['seconds'])}{memory}"
            )
    return f"Figures have no greatest length. Measured and drawn as PNG: {'; '.join(said)}."
