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
from tests.benchmarks.bounds import Peaks, Work, least_seconds

_MISSING = "-"


def seconds(value: float) -> str:
    """Write a time as a reader compares it."""
    return in_seconds(value) if np.isfinite(value) else _MISSING


def fastest_and_median(fastest: float, median: float) -> str:
    """Write two times of one contestant: the unit once if it is the same, one time if both are."""
    least, middle = seconds(fastest), seconds(median)
    if least == middle:
        return least
    number, _, unit = least.partition(" ")
    return f"{number if middle.endswith(f' {unit}') else least} / {middle}"


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


def attention_table(measurement: SpeedMeasurement, record: dict) -> str:
    """Tabulate everybody's step at the main number of rounds, with ratios to ours.

    Lengths beyond the grid, which only some reach, are one column, and so is the bound's share.
    """
    place = measurement.main_round()
    fastest, median = measurement.step.fastest[:, place], measurement.step.median[:, place]
    at = memory_place(measurement)
    known = measurement.lengths.tolist()
    in_grid = record["settings"].get("lengths", known)
    columns = [column for column, length in enumerate(known) if length in in_grid]
    longest = record["settings"].get("longest")
    shares = shares_of_bound(record, known[at], int(measurement.n_hashes[place]))
    head = [
        in_rounds(measurement.n_hashes[place]),
        *(f"{known[column]:,} tokens" for column in columns),
        *(["longest that fits"] if longest else []),
        f"extra memory at {known[at]:,}",
        *([f"share of the bound at {known[at]:,}"] if shares else []),
        "time grows with",
    ]
    rows = []
    for row, contestant in enumerate(measurement.contestants):
        times = [
            fastest_and_median(fastest[row, column], median[row, column])
            + _ratio(measurement, row, fastest[:, column])
            for column in columns
        ]
        reached = [f"{known[last]:,}" for last in np.flatnonzero(np.isfinite(fastest[row]))[-1:]]
        power = measurement.exponents()[row, place]
        cells = [
            contestant.label,
            *times,
            *([*reached, _MISSING][:1] if longest else []),
            memory(measurement.step.extra_bytes[row, place, at]),
            *([shares.get(contestant.key, _MISSING)] if shares else []),
            f"length^{power:.2f}" if np.isfinite(power) else _MISSING,
        ]
        is_ours = contestant.kind == "ours"
        rows.append([f"**{cell}**" if is_ours else cell for cell in cells])
    return table(head, rows)


def shares_of_bound(record: dict, length: int, n_hashes: int) -> dict[str, str]:
    """Say of every contestant's step how much of its fastest time the bound is, and which bound.

    Nothing of a record that does not know what its device can do.
    """
    if not record.get("peaks"):
        return {}
    shares, wanted = {}, ("attention", "step", length, n_hashes)
    for run in record["runs"]:
        case = run["part"], run["pass"], run["length"], run["n_hashes"]
        if case == wanted and run["seconds"]:
            work = dict(run["work"])
            dtype = work.pop("dtype")
            least, limit = least_seconds(Work(**work), Peaks(**record["peaks"]), dtype)
            shares[run["contestant"]] = f"{least / min(run['seconds']):.0%} ({limit})"
    return shares


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
    rounds = in_rounds(steps.n_hashes)
    head = [f"one training step in float32, {steps.length:,} tokens, {rounds}"]
    rows = []
    for row, contestant in enumerate(steps.contestants):
        ours = reference(steps.contestants, row)
        ratio = "" if ours is None else f" ({steps.fastest[row] / steps.fastest[ours]:.2f}x)"
        time = fastest_and_median(steps.fastest[row], steps.median[row]) + ratio
        cells = contestant.label, time, memory(steps.extra_bytes[row])
        rows.append([f"**{c}**" if contestant.kind == "ours" else c for c in cells])
    return table([*head, "time", "extra memory"], rows)


def training_in_words(steps: TrainingSteps) -> str:
    """Say how many times as long as each of ours with its semantics every peer takes."""
    said = []
    for row, peer in enumerate(steps.contestants):
        ours = [
            (place, contestant.label)
            for place, contestant in enumerate(steps.contestants)
            if contestant.kind == "ours" and contestant.counts_repeats == peer.counts_repeats
        ]
        if peer.kind != "peer" or not ours:
            continue
        ratios = [
            f"{steps.fastest[row] / steps.fastest[place]:.2f} times as long as {label} "
            f"({steps.median[row] / steps.median[place]:.2f} by medians)"
            for place, label in ours
        ]
        said.append(f"{peer.label} takes {'; '.join(ratios)}.")
    return " ".join(said)


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
        f"64, chunks of 64, causal; times are the fastest / the median of up to "
        f"{settings['repeats']}, everybody's taken in turn{_goes(record)}. In brackets: how many "
        f"times ours, by the fastest. {grid(record)}"
    )


def _goes(record: dict) -> str:
    """Say that training steps were measured in two goes, where that shows in their number."""
    most = record["settings"]["repeats"]
    steps = [run["seconds"] for run in record["runs"] if run["part"] == "training"]
    if not any(len(seconds) > most for seconds in steps):
        return ""
    return "; training steps were measured before all else and again after"


def grid(record: dict) -> str:
    """Say at which lengths, in how many rounds, there is a time of anybody's."""
    rounds: dict[int, set[int]] = {}
    for run in record["runs"]:
        if (run["part"], run["pass"]) == ("attention", "step") and run["seconds"]:
            rounds.setdefault(run["length"], set()).add(run["n_hashes"])
    lengths: dict[tuple[int, ...], list[str]] = {}
    for length in sorted(rounds):
        lengths.setdefault(tuple(sorted(rounds[length])), []).append(f"{length:,}")
    parts = [
        f"{_listed(tokens)} tokens in {_listed(list(map(str, numbers)))} round"
        + "s" * (numbers != (1,))
        for numbers, tokens in lengths.items()
    ]
    longer = "; those beyond the grid each contestant alone, doubling until it does not fit"
    return f"Measured were {'; '.join(parts)}{longer if record['settings'].get('longest') else ''}."


def _listed(words: list[str]) -> str:
    """Join words as a sentence does."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def peaks_in_words(record: dict) -> str:
    """Say what the shares of the bound are shares of; nothing of a record without them."""
    if not record.get("peaks"):
        return ""
    peaks = Peaks(**record["peaks"])
    products = _listed(
        [f"{flops / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, flops in peaks.flops_per_s.items()]
    )
    return (
        "The bound is the longer of two times: what must be moved, at the speed of a large copy "
        f"({peaks.bytes_per_s / 1e9:,.0f} GB/s), and what must be multiplied, at that of a large "
        f"product ({products}), both measured in the same run. Moved are, in every round, all "
        "vectors once, and every output once; multiplied are whole tiles, or for full attention "
        "the pairs on and below the diagonal."
    )


def summary(path: Path) -> str:
    """Return all tables of a file of results as Markdown."""
    record, steps = json.loads(path.read_text()), read_training_steps(path)
    parts = []
    if any(run["part"] == "attention" and run["seconds"] for run in record["runs"]):
        measurement = read_speed(path)
        parts += [about(record, measurement), attention_table(measurement, record)]
        missing = skipped(record, int(measurement.n_hashes[measurement.main_round()]))
        parts += [f"Not measured: {'; '.join(missing)}."] if missing else []
        parts += [peaks_in_words(record), measurement.describe()]
    if steps is not None:
        parts += [training_table(steps), training_in_words(steps)]
    return "\n\n".join(part for part in parts if part)
