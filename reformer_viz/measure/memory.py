"""Count what training steps keep and need as models get deeper, texts longer, rounds more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from reformer_core.config import ReformerConfig
from reformer_core.models import ReformerLM
from reformer_viz.measure.live_bytes import in_units
from reformer_viz.measure.paper_memory import PaperMemory, count_as_paper
from reformer_viz.measure.step_film import StepFilm, film_step
from reformer_viz.measure.step_kinds import (
    KINDS,
    LABELS,
    Kind,
    check_kinds,
    model_of_kind,
    new_model,
    new_tokens,
)

Axis = Literal["depths", "lengths", "n_hashes"]
UNITS: dict[Axis, str] = {"depths": "layer", "lengths": "token", "n_hashes": "round"}
DEFAULT_DEPTHS = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What the steps of one kind took, in bytes, and how long they took."""

    floats: Int[np.ndarray, " points"]
    """Activations that are alive between forward and backward."""
    integers: Int[np.ndarray, " points"]
    """Buckets, plans and random states that are alive there."""
    peak: Int[np.ndarray, " points"]
    """The most that was alive at any moment of the step, gradients included, parameters not."""
    activations: Int[np.ndarray, " points"]
    """The most floats at once that were no gradient of a parameter."""
    seconds: Float[np.ndarray, " points"]
    """The fastest of several forward and backward passes; NaN where none was timed."""

    @property
    def kept(self) -> Int[np.ndarray, " points"]:
        """All that is alive between forward and backward."""
        return self.floats + self.integers


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes and times of one training step along one axis, in several ways of remembering."""

    axis: Axis
    """What grows from point to point; the other two are the same everywhere."""
    depths: Int[np.ndarray, " points"]
    lengths: Int[np.ndarray, " points"]
    n_hashes: Int[np.ndarray, " points"]
    batch_size: int
    steps: dict[Kind, StepMemory]
    parameters: Int[np.ndarray, " points"]
    """Bytes of the parameters; their gradients take the same again."""
    optimizer: Int[np.ndarray, " points"]
    """Bytes of AdamW's memory."""
    paper: PaperMemory
    """What the paper's tables count at the same points."""

    @property
    def values(self) -> Int[np.ndarray, " points"]:
        """What grows."""
        return getattr(self, self.axis)

    @property
    def standard(self) -> StepMemory:
        """The stack that keeps what autograd keeps."""
        return self.steps["standard"]

    @property
    def checkpointed(self) -> StepMemory:
        """The stack that keeps every layer's input."""
        return self.steps["checkpointed"]

    @property
    def reversible(self) -> StepMemory:
        """The stack that keeps its last output."""
        return self.steps["reversible"]

    @property
    def chunked(self) -> StepMemory:
        """The reversible stack with feed-forward and loss in pieces."""
        return self.steps["chunked"]

    def growth(self, kind: Kind) -> float:
        """Return how many bytes of kept activations one more layer, token or round adds."""
        floats = self.steps[kind].floats
        return float(floats[-1] - floats[0]) / max(1, int(self.values[-1] - self.values[0]))

    def relative_seconds(self, kind: Kind) -> Float[np.ndarray, " points"]:
        """Return the time of a kind's step against the first kind's, taken in turn with it."""
        return self.steps[kind].seconds / next(iter(self.steps.values())).seconds

    def describe(self) -> str:
        """Say in a few sentences what the curves show: what is exact, and so no times."""
        return " ".join([self._kept_in_words(), *self._peaks_in_words(), self._grown_in_words()])

    def describe_times(self) -> str:
        """Say where which kind is how fast, and where checkpointing beats reversing."""
        if not self.timed:
            return "No step was timed: ask for repeats=3."
        first, *others = self.steps
        last = self.at(-1)
        said = [f"At {last} a {LABELS[first]} step takes {self.steps[first].seconds[-1]:.3g} s."]
        took = [f"{self.relative_seconds(kind)[-1]:.2f} ({LABELS[kind]})" for kind in others]
        if others:
            said.append(f"The others take so many times as long: {', '.join(took)}.")
        if {"checkpointed", "reversible"} <= set(self.steps):
            faster = self.checkpointed.seconds < self.reversible.seconds
            said.append(f"Checkpointing is faster than reversing at {self._points(faster)}.")
        return " ".join(said)

    def describe_paper(self) -> str:
        """Say by how much the measured activations exceed what the paper's tables count."""
        said = [
            f"{in_units(self.steps[kind].activations[-1])} ({LABELS[kind]}) where Table 3 counts "
            f"{in_units(term[-1])}"
            for kind, term in self.paper.width.items()
            if kind in self.steps
        ]
        windows, pairs = self.paper.windows[-1], self.paper.all_pairs[-1]
        most = (
            f"At {self.at(-1)} the most activations at once are {', '.join(said)}: it counts one "
            f"tensor of many. "
        )
        return (
            f"{most if said else ''}The attention term of Tables 1 and 3 as printed would be "
            f"{in_units(windows)} for LSH at {self.at(-1)}, "
            f"against {in_units(pairs)} for all pairs: scores that are computed again are not kept."
        )

    @property
    def timed(self) -> bool:
        """Whether times were taken."""
        return all(np.isfinite(step.seconds).all() for step in self.steps.values())

    def at(self, point: int) -> str:
        """Name a point: "8 layers"."""
        return _with_unit(int(self.values[point]), UNITS[self.axis])

    def fixed(self) -> str:
        """Name what is the same at every point: "4 layers of 4 rounds at 1 x 512 tokens"."""
        layers = _with_unit(int(self.depths[0]), "layer")
        rounds = _with_unit(int(self.n_hashes[0]), "round")
        tokens = f"{self.batch_size} x {int(self.lengths[0]):,} tokens"
        return {
            "depths": tokens,
            "lengths": f"{layers} of {rounds}, batch {self.batch_size}",
            "n_hashes": f"{layers}, {tokens}",
        }[self.axis]

    def _kept_in_words(self) -> str:
        """Say how what is kept grows, and to what."""
        first, *others = self.steps
        unit = UNITS[self.axis]
        less = [f"a {LABELS[kind]} one by {in_units(self.growth(kind))}" for kind in others]
        grows = f"a {LABELS[first]} stack grows by {in_units(self.growth(first))} of activations"
        kept, peaks = (
            _against([in_units(getattr(step, of)[-1]) for step in self.steps.values()])
            for of in ("floats", "peak")
        )
        return (
            f"Kept for the backward at {self.fixed()}: from {self.values[0]:,} to {self.at(-1)} "
            f"{', '.join([f'{grows} a {unit}', *less])}. At {self.at(-1)} that is {kept}, and the "
            f"step's peak {peaks}."
        )

    def _peaks_in_words(self) -> list[str]:
        """Say which kind has the lowest peak where, and where checkpointing wins."""
        peaks = np.array([step.peak for step in self.steps.values()])
        if len(peaks) == 1:
            return []
        lowest = peaks.argmin(0)
        where = [
            f"{LABELS[kind]} at {self._points(lowest == row)}"
            for row, kind in enumerate(self.steps)
            if (lowest == row).any()
        ]
        said = [f"The lowest peak has: {'; '.join(where)}."]
        if {"checkpointed", "reversible"} <= set(self.steps):
            lower = self.checkpointed.peak < self.reversible.peak
            said.append(f"Checkpointing peaks below plain reversing at {self._points(lower)}.")
        return said

    def _grown_in_words(self) -> str:
        """Say what grows however a stack remembers."""
        *_, kind = self.steps
        parts = {
            "buckets and random states": self.steps[kind].integers,
            "parameters, and as much of gradients,": self.parameters,
            "AdamW's memory": self.optimizer,
        }
        grown = [
            f"{name} from {in_units(part[0])} to {in_units(part[-1])}"
            for name, part in parts.items()
            if part[-1] > part[0]
        ]
        if not grown:
            return f"Nothing else grows in a {LABELS[kind]} stack."
        return f"What else grows, in a {LABELS[kind]} stack too: {', '.join(grown)}."

    def _points(self, chosen: np.ndarray) -> str:
        """Name some of the points: "2, 4 and 8 layers"."""
        numbers = [f"{value:,}" for value in self.values[chosen]]
        if not numbers:
            return f"no number of {UNITS[self.axis]}s"
        return f"{_listed(numbers)} {UNITS[self.axis]}{'s' * (numbers[-1] != '1')}"


