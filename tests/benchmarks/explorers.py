"""Which explorers are timed, and of what: every one of them, at any length that it takes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

import reformer_viz as viz
from reformer_core import ReformerConfig, ReformerLM, plan_chunks
from reformer_core.training import StepRecord
from reformer_viz.measure.recording import NOBODY, Recording
from reformer_viz.measure.training import Training, collect_training
from reformer_viz.widgets import bucket_load, bucketing, leak, memory, microscope, recall, training
from reformer_viz.widgets import sparsity as sparsity_widget
from reformer_viz.widgets.panel import Panel
from tests.benchmarks.race import ROOT

N_BUCKETS, CHUNK_LENGTH, N_HASHES = 64, 64, 4
"""Of the pictures that are drawn at great lengths; explorers begin with their own defaults."""

_SNAPSHOTS, _TEXT = 41, "She sells sea shells by the sea shore. "
_RESULTS = ROOT / "tests" / "benchmarks" / "results" / "cpu.json"


@dataclass(frozen=True, kw_only=True)
class Explorer:
    """An explorer, and how many tokens it takes."""

    key: str
    make: Callable[[int], Panel]
    """Makes one of so many tokens."""
    most: int | None
    """The greatest length that it draws; None where there is no length, and `make` ignores it."""


def vectors(length: int, heads: int, width: int = 16) -> torch.Tensor:
    """Draw vectors "heads length width" long enough for full attention to have favourites."""
    drawn = torch.randn(heads, length, width, generator=torch.Generator().manual_seed(0))
    return 2 * drawn


def model_of(length: int) -> ReformerLM:
    """Make a small model of bytes: what it has learned hardly changes how long a picture takes."""
    torch.manual_seed(0)
    config = ReformerConfig(
        vocab_size=256,
        d_model=64,
        n_layers=4,
        n_heads=4,
        attention=("local", "lsh"),
        n_hashes=N_HASHES,
        n_buckets=N_BUCKETS,
        chunk_length=32,
        max_length=length,
    )
    return ReformerLM(config)


def text_of(length: int) -> str:
    """Write so many letters."""
    return (_TEXT * (length // len(_TEXT) + 1))[:length]


def training_of(length: int) -> Training:
    """Make up a run whose probe's tokens wander from bucket to bucket until they stay."""
    dice = np.random.default_rng(0)
    rounds = 2 if length > 4096 else N_HASHES
    heads = 1 if length > 4096 else 2
    shape = _SNAPSHOTS, 1, heads, rounds, length
    moves = dice.random(shape) < np.linspace(1, 0, _SNAPSHOTS)[:, None, None, None, None]
    moves[0] = True
    last_move = np.maximum.accumulate(
        np.where(moves, np.arange(_SNAPSHOTS)[:, None, None, None, None], 0)
    )
    buckets = np.take_along_axis(dice.integers(32, size=shape), last_move, axis=0)
    sought = np.maximum(np.arange(length) - dice.integers(1, 64, size=length), NOBODY)
    recording = Recording(
        steps=10 * np.arange(_SNAPSHOTS),
        buckets=buckets.astype(np.int16),
        sought=np.broadcast_to(sought.astype(np.int32), (_SNAPSHOTS, 1, heads, length)).copy(),
        mass_found=np.linspace(0.2, 0.9, _SNAPSHOTS * heads, dtype=np.float32).reshape(
            _SNAPSHOTS, 1, heads
        ),
        tokens=np.arange(length),
        labels=tuple(text_of(length)),
        layers=(0,),
        rule={"n_buckets": 32, "chunk_length": 32, "causal": True, **_PAPER},
    )
    history = [
        StepRecord(
            step=step, loss=3 / step, learning_rate=1e-3, gradient_norm=1.0, tokens=8, seconds=1.0
        )
        for step in range(1, 10 * _SNAPSHOTS)
    ]
    return collect_training(history, (), recording, "finished")


