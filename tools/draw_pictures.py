"""Draw the README's pictures, and time its training steps: `make pictures`."""

from dataclasses import replace
from datetime import date

import torch

from reformer_core import ReformerConfig
from reformer_viz import (
    explore_bucketing,
    measure_memory,
    measure_step_film,
    plot_memory,
    plot_step_film,
)
from reformer_viz.measure.memory import Memory
from tests.benchmarks.readme import DOCS, README, with_section
from tests.benchmarks.record import machine


def draw() -> None:
    """Write docs/who_sees_whom.png, docs/memory.png with its section, and docs/step_film.png."""
    explorer = explore_bucketing(n_tokens=64, n_buckets=8, n_hashes=4, chunk_length=8)
    config = ReformerConfig(
        vocab_size=256, d_model=64, chunk_length=32, max_length=1024, ff_chunks=4, loss_chunks=4
    )
    memory = measure_memory(config, (1, 2, 4, 8, 12), repeats=3)
    README.write_text(with_section(README.read_text(), "memory", memory_section(memory)))
    film = plot_step_film(measure_step_film(replace(config, n_layers=8)))
    pictures = {"who_sees_whom": explorer.figure, "memory": plot_memory(memory), "step_film": film}
    for name, figure in pictures.items():
        figure.savefig(DOCS / f"{name}.png", dpi=110)
        print(DOCS / f"{name}.png")


def memory_section(memory: Memory) -> str:
    """Say on which machine which steps were how fast, below their picture."""
    here = machine("cpu")
    load = f"; load average {here['load_average'][0]:.1f}" if here["load_average"] else ""
    on = f"{here['cpu']}, {here['cores']} cores; torch {torch.__version__}{load}"
    return (
        "![Bytes kept for the backward, a step's peak, what else grows, and the time of a step, "
        "against depth](docs/memory.png)\n\n"
        f"Bytes are the same on every machine. Times were taken on {date.today()}: {on}. "
        f"{memory.describe_times()}"
    )


if __name__ == "__main__":
    draw()