def measure_memory(
    config: ReformerConfig,
    depths: Sequence[int] | None = None,
    *,
    lengths: Sequence[int] | None = None,
    n_hashes: Sequence[int] | None = None,
    kinds: Sequence[str] = KINDS,
    batch_size: int = 1,
    length: int | None = None,
    repeats: int = 3,
    device: str = "cpu",
) -> Memory:
    """Run training steps that grow along one axis, in several ways of remembering, and count bytes.

    The axis is `depths`, `lengths` or `n_hashes`, whichever is given; without any it is depths of
    1, 2, 4 and 8 layers. What is not the axis is as the config says; `length` defaults to
    `config.max_length`. The ways are those of `model_of_kind`, the same function with the same
    weights.

    Counted are the tensors themselves, storage by storage, while they live: the numbers are exact
    and the same on every run and machine; on "cuda" it is what the allocator gave out, as in
    `measure_step_film`. Times are not: of every kind the fastest of `repeats`
    steps, taken in turn, after one that warms up; with `repeats=0` none is timed. The caller's
    random state is left as it was.

    Raises ValueError for more than one axis, for a value below 1 or none at all, for texts longer
    than `max_length`, and for an unknown kind.
    """
    axis, values = _axis(depths, lengths, n_hashes)
    check_kinds(tuple(kinds))
    if repeats < 0:
        raise ValueError(f"repeats must be at least 0, got {repeats}: 0 leaves the times out")
    points = {
        "depths": config.n_layers,
        "lengths": config.max_length if length is None else length,
        "n_hashes": config.n_hashes,
        axis: values,
    }
    points = dict(zip(points, np.broadcast_arrays(*points.values()), strict=True))
    columns = [
        _measure_point(
            replace(config, n_layers=int(depth), n_hashes=int(rounds)),
            new_tokens(config, batch_size, int(tokens)).to(device),
            tuple(kinds),
            repeats,
        )
        for depth, tokens, rounds in zip(*points.values(), strict=True)
    ]
    films = [[film for film, _ in column] for column in columns]
    seconds = np.array([[time for _, time in column] for column in columns])
    return Memory(
        axis=axis,
        **points,
        batch_size=batch_size,
        steps={
            kind: _summarized([film[row] for film in films], seconds[:, row])
            for row, kind in enumerate(kinds)
        },
        parameters=np.array([film[0].parameters for film in films]),
        optimizer=np.array([film[0].optimizer for film in films]),
        paper=count_as_paper(config, **points, batch_size=batch_size),
    )


