"""Explore what a training step keeps and needs: its film, its curves, and what inverting costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ipywidgets import IntSlider, Widget
from matplotlib.figure import Figure

from reformer_core.config import ReformerConfig
from reformer_viz.figures.paper_memory import plot_memory_with_paper, plotly_memory_with_paper
from reformer_viz.figures.reconstruction import plot_reconstruction, plotly_reconstruction
from reformer_viz.figures.step_film import plot_step_film, plotly_step_film
from reformer_viz.measure.memory import Axis, Memory, measure_memory
from reformer_viz.measure.reconstruction import Reconstruction, measure_reconstruction
from reformer_viz.measure.step_film import StepFilm, StepFilms, film_step
from reformer_viz.measure.step_kinds import (
    KINDS,
    LABELS,
    Kind,
    check_batch,
    check_kinds,
    new_model,
    new_tokens,
)
from reformer_viz.widgets.call import Call
from reformer_viz.widgets.controls import NARROW, choice
from reformer_viz.widgets.panel import Panel

SMALL = ReformerConfig(vocab_size=256, d_model=64, chunk_length=32, max_length=1024)
"""What is measured where nothing is given: a second or two on a laptop."""

MOST_OPERATIONS = 12_288
"""How many layers times tokens a step may have: every operation of it is looked at."""

_DRAWINGS = {
    StepFilms: (plot_step_film, plotly_step_film),
    Memory: (plot_memory_with_paper, plotly_memory_with_paper),
    Reconstruction: (plot_reconstruction, plotly_reconstruction),
}
_SHOWN = [
    ("film of one step", "film"),
    ("curves by layers", "depths"),
    ("curves by tokens", "lengths"),
    ("curves by rounds", "n_hashes"),
    ("inputs computed again", "reconstruction"),
]


def explore_memory(
    config: ReformerConfig | None = None,
    *,
    show: str = "film",
    kind: str = "all",
    n_layers: int = 4,
    length: int = 256,
    n_hashes: int = 2,
    repeats: int = 0,
    place: Mapping | None = None,
) -> Panel:
    """Show the bytes of a training step, operation by operation or as curves, in four ways.

    `show` is "film", "depths", "lengths", "n_hashes" (curves, up to what the controls say) or
    "reconstruction", the error of the inputs that a reversible stack computes again. `kind` is
    "all", or one of "standard", "checkpointed", "reversible" and "chunked". Steps are run in the
    kernel as the controls ask for them, each once. No time is taken, and what is shown is exact;
    but with `repeats=3` the curves' steps are timed as well, and it says where checkpointing is
    faster.
    """
    given, config = {"config": config, "repeats": repeats}, config or SMALL
    sizes = _Sizes(config, repeats)

    def measure(
        *, show: str, kind: str, n_layers: int, length: int, n_hashes: int
    ) -> StepFilms | Memory | Reconstruction:
        kinds = KINDS if kind == "all" else (kind,)
        check_kinds(kinds)
        shown = [name for _, name in _SHOWN]
        if show not in shown:
            raise ValueError(f"show must be one of {shown}, got {show!r}")
        if show == "film":
            return sizes.film(kinds, n_layers, length, n_hashes)
        if show == "reconstruction":
            return sizes.reconstruct(n_layers, length, n_hashes)
        return sizes.curves(show, kinds, n_layers, length, n_hashes)

    controls = _controls(config, show, kind, n_layers, length, n_hashes)
    return Panel(MemoryView(), measure, controls, place, Call(explore_memory, given))


class _Sizes:
    """Measure a config at several sizes, each once."""

    def __init__(self, config: ReformerConfig, repeats: int = 0) -> None:
        self.config = config
        self.repeats = repeats
        self._film = cache(self._film_one)
        self.reconstruct = cache(self._reconstruct)
        self.curves = cache(self._curves)

    def film(self, kinds: tuple[Kind, ...], n_layers: int, length: int, n_hashes: int) -> StepFilms:
        """Film a step in several ways."""
        return StepFilms(
            films=tuple(self._film(kind, n_layers, length, n_hashes) for kind in kinds),
            n_layers=n_layers,
            batch_size=1,
            length=length,
        )

    def _film_one(self, kind: Kind, n_layers: int, length: int, n_hashes: int) -> StepFilm:
        config = self._at(n_layers, length, n_hashes)
        return film_step(new_model(config), new_tokens(config, 1, length), kind)

    def _reconstruct(self, n_layers: int, length: int, n_hashes: int) -> Reconstruction:
        return measure_reconstruction(self._at(n_layers, length, n_hashes), length=length)

    def _curves(
        self, axis: Axis, kinds: tuple[Kind, ...], n_layers: int, length: int, n_hashes: int
    ) -> Memory:
        """Let one axis double up to what the controls say."""
        config = self._at(n_layers, length, n_hashes)
        start = {"depths": 1, "lengths": min(32, length), "n_hashes": 1}[axis]
        end = {"depths": n_layers, "lengths": length, "n_hashes": n_hashes}[axis]
        values = {axis: _doubling(start, end)}
        return measure_memory(config, **values, kinds=kinds, length=length, repeats=self.repeats)

    def _at(self, n_layers: int, length: int, n_hashes: int) -> ReformerConfig:
        """Return the config at a size, if that is one and not too much to look at."""
        check_batch(1, length)
        if n_layers * length > MOST_OPERATIONS:
            raise ValueError(
                f"layers times tokens must be at most {MOST_OPERATIONS:,} here, got {n_layers} x "
                f"{length:,}: take fewer of either, or call measure_memory and wait"
            )
        return replace(self.config, n_layers=n_layers, n_hashes=n_hashes)


def _doubling(start: int, end: int) -> tuple[int, ...]:
    """Return start, twice that, and so on, and the end."""
    values = [start]
    while 2 * values[-1] < end:
        values.append(2 * values[-1])
    return (*values, end) if end > values[-1] else tuple(values)


@dataclass(frozen=True)
class MemoryView:
    """A film, curves, or errors."""

    title = "What a training step keeps"

    def describe(self, data: StepFilms | Memory | Reconstruction, place: Mapping) -> str:
        """Say what is shown; of curves, also the times, if taken, and what the paper counts."""
        if not isinstance(data, Memory):
            return data.describe()
        times = [data.describe_times()] if data.timed else []
        return " ".join([data.describe(), *times, data.describe_paper()])

    def plotly(self, data: StepFilms | Memory | Reconstruction, place: Mapping) -> Any:
        """Draw it with Plotly."""
        return _DRAWINGS[type(data)][1](data)

    def plot(self, data: StepFilms | Memory | Reconstruction, place: Mapping) -> Figure:
        """Draw it with Matplotlib."""
        return _DRAWINGS[type(data)][0](data)


def _controls(
    config: ReformerConfig, show: str, kind: str, n_layers: int, length: int, n_hashes: int
) -> dict[str, Widget]:
    lengths = _doubling(min(32, config.max_length), config.max_length)
    return {
        "show": choice("show", show, _SHOWN, NARROW),
        "kind": choice(
            "kind", kind, [("all four", "all"), *((LABELS[k], k) for k in KINDS)], NARROW
        ),
        "n_layers": _slider("layers", n_layers, 12),
        "length": choice("tokens", length, [(f"{tokens:,}", tokens) for tokens in lengths], NARROW),
        "n_hashes": _slider("rounds", n_hashes, 8),
    }


def _slider(description: str, value: int, most: int) -> IntSlider:
    return IntSlider(
        description=description,
        value=value,
        min=min(1, value),
        max=max(most, value),
        style=NARROW,
        continuous_update=False,  # a step takes a second
    )
