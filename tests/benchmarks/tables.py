"""What the README says about speed, made from a file of results and from nothing else."""

import json
from pathlib import Path

import numpy as np

from reformer_viz.measure.memory import in_units
from reformer_viz.measure.speed import (
    Contestant,
    SpeedMeasurement,
    TrainingSteps,
    in_rounds,
    in_seconds,
    read_speed,
    read_training_steps,
)

_MISSING = "-"


def seconds(value: float) -> str:
    """Write a time as a reader compares it."""
    return in_seconds(value) if np.isfinite(value) else _MISSING


def memory(value: float) -> str:
    """Write a number of bytes."""
    return in_units(value) if np.isfinite(value) else _MISSING


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lay out a Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def reference(contestants: tuple[Contestant, ...], row: int) -> int | None:
    """Return the row of ours that a contestant is compared with: the one of its semantics.

    Whoever has no semantics of rounds is compared with each pair once.
    """
    if contestants[row].kind == "ours":
        return None
    wanted = "ours", bool(contestants[row].counts_repeats)
    found = [(c.kind, c.counts_repeats) for c in contestants]
    return found.index(wanted) if wanted in found else None


def attention_table(measurement: SpeedMeasurement) -> str:
    """Tabulate everybody's step at the main number of rounds, with ratios to ours."""
    place = measurement.main_round()
    fastest = measurement.step.fastest[:, place]
    at = memory_place(measurement)
    head = [
        in_rounds(measurement.n_hashes[place]),
        *(f"{length:,} tokens" for length in measurement.lengths),
        f"extra memory at {measurement.lengths[at]:,}",
        "time grows with",
    ]
    rows = []
    for row, contestant in enumerate(measurement.contestants):
        times = [
            seconds(time) + _ratio(measurement, row, fastest[:, column])
            for column, time in enumerate(fastest[row])
        ]
        extra = memory(measurement.step.extra_bytes[row, place, at])
        power = measurement.exponents()[row, place]
        grows = f"length^{power:.2f}" if np.isfinite(power) else _MISSING
        cells = [contestant.label, *times, extra, grows]
        is_ours = contestant.kind == "ours"
        rows.append([f"**{cell}**" if is_ours else cell for cell in cells])
    return table(head, rows)


def memory_place(measurement: SpeedMeasurement) -> int:
    """Return the place of the greatest length at which ours and every peer's memory is known."""
    extra = measurement.step.extra_bytes[:, measurement.main_round()]
    known = np.isfinite(extra[measurement.rows("ours") + measurement.rows("peer")]).sum(0)
    return int(np.flatnonzero(known == known.max())[-1])


def _ratio(measurement: SpeedMeasurement, row: int, times: np.ndarray) -> str:
    """Write how many times ours a time is; times are those of everybody at one length."""
    ours = reference(measurement.contestants, row)
    if ours is None or not np.isfinite(times[[row, ours]]).all():
        return ""
    return f" ({times[row] / times[ours]:.1f}x)"


def training_table(steps: TrainingSteps) -> str:
    """Tabulate one training step of the whole model, with ratios to ours."""
    head = [f"one training step, {steps.length:,} tokens, {in_rounds(steps.n_hashes)}"]
    rows = []
    for row, contestant in enumerate(steps.contestants):
        ours = reference(steps.contestants, row)
        ratio = "" if ours is None else f" ({steps.fastest[row] / steps.fastest[ours]:.2f}x)"
        time, extra = seconds(steps.fastest[row]) + ratio, memory(steps.extra_bytes[row])
        is_ours = contestant.kind == "ours"
        rows.append([f"**{c}**" if is_ours else c for c in (contestant.label, time, extra)])
    return table([*head, "time", "extra memory"], rows)


def skipped(record: dict, n_hashes: int) -> list[str]:
    """Say whom the table misses, where, and why."""
    labels = {said["key"]: said["label"] for said in record["contestants"]["attention"]}
    said = {}
    for run in record["runs"]:
        is_in_table = (run["part"], run["pass"], run["n_hashes"]) == ("attention", "step", n_hashes)
        if is_in_table and run["skipped"]:
            where = "" if run["cause"] == "absent" else f" at {run['length']:,} tokens"
            said[f"{labels[run['contestant']]}{where}: {run['skipped']}"] = None
    return list(said)


def about(record: dict, measurement: SpeedMeasurement) -> str:
    """Say what was measured, on what and when."""
    versions, settings = record["versions"], record["settings"]
    named = ", ".join(
        f"{name} {versions[name]}"
        for name in ("torch", "reformer-pytorch", "transformers")
        if versions[name]
    )
    return (
        f"{'A quick run' if settings['grid'] == 'quick' else 'Measured'} on {record['date']}: "
        f"{measurement.machine}; {named}; commit {versions['commit']}. "
        f"A pass is forward and backward with hashing and sorting, {settings['dtype']}, 8 heads of "
        f"64, chunks of 64, causal; times are the fastest of up to {settings['repeats']}, "
        f"everybody's taken in turn. In brackets: how many times ours."
    )


def summary(path: Path) -> str:
    """Return all tables of a file of results as Markdown."""
    record, steps = json.loads(path.read_text()), read_training_steps(path)
    parts = []
    if any(run["part"] == "attention" and run["seconds"] for run in record["runs"]):
        measurement = read_speed(path)
        parts += [about(record, measurement), attention_table(measurement)]
        missing = skipped(record, int(measurement.n_hashes[measurement.main_round()]))
        parts += [f"Not measured: {'; '.join(missing)}."] if missing else []
        parts.append(measurement.describe())
    if steps is not None:
        parts.append(training_table(steps))
    return "\n\n".join(parts)