def _axis(
    depths: Sequence[int] | None, lengths: Sequence[int] | None, n_hashes: Sequence[int] | None
) -> tuple[Axis, list[int]]:
    """Return which axis is meant, and its values."""
    axes = {"depths": depths, "lengths": lengths, "n_hashes": n_hashes}
    given = {name: values for name, values in axes.items() if values is not None}
    if len(given) > 1:
        raise ValueError(
            f"one axis grows at a time, got {' and '.join(given)}: measure them one by one"
        )
    axis, values = next(iter(given.items()), ("depths", DEFAULT_DEPTHS))
    if len(values) == 0 or min(values) < 1:
        what = f"{UNITS[axis]}s"
        raise ValueError(f"{axis} must be one or more numbers of {what}, got {tuple(values)}")
    return axis, [int(value) for value in values]


def _measure_point(
    config: ReformerConfig,
    tokens: Int[torch.Tensor, "batch length"],
    kinds: tuple[Kind, ...],
    repeats: int,
) -> list[tuple[StepFilm, float]]:
    """Film, and time, one step of every kind."""
    model = new_model(config).to(tokens.device)
    films = [film_step(model, tokens, kind) for kind in kinds]
    steps = [_step_of(model_of_kind(model, kind), tokens) for kind in kinds] if repeats else []
    with torch.random.fork_rng(), torch.enable_grad():
        seconds = _fastest(steps, repeats) if repeats else [np.nan] * len(kinds)
    return list(zip(films, seconds, strict=True))


def _step_of(model: ReformerLM, tokens: Int[torch.Tensor, "batch length"]) -> Callable[[], None]:
    """Return a function that runs a forward and backward pass, always with the same rotations."""

    def step() -> None:
        model.zero_grad()
        model.hash_step.zero_()
        model.loss(tokens).backward()
        if tokens.is_cuda:
            torch.cuda.synchronize()

    return step


def _fastest(steps: list[Callable[[], None]], repeats: int) -> list[float]:
    """Time all steps in turn, several times after a first that only warms up."""
    seconds = [[_seconds(step) for step in steps] for _ in range(1 + repeats)]
    return np.min(seconds[1:], axis=0).tolist()


def _seconds(work: Callable[[], None]) -> float:
    """Return how long some work takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def _summarized(films: list[StepFilm], seconds: np.ndarray) -> StepMemory:
    """Keep of every film what the curves need."""
    last = [film.n_forward - 1 for film in films]
    return StepMemory(
        floats=np.array([film.activations[at] for film, at in zip(films, last, strict=True)]),
        integers=np.array([film.integers[at] for film, at in zip(films, last, strict=True)]),
        peak=np.array([film.peak for film in films]),
        activations=np.array([film.activations.max() for film in films]),
        seconds=seconds,
    )


def _with_unit(number: int, unit: str) -> str:
    """Write "1 layer" or "8 layers"."""
    return f"{number:,} {unit}{'s' * (number != 1)}"


def _listed(words: list[str]) -> str:
    """Write "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _against(amounts: list[str]) -> str:
    """Write "a against b, c and d"."""
    first, *others = amounts
    return f"{first} against {_listed(others)}" if others else first
