"""Draw the README's pictures with the project's own code: `make pictures`."""

from dataclasses import replace
from pathlib import Path

from reformer_core import ReformerConfig
from reformer_viz import (
    explore_bucketing,
    measure_memory,
    measure_step_film,
    plot_memory,
    plot_step_film,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"


def draw() -> None:
    """Write docs/who_sees_whom.png, docs/memory.png and docs/step_film.png."""
    explorer = explore_bucketing(n_tokens=64, n_buckets=8, n_hashes=4, chunk_length=8)
    config = ReformerConfig(
        vocab_size=256, d_model=64, chunk_length=32, max_length=1024, ff_chunks=4, loss_chunks=4
    )
    # Without times, which differ from machine to machine.
    memory = plot_memory(measure_memory(config, (1, 2, 6, 12, 24), repeats=0))
    film = plot_step_film(measure_step_film(replace(config, n_layers=8)))
    pictures = {"who_sees_whom": explorer.figure, "memory": memory, "step_film": film}
    for name, figure in pictures.items():
        figure.savefig(DOCS / f"{name}.png", dpi=110)
        print(DOCS / f"{name}.png")


if __name__ == "__main__":
    draw()
