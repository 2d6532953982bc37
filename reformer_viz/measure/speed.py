"""Time LSH attention and full attention on this machine, or read what `make bench` has measured."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from reformer_core.attention import keys_from, lsh_attention
from reformer_core.bucketing import plan_chunks
from reformer_core.config import ReformerConfig
from reformer_core.hashing import (
    default_n_buckets,
    draw_rotations,
    hash_generator,
    hash_vectors,
)
from reformer_viz.measure.memory import in_units

Kind = Literal["ours", "peer", "full", "bound"]
Quantity = Literal["seconds", "seconds a token", "bytes"]
_UNITS = {"seconds": "time", "seconds a token": "time a token", "bytes": "extra memory"}
SCHEMA = 1
"""The version of the JSON that `read_speed` reads."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Somebody whose time was taken."""

    key: str
    label: str
    kind: Kind
    """"full" attends to all pairs, "bound" is work that no implementation of whole tiles avoids."""
    counts_repeats: bool | None = None
    """Whether a pair that several rounds see weighs more; None where there are no rounds."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What one pass took; NaN where it was not measured."""

    fastest: Float[np.ndarray, "contestants rounds lengths"]
    """Seconds of the fastest repeat."""
    median: Float[np.ndarray, "contestants rounds lengths"]
    """Seconds of the median repeat."""
    extra_bytes: Float[np.ndarray, "contestants rounds lengths"]
    """The most memory that a run had beyond its inputs."""


