"""A small, true example of every picture: for the contact sheet, and for what holds for all."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from reformer_core import ReformerConfig, ReformerLM, TrainConfig, plan_chunks, train
from reformer_core.tasks import Duplicate, TextBytes
from reformer_viz import (
    Recorder,
    explore_bucket_load,
    explore_bucketing,
    explore_bugs,
    explore_geometry,
    explore_leak,
    explore_memory,
    explore_misses,
    explore_model,
    explore_recall,
    explore_sparsity,
    explore_speed,
    explore_training,
    measure_attention_memory,
    measure_collisions,
    measure_leak,
    measure_memory,
    measure_microscope,
    measure_miss_cost,
    measure_misses,
    measure_quality,
    measure_recall,
    measure_reconstruction,
    measure_sparsity,
    measure_sparsity_per_head,
    measure_step_film,
    measure_training,
    measure_transfer,
    plot_attention_memory,
    plot_bucket_load,
    plot_bucketing,
    plot_bug,
    plot_collisions,
    plot_geometry,
    plot_leak,
    plot_memory,
    plot_memory_of_paper,
    plot_microscope,
    plot_miss_cost,
    plot_misses,
    plot_quality,
    plot_recall,
    plot_reconstruction,
    plot_sparsity,
    plot_sparsity_per_head,
    plot_speed,
    plot_step_film,
    plot_training,
    plot_transfer,
    plotly_bucket_load,
    plotly_bug,
    plotly_collisions,
    plotly_geometry,
    plotly_leak,
    plotly_memory,
    plotly_miss_cost,
    plotly_misses,
    plotly_quality,
    plotly_recall,
    plotly_reconstruction,
    plotly_speed,
    plotly_step_film,
    plotly_training,
    read_speed,
)
from reformer_viz.widgets.panel import Panel

SPEED = Path(__file__).resolve().parents[1] / "tests" / "benchmarks" / "results" / "cpu.json"
TEXT = "The statement executes the first clause, and the expression list is evaluated once. "
SMALL = ReformerConfig(
    vocab_size=256, d_model=32, n_heads=2, chunk_length=16, max_length=256, ff_chunks=4
)


class Gallery:
    """Two small models and all that is drawn of them, each made when it is first asked for.

    `steps` is how long they are trained: a few for tests, a few hundred until they have learned
    something. Everything is seeded. Names are those of the functions that draw; what stands after a
    comma tells one function's pictures apart.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def figures(self) -> dict[str, Callable[[], Figure]]:
        """Return what draws every figure for print."""
        return {
            "plot_geometry, sphere": lambda: plot_geometry(*self._geometry(3)),
            "plot_geometry, plane": lambda: plot_geometry(*self._geometry(2)),
            "plot_collisions": lambda: plot_collisions(self._collisions),
            "plot_bucketing": lambda: explore_bucketing().figure,
            "plot_bucketing, long": lambda: plot_bucketing(_long_plan().data),
            "plot_bucket_load": lambda: plot_bucket_load(explore_bucket_load().data),
            "plot_sparsity": lambda: plot_sparsity(measure_sparsity(self._plan, self._qk)),
            "plot_sparsity_per_head": lambda: plot_sparsity_per_head(
                measure_sparsity_per_head(self._written)
            ),
            "plot_leak": lambda: plot_leak(self._leak),
            "plot_recall": lambda: plot_recall(self._recall),
            "plot_misses": lambda: plot_misses(self._misses),
            "plot_miss_cost": lambda: plot_miss_cost(self._miss_cost),
            "plot_quality": lambda: plot_quality(self._quality),
            "plot_transfer": lambda: plot_transfer(self._transfer),
            "plot_bug": lambda: plot_bug(explore_bugs(bug="wraps").data.symptoms),
            "plot_memory": lambda: plot_memory(self._memory),
            "plot_memory_of_paper": lambda: plot_memory_of_paper(self._memory),
            "plot_attention_memory": lambda: plot_attention_memory(
                measure_attention_memory(SMALL, (32, 64, 128, 256))
            ),
            "plot_step_film": lambda: plot_step_film(self._film),
            "plot_reconstruction": lambda: plot_reconstruction(self._reconstruction),
            "plot_speed": lambda: plot_speed(read_speed(SPEED)),
            "plot_training": lambda: plot_training(self._training),
            "plot_microscope": lambda: plot_microscope(self._microscope),
            "plot_microscope, a token": lambda: plot_microscope(self._microscope, token=60),
        }

    def charts(self) -> dict[str, Callable[[], Any]]:
        """Return what makes every Plotly figure."""
        return {
            "plotly_geometry, sphere": lambda: plotly_geometry(*self._geometry(3)),
            "plotly_geometry, plane": lambda: plotly_geometry(*self._geometry(2)),
            "plotly_collisions": lambda: plotly_collisions(self._collisions),
            "plotly_bucket_load": lambda: plotly_bucket_load(explore_bucket_load().data),
            "plotly_leak": lambda: plotly_leak(self._leak),
            "plotly_recall": lambda: plotly_recall(self._recall),
            "plotly_misses": lambda: plotly_misses(self._misses),
            "plotly_miss_cost": lambda: plotly_miss_cost(self._miss_cost),
            "plotly_quality": lambda: plotly_quality(self._quality),
            "plotly_bug": lambda: plotly_bug(explore_bugs(bug="wraps").data.symptoms),
            "plotly_memory": lambda: plotly_memory(self._memory),
            "plotly_step_film": lambda: plotly_step_film(self._film),
            "plotly_reconstruction": lambda: plotly_reconstruction(self._reconstruction),
            "plotly_speed": lambda: plotly_speed(read_speed(SPEED)),
            "plotly_training": lambda: plotly_training(self._training),
        }

    def explorers(self) -> dict[str, Callable[[], Panel]]:
        """Return what makes every explorer."""
        film = {"n_layers": 2, "length": 64}
        return {
            "explore_geometry, sphere": explore_geometry,
            "explore_geometry, plane": lambda: explore_geometry(dimension=2, n_points=64),
            "explore_bucketing": explore_bucketing,
            "explore_bucket_load": explore_bucket_load,
            "explore_sparsity": explore_sparsity,
            "explore_leak": explore_leak,
            "explore_misses, answers": lambda: explore_misses(self._copying[0], self._task),
            "explore_misses, text": lambda: explore_misses(self._writer, TEXT * 2),
            "explore_bugs": lambda: explore_bugs(bug="unstable_sort"),
            "explore_recall": explore_recall,
            "explore_memory, film": lambda: explore_memory(SMALL, **film),
            "explore_memory, curves": lambda: explore_memory(SMALL, show="depths", **film),
            "explore_memory, reconstruction": lambda: explore_memory(
                SMALL, show="reconstruction", **film
            ),
            "explore_speed": lambda: explore_speed(SPEED),
            "explore_training": lambda: explore_training(self._training),
            "explore_model": lambda: explore_model(self._writer, TEXT * 2, place={"token": 60}),
        }

    # ---------------------------------------------------------------- models, and what they saw

    @cached_property
    def _task(self) -> Duplicate:
        return Duplicate(vocab_size=32, length=64)

    @cached_property
    def _copying(self) -> tuple[ReformerLM, Any]:
        """A model that copies, and the measurement of its training."""
        probe = next(self._task.held_out(1)).tokens
        model = _seeded(vocab_size=32, n_layers=1, n_heads=4, attention=("lsh",), max_length=64)
        every = max(1, self.steps // 20)
        recorder = Recorder(model, probe, at=range(0, self.steps + 1, every))
        how = TrainConfig(
            steps=self.steps,
            batch_size=32,
            learning_rate=2e-3,
            evaluate_every=max(1, self.steps // 6),
        )
        run = train(model, self._task, how, on_step=recorder)
        return model.eval(), measure_training(run, recorder)

    @property
    def _training(self) -> Any:
        return self._copying[1]

    @cached_property
    def _writer(self) -> ReformerLM:
        """A model of text."""
        kinds = ("local", "lsh", "lsh")
        model = _seeded(vocab_size=256, n_layers=3, n_heads=2, attention=kinds, max_length=256)
        how = TrainConfig(steps=self.steps, batch_size=8, learning_rate=3e-3, evaluation_batches=1)
        train(model, TextBytes(length=128), how)
        return model.eval()

    @cached_property
    def _tokens(self) -> torch.Tensor:
        return TextBytes.encode(TEXT * 2)[None]

    @cached_property
    def _written(self) -> Any:
        return self._writer.trace(self._tokens)

    @cached_property
    def _copied(self) -> Any:
        return self._copying[0].trace(next(self._task.held_out(1)).tokens).layers[0]

    @property
    def _plan(self) -> Any:
        return self._copied.plan

    @property
    def _qk(self) -> torch.Tensor:
        return self._copied.qk

    @cached_property
    def _recall(self) -> Any:
        layer = self._copied
        return measure_recall(
            layer.qk, layer.values, n_buckets=[4, 8], chunk_length=16, top_k=4, seeds=(0, 1)
        )

    @cached_property
    def _misses(self) -> Any:
        return measure_misses(self._copying[0], self._task, max_hashes=4, n_sequences=64)

    @cached_property
    def _quality(self) -> Any:
        steps = min(self.steps, 60)
        how = TrainConfig(
            steps=steps, batch_size=8, evaluate_every=max(1, steps // 3), evaluation_batches=1
        )
        return measure_quality(SMALL, TextBytes(64), (1, 2), train=how)

    @cached_property
    def _transfer(self) -> Any:
        return measure_transfer({"LSH-4": self._copying[0]}, self._task)

    @cached_property
    def _miss_cost(self) -> Any:
        return measure_miss_cost(self._writer, self._tokens, max_hashes=2)

    @cached_property
    def _microscope(self) -> Any:
        return measure_microscope(self._writer, TEXT * 2)

    # ---------------------------------------------------------------------- what needs no training

    def _geometry(self, dimension: int) -> tuple:
        reading = explore_geometry(dimension=dimension).data
        return reading.geometry, reading.collisions

    @cached_property
    def _collisions(self) -> Any:
        return measure_collisions([2, 8, 32], n_pairs=300)

    @cached_property
    def _memory(self) -> Any:
        return measure_memory(SMALL, (1, 2, 4, 8), repeats=0)

    @cached_property
    def _film(self) -> Any:
        return measure_step_film(replace(SMALL, n_layers=4), length=128)

    @cached_property
    def _leak(self) -> Any:
        """What later tokens change where buckets are longer than chunks: there is a leak."""
        buckets = torch.randint(4, (1, 1, 2, 128), generator=torch.Generator().manual_seed(0))
        return measure_leak(plan_chunks(buckets, chunk_length=8, causal=True, n_buckets=4))

    @cached_property
    def _reconstruction(self) -> Any:
        return measure_reconstruction(replace(SMALL, n_layers=8), length=128)


def _seeded(**config: Any) -> ReformerLM:
    torch.manual_seed(0)
    return ReformerLM(ReformerConfig(d_model=64, n_hashes=4, chunk_length=16, **config))


def _long_plan() -> Panel:
    return explore_bucketing(n_tokens=2048, n_buckets=64, chunk_length=32)