_PAPER = {
    "chunks_before": 1,
    "chunks_after": 0,
    "window": "chunks",
    "within_bucket": True,
    "padding": None,
}


def _recall(length: int) -> Panel:
    return viz.explore_recall(vectors(length, heads=2), vectors(length, heads=2, width=17))


def _memory(length: int) -> Panel:
    layers = 4 if 4 * length <= memory.MOST_OPERATIONS else 1
    config = ReformerConfig(vocab_size=256, d_model=64, chunk_length=32, max_length=length)
    return viz.explore_memory(config, n_layers=layers, length=length)


def _most_of_training() -> int:
    """Return how long a probe a page carries, of the run that is made up here."""
    return training.MOST_LETTERS // (_SNAPSHOTS * 2)


EXPLORERS = {
    explorer.key: explorer
    for explorer in (
        Explorer(
            key="bucketing",
            make=lambda length: viz.explore_bucketing(n_tokens=length),
            most=bucketing.MOST_TOKENS,
        ),
        Explorer(
            key="bucket_load",
            make=lambda length: viz.explore_bucket_load(n_tokens=length),
            most=bucket_load.MOST_TOKENS,
        ),
        Explorer(key="geometry", make=lambda _: viz.explore_geometry(), most=None),
        Explorer(
            key="sparsity",
            make=lambda length: viz.explore_sparsity(n_tokens=length),
            most=sparsity_widget.MOST_TOKENS,
        ),
        Explorer(key="leak", make=lambda n: viz.explore_leak(n_tokens=n), most=leak.MOST_TOKENS),
        Explorer(key="recall", make=_recall, most=recall.MOST_TOKENS),
        Explorer(key="memory", make=_memory, most=memory.MOST_OPERATIONS),
        Explorer(
            key="misses", make=lambda _: viz.explore_misses(model_of(256), text_of(256)), most=None
        ),
        Explorer(key="bugs", make=lambda _: viz.explore_bugs(), most=None),
        Explorer(key="speed", make=lambda _: viz.explore_speed(_RESULTS), most=None),
        Explorer(
            key="training",
            make=lambda length: viz.explore_training(training_of(length)),
            most=_most_of_training(),
        ),
        Explorer(
            key="model",
            make=lambda length: viz.explore_model(model_of(length), text_of(length)),
            most=microscope.MOST_TOKENS,
        ),
    )
}
"""By the second half of their names."""


# ----------------------------------------------------------------- figures that know no limit


def _plan(length: int):
    """Hash vectors of so many tokens as the pictures' defaults say, and return both."""
    from reformer_core import draw_rotations, hash_vectors

    qk = vectors(length, heads=1)[None]
    generator = torch.Generator().manual_seed(0)
    rotations = draw_rotations(N_HASHES, 1, qk.shape[-1], N_BUCKETS, generator)
    buckets = hash_vectors(qk, rotations)
    rule = {"n_buckets": N_BUCKETS, "chunk_length": CHUNK_LENGTH, "causal": True}
    return plan_chunks(buckets, **rule), qk


def _draw_sparsity(length: int) -> Figure:
    return viz.plot_sparsity(viz.measure_sparsity(*_plan(length)))


FIGURES: dict[str, Callable[[int], Figure]] = {
    "plot_bucketing": lambda length: viz.plot_bucketing(viz.measure_bucketing(_plan(length)[0])),
    "plot_bucket_load": lambda n: viz.plot_bucket_load(viz.measure_bucket_load(_plan(n)[0])),
    "plot_sparsity": _draw_sparsity,
    "plot_leak": lambda length: viz.plot_leak(viz.measure_leak(_plan(length)[0])),
    "plot_recall": lambda length: viz.plot_recall(
        viz.measure_recall(vectors(length, heads=2), seeds=(0,), max_hashes=N_HASHES)
    ),
    "plot_microscope": lambda length: viz.plot_microscope(
        viz.measure_microscope(model_of(length), text_of(length))
    ),
}