@dataclass(frozen=True, kw_only=True)
class SpeedMeasurement:
    """Times of several attentions against length, for several numbers of rounds."""

    contestants: tuple[Contestant, ...]
    lengths: Int[np.ndarray, " lengths"]
    n_hashes: Int[np.ndarray, " rounds"]
    forward: Timings
    """Without gradients."""
    step: Timings
    """Forward and backward."""
    machine: str
    date: str

    def row(self, key: str) -> int:
        """Return where a contestant stands on the first axis."""
        keys = [contestant.key for contestant in self.contestants]
        if key not in keys:
            raise ValueError(f"key must be one of {keys}, got {key!r}")
        return keys.index(key)

    def rows(self, kind: Kind, counts_repeats: bool | None = None) -> list[int]:
        """Return where the contestants of a kind stand; of one semantics, if that is said."""
        return [
            row
            for row, contestant in enumerate(self.contestants)
            if contestant.kind == kind and counts_repeats in (None, contestant.counts_repeats)
        ]

    def values(
        self, what: Quantity | str = "seconds", backward: bool = True
    ) -> Float[np.ndarray, "contestants rounds lengths"]:
        """Return the fastest repeats' seconds, those by length, or the bytes, of one pass."""
        if what not in self.quantities():
            raise ValueError(
                f"what must be one of {list(self.quantities())}, got {what!r}: "
                "nothing else was measured"
            )
        timings = self.step if backward else self.forward
        if what == "bytes":
            return timings.extra_bytes
        return timings.fastest / (self.lengths if what == "seconds a token" else 1)

    def quantities(self) -> tuple[Quantity, ...]:
        """Name what was measured."""
        knows_bytes = bool(np.isfinite(self.step.extra_bytes).any())
        return ("seconds", "seconds a token", "bytes")[: 3 if knows_bytes else 2]

    def round_of(self, n_hashes: Integral) -> int:
        """Return the place of a number of rounds."""
        if n_hashes not in self.n_hashes:
            raise ValueError(
                f"n_hashes must be one of {self.n_hashes.tolist()}, got {n_hashes}: "
                "no other number of rounds was measured"
            )
        return self.n_hashes.tolist().index(n_hashes)

    def main_round(self) -> int:
        """Return the place of the number of rounds that was measured at most lengths.

        Of several, the one nearest to what a model has by default.
        """
        measured = np.isfinite(self.step.fastest[self.rows("ours")]).sum((0, 2))
        away = np.abs(self.n_hashes - ReformerConfig.n_hashes)
        return int(np.lexsort((away, -measured))[0])

    def best_peer(
        self, counts_repeats: bool, what: str = "fastest"
    ) -> Float[np.ndarray, "rounds lengths"]:
        """Return the least that any peer of one semantics needed in a step; NaN without one."""
        needed = getattr(self.step, what)[self.rows("peer", counts_repeats)]
        nobody = np.full((1, *needed.shape[1:]), np.nan)
        return np.fmin.reduce(np.concatenate([nobody, needed]))

    def exponents(self) -> Float[np.ndarray, "contestants rounds"]:
        """Return p of time ~ length^p for every step: the slope in a log-log picture.

        Fitted over the longer half of the lengths, where fixed costs no longer hide it; NaN where
        fewer than two of those were measured.
        """
        half = slice((len(self.lengths) - 1) // 2, None)
        logs = np.log(self.lengths[half])
        return np.array(
            [[_slope(logs, np.log(t)) for t in of_one] for of_one in self.step.fastest[..., half]]
        )

    def describe(self) -> str:
        """Say in a few sentences what the curves show."""
        place = self.main_round()
        said = [self._against_peers(counts_repeats, place) for counts_repeats in (False, True)]
        for row in self.rows("ours")[:1]:
            said += [self._against_bound(row, place), self._against_full(row, place)]
        return " ".join(sentence for sentence in [*said, self._growth(place)] if sentence)

    def _against_peers(self, counts_repeats: bool, place: int) -> str:
        """Compare ours with the best peer at the greatest length that both were measured at."""
        for row in self.rows("ours", counts_repeats)[:1]:
            mine, theirs = self.step.fastest[row, place], self.best_peer(counts_repeats)[place]
            for at in _last_of_both(mine, theirs):
                how = "repeats counted" if counts_repeats else "each pair once"
                memory = self._memory_against_peers(row, counts_repeats, (place, at))
                return (
                    f"With {how}, a forward and backward pass over {self.lengths[at]:,} tokens in "
                    f"{in_rounds(self.n_hashes[place])} takes {in_seconds(mine[at])}, "
                    f"{theirs[at] / mine[at]:.1f} times less than the fastest peer's{memory}."
                )
        return ""

    def _memory_against_peers(self, row: int, counts_repeats: bool, at: tuple[int, int]) -> str:
        """Compare the memory of ours with that of the peer that needs least."""
        mine = self.step.extra_bytes[row][at]
        theirs = self.best_peer(counts_repeats, "extra_bytes")[at]
        if not np.isfinite([mine, theirs]).all():
            return ""
        return f", and {in_units(mine)} of extra memory against at least {in_units(theirs)}"

    def _against_bound(self, row: int, place: int) -> str:
        """Compare ours with the work that no implementation of whole tiles avoids."""
        for bound in self.rows("bound")[:1]:
            mine, least = self.step.fastest[row, place], self.step.fastest[bound, place]
            for at in _last_of_both(mine, least):
                return (
                    f"At {self.lengths[at]:,} tokens {self.contestants[row].label} takes "
                    f"{mine[at] / least[at]:.2f} times as long as {self.contestants[bound].label}."
                )
        return ""

    def _against_full(self, row: int, place: int) -> str:
        """Say from which measured length on ours is faster than full attention."""
        for full in self.rows("full")[:1]:
            mine, theirs = self.step.fastest[row, place], self.step.fastest[full, place]
            slower = np.flatnonzero(np.isfinite(mine) & np.isfinite(theirs) & (mine >= theirs))
            start = slower[-1] + 1 if slower.size else 0
            said = f"With {in_rounds(self.n_hashes[place])} it is"
            if _last_of_both(mine[start:], theirs[start:]):
                return f"{said} faster than full attention from {self.lengths[start]:,} tokens on."
            return f"{said} not faster than full attention at any of these lengths."
        return ""

    def _growth(self, place: int) -> str:
        """Say how the times of ours, and of full attention, grow."""
        exponents = self.exponents()[:, place]
        said = [
            f"{exponents[row]:.2f} ({self.contestants[row].label})"
            for row in self.rows("ours") + self.rows("full")
            if np.isfinite(exponents[row])
        ]
        start = self.lengths[(len(self.lengths) - 1) // 2]
        if not said:
            return f"Too few lengths from {start:,} on were measured to say how time grows."
        return (
            f"From {start:,} to {self.lengths[-1]:,} tokens, with "
            f"{in_rounds(self.n_hashes[place])}, time grows with a power of the length: "
            f"{', '.join(said)}."
        )


@dataclass(frozen=True, kw_only=True)
class SpeedReading:
    """One quantity of a measurement at one number of rounds; refuses what was not measured."""

    measurement: SpeedMeasurement
    n_hashes: int
    what: Quantity | str = "seconds"
    backward: bool = True

    def __post_init__(self):
        self.values()

    def values(self) -> Float[np.ndarray, "contestants lengths"]:
        """Return everybody's seconds or bytes."""
        place = self.measurement.round_of(self.n_hashes)
        return self.measurement.values(self.what, self.backward)[:, place]

    def shows(self, contestant: Contestant) -> bool:
        """Say whether a contestant is of interest: of the bound, only the time is."""
        return self.what != "bytes" or contestant.kind != "bound"

    def describe(self) -> str:
        """Read out what everybody needed at the greatest length that was measured."""
        values = self.values()
        passed = "a forward and backward pass" if self.backward else "a forward pass"
        unit = _UNITS[self.what]
        for at in np.flatnonzero(np.isfinite(values).any(0))[-1:]:
            said = [
                f"{contestant.label} {in_quantity(value, self.what)}"
                for contestant, value in zip(
                    self.measurement.contestants, values[:, at], strict=True
                )
                if np.isfinite(value) and self.shows(contestant)
            ]
            return (
                f"{self.measurement.lengths[at]:,} tokens in {in_rounds(self.n_hashes)}, {unit} of "
                f"{passed}: {'; '.join(said)}."
            )
        return f"No {unit} of {passed} was measured with {in_rounds(self.n_hashes)}."


def in_rounds(n_hashes: Integral) -> str:
    """Write a number of rounds."""
    return "1 round" if n_hashes == 1 else f"{n_hashes} rounds"


def in_seconds(seconds: Real) -> str:
    """Write a time, in milliseconds where it is short."""
    return f"{seconds * 1000:,.0f} ms" if seconds < 9.9995 else f"{seconds:,.1f} s"


def in_quantity(value: Real, what: Quantity | str) -> str:
    """Write a quantity with its unit."""
    if what == "bytes":
        return in_units(value)
    return in_seconds(value) if what == "seconds" else f"{value * 1e6:,.3g} µs"


def _last_of_both(one: np.ndarray, other: np.ndarray) -> list[int]:
    """Return the last place where both were measured, or nothing."""
    return np.flatnonzero(np.isfinite(one) & np.isfinite(other))[-1:].tolist()


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Fit a line and return its slope; NaN where there are not two points."""
    there = np.isfinite(y)
    return float(np.polyfit(x[there], y[there], 1)[0]) if there.sum() > 1 else np.nan


# ------------------------------------------------------------------------ on this machine


def hash_and_attend(
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_value"],
    *,
    n_hashes: int,
    chunk_length: int = 64,
    count_repeats: bool = False,
    step: int = 0,
) -> Float[Tensor, "batch heads length d_value"]:
    """Do all that causal LSH attention is: draw rotations, hash, sort, plan, attend.

    2 * length / chunk_length buckets; each `step` has rotations of its own, as in training.
    """
    _, heads, length, d_head = qk.shape
    n_buckets = default_n_buckets(length, chunk_length)
    generator = hash_generator(0, 0, step)
    rotations = draw_rotations(n_hashes, heads, d_head, n_buckets, generator).to(qk.device)
    buckets = hash_vectors(qk, rotations, n_buckets)
    plan = plan_chunks(buckets, chunk_length=chunk_length, causal=True, n_buckets=n_buckets)
    return lsh_attention(qk, values, plan, count_repeats=count_repeats)


def measure_speed(
    lengths: Sequence[int] = (512, 1024, 2048, 4096),
    n_hashes: Sequence[int] = (1, 2, 4, 8),
    *,
    n_heads: int = 4,
    d_head: int = 64,
    chunk_length: int = 64,
    repeats: int = 3,
    device: str | None = None,
) -> SpeedMeasurement:
    """Time LSH attention, each pair once, and torch's full causal attention, on this machine.

    Hashing and sorting are included. All are timed in turn, `repeats` times, so that a slow minute
    hits all of them. Memory is not measured: within one process it cannot be told apart. `device`
    defaults to the GPU where there is one. The caller's random state is left as it was.

    Raises ValueError for lengths, rounds or repeats below 1, or none.
    """
    for name, numbers in (("lengths", lengths), ("n_hashes", n_hashes), ("repeats", [repeats])):
        if len(numbers) == 0 or min(numbers) < 1:
            raise ValueError(f"{name} must be at least 1 each, and at least one, got {numbers}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    seconds = np.stack(
        [
            _time_length(length, n_hashes, (n_heads, d_head, chunk_length), repeats, device)
            for length in lengths
        ],
        axis=-1,
    )
    forward, step = (_timings(of_pass) for of_pass in seconds)
    return SpeedMeasurement(
        contestants=(
            Contestant(key="ours_once", label="LSH attention", kind="ours", counts_repeats=False),
            Contestant(key="full", label="full attention", kind="full"),
        ),
        lengths=np.array(lengths),
        n_hashes=np.array(n_hashes),
        forward=forward,
        step=step,
        machine=machine_name(device),
        date="",
    )


def _time_length(
    length: int, n_hashes: Sequence[int], sizes: tuple[int, int, int], repeats: int, device: str
) -> Float[np.ndarray, "passes repeats contestants rounds"]:
    """Time everything at one length, all in turn."""
    n_heads, d_head, chunk_length = sizes
    generator = torch.Generator().manual_seed(0)
    qk, values, d_out = (
        torch.randn(1, n_heads, length, d_head, generator=generator).to(device) for _ in range(3)
    )
    steps = itertools.count()

    def lsh(rounds: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda qk, values: hash_and_attend(
            qk, values, n_hashes=rounds, chunk_length=chunk_length, step=next(steps)
        )

    def full(qk: Tensor, values: Tensor) -> Tensor:
        return scaled_dot_product_attention(qk, keys_from(qk), values, is_causal=True)

    attentions = [*map(lsh, n_hashes), full]
    seconds = [
        [_time_passes(attend, qk, values, d_out) for attend in attentions]
        for _ in range(1 + repeats)  # the first only warms up
    ]
    timed = np.array(seconds[1:]).transpose(2, 0, 1)
    ours, of_full = timed[..., :-1], timed[..., -1:]
    return np.stack([ours, np.broadcast_to(of_full, ours.shape)], axis=2)


def _time_passes(
    attend: Callable[[Tensor, Tensor], Tensor], qk: Tensor, values: Tensor, d_out: Tensor
) -> tuple[float, float]:
    """Return the seconds of a forward, and of a forward and backward."""
    with torch.no_grad():
        forward = _seconds(lambda: attend(qk, values), qk.device)
    leaves = [part.detach().requires_grad_() for part in (qk, values)]
    with torch.enable_grad():
        step = _seconds(lambda: attend(*leaves).backward(d_out), qk.device)
    return forward, step


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long some work takes until the device has done it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = perf_counter()
    work()
    wait()
    return perf_counter() - start


def _timings(seconds: Float[np.ndarray, "repeats contestants rounds lengths"]) -> Timings:
    """Summarize the repeats."""
    return Timings(
        fastest=seconds.min(0),
        median=np.median(seconds, axis=0),
        extra_bytes=np.full(seconds.shape[1:], np.nan),
    )


def machine_name(device: str) -> str:
    """Describe this machine."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"this machine's CPU, {threads} thread{'s' * (threads > 1)}"


# ------------------------------------------------------------------------ from `make bench`


def read_speed(path: str | Path) -> SpeedMeasurement:
    """Read the attention part of a file that `make bench` has written.

    Raises ValueError for a file that is missing or of another kind, or without a single time of an
    attention.
    """
    record = _read(path)
    runs = [run for run in record["runs"] if run["part"] == "attention"]
    timed = [run for run in runs if run["seconds"]]
    if not timed:
        raise ValueError(f"{path} must have a time of an attention, got none: run make bench")
    lengths, n_hashes = (sorted({run[name] for run in timed}) for name in ("length", "n_hashes"))
    present = {run["contestant"] for run in timed}
    contestants = tuple(
        Contestant(**said) for said in record["contestants"]["attention"] if said["key"] in present
    )
    places = [[contestant.key for contestant in contestants], n_hashes, lengths]
    forward, step = (
        _read_pass([run for run in timed if run["pass"] == name], places)
        for name in ("forward", "step")
    )
    return SpeedMeasurement(
        contestants=contestants,
        lengths=np.array(lengths),
        n_hashes=np.array(n_hashes),
        forward=forward,
        step=step,
        machine=machine_of(record),
        date=record["date"],
    )


def _read_pass(runs: list[dict[str, Any]], places: list[list]) -> Timings:
    """Put the runs of one pass in their places."""
    keys, n_hashes, lengths = places
    parts = np.full((3, len(keys), len(n_hashes), len(lengths)), np.nan)
    for run in runs:
        at = (
            keys.index(run["contestant"]),
            n_hashes.index(run["n_hashes"]),
            lengths.index(run["length"]),
        )
        parts[(slice(None), *at)] = (
            min(run["seconds"]),
            np.median(run["seconds"]),
            np.nan if run["extra_bytes"] is None else run["extra_bytes"],
        )
    fastest, median, extra_bytes = parts
    return Timings(fastest=fastest, median=median, extra_bytes=extra_bytes)


@dataclass(frozen=True, kw_only=True)
class TrainingSteps:
    """What one training step of equal models took."""

    contestants: tuple[Contestant, ...]
    fastest: Float[np.ndarray, " contestants"]
    """Seconds of the fastest repeat."""
    median: Float[np.ndarray, " contestants"]
    """Seconds of the median repeat."""
    extra_bytes: Float[np.ndarray, " contestants"]
    """The most memory that a step had beyond parameters and tokens; NaN where unknown."""
    length: int
    n_hashes: int


def read_training_steps(path: str | Path) -> TrainingSteps | None:
    """Read the training part of a file that `make bench` has written; None if it has none."""
    record = _read(path)
    runs = {
        run["contestant"]: run
        for run in record["runs"]
        if run["part"] == "training" and run["seconds"]
    }
    if not runs:
        return None
    contestants = tuple(
        Contestant(**said) for said in record["contestants"]["training"] if said["key"] in runs
    )
    ordered = [runs[contestant.key] for contestant in contestants]
    return TrainingSteps(
        contestants=contestants,
        fastest=np.array([min(run["seconds"]) for run in ordered]),
        median=np.array([np.median(run["seconds"]) for run in ordered]),
        extra_bytes=np.array([run["extra_bytes"] for run in ordered], dtype=np.float64),
        length=ordered[0]["length"],
        n_hashes=ordered[0]["n_hashes"],
    )


def machine_of(record: dict[str, Any]) -> str:
    """Describe the machine of a record."""
    machine, settings = record["machine"], record["settings"]
    if machine["gpu"]:
        return f"{machine['gpu']}, {settings['dtype']}"
    return f"{machine['cpu']}, {settings['threads']} of {machine['cores']} cores"


def read_record(path: str | Path, schema: str | int, maker: str) -> dict[str, Any]:
    """Read a JSON file, and check that it is there and was written by its maker of today."""
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be a JSON file of {maker}: {error}") from error
    got = record.get("schema") if isinstance(record, dict) else None
    if got != schema:
        raise ValueError(f"{path} must have schema {schema!r}, got {got!r}: run {maker} again")
    return record


def _read(path: str | Path) -> dict[str, Any]:
    return read_record(path, SCHEMA, "make bench")
