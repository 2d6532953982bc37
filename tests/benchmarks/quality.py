"""Train small models of several depths, for the left panel of the paper's Figure 5.

`python -m tests.benchmarks.quality` takes some minutes, and writes what they reached.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from reformer_core import ReformerConfig, TrainConfig
from reformer_core.tasks import TextBytes
from reformer_viz import measure_quality
from tests.benchmarks.record import RESULTS, cpu_name

PATH = RESULTS / "quality" / "cpu.json"
DEPTHS = (1, 2, 4)
CONFIG = ReformerConfig(
    vocab_size=256, d_model=64, n_heads=2, n_hashes=2, chunk_length=32, max_length=256
)
TRAIN = TrainConfig(
    steps=300, batch_size=8, learning_rate=2e-3, evaluate_every=50, evaluation_batches=8
)


def main(path: Path = PATH) -> None:
    """Train, and write the file."""
    quality = measure_quality(CONFIG, TextBytes(256), DEPTHS, train=TRAIN)
    threads = torch.get_num_threads()
    machine = f"{cpu_name()}, {threads} thread{'s' * (threads > 1)}"
    replace(quality, machine=machine, date=datetime.now(UTC).date().isoformat()).save(path)
    print(quality.describe())


if __name__ == "__main__":
    main()
