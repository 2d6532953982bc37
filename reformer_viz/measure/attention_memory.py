"""Count what one layer of attention needs beside the paper's Table 1: no layers, no model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reformer_core.attention import full_attention
from reformer_core.config import ReformerConfig
from reformer_viz.measure.live_bytes import LiveBytes, in_units
from reformer_viz.measure.paper_memory import FLOAT, count_as_paper
from reformer_viz.measure.speed import hash_and_attend


@dataclass(frozen=True, kw_only=True)
class AttentionMemory:
    """The most bytes alive in a forward and backward of one attention, against length."""

    lengths: Int[np.ndarray, " lengths"]
    lsh: Int[np.ndarray, " lengths"]
    """Hashing, sorting and planning included; beyond the inputs, as below."""
    full: Int[np.ndarray, " lengths"]
    """Causal attention over all pairs, with all scores at once."""
    heads: Int[np.ndarray, " lengths"]
    """Table 1's b n_h l d_k: what goes in, once."""
    all_pairs: Int[np.ndarray, " lengths"]
    """Table 1's b n_h l^2, for full attention."""
    windows: Int[np.ndarray, " lengths"]
    """Table 1's b n_h l n_r (4 l / n_c)^2 as printed, for LSH attention."""
    n_hashes: int

    def describe(self) -> str:
        """Say how both grow, and from where on LSH attention needs less."""
        less = self.lengths[self.lsh < self.full]
        start = f"less from {less[0]:,} tokens on" if less.size else "nowhere less"
        times = [f"{part[-1] / part[0]:.1f}" for part in (self.lsh, self.full)]
        return (
            f"One attention of {self.n_hashes} round{'s' * (self.n_hashes != 1)}, forward and "
            f"backward: from {self.lengths[0]:,} to {self.lengths[-1]:,} tokens, "
            f"{self.lengths[-1] / self.lengths[0]:.0f} times as many, LSH attention's bytes grow "
            f"{times[0]} times and full attention's {times[1]} times. At the end that is "
            f"{in_units(self.lsh[-1])} against {in_units(self.full[-1])}; LSH attention needs "
            f"{start}."
        )


def measure_attention_memory(
    config: ReformerConfig, lengths: Sequence[int] = (64, 128, 256, 512, 1024)
) -> AttentionMemory:
    """Count the bytes of LSH and full attention alone, over random vectors of several lengths.

    Heads, their width, rounds and chunk length are the config's. Full attention is this package's
    own, which holds all scores; 2,048 tokens of 4 heads are 67 MB of them, several times. The
    counts are exact. The caller's random state is left as it was.

    Raises ValueError for a length below 1, or none.
    """
    if len(lengths) == 0 or min(lengths) < 1:
        raise ValueError(f"lengths must be one or more numbers of tokens, got {tuple(lengths)}")
    points = np.array(lengths)
    paper = count_as_paper(
        config,
        depths=np.ones_like(points),
        lengths=points,
        n_hashes=np.full_like(points, config.n_hashes),
        batch_size=1,
    )

    def lsh(qk: Tensor, values: Tensor) -> Tensor:
        sizes = {"n_hashes": config.n_hashes, "chunk_length": config.chunk_length}
        return hash_and_attend(qk, values, **sizes)

    def full(qk: Tensor, values: Tensor) -> Tensor:
        return full_attention(qk, values, causal=True)

    sizes = config.n_heads, config.resolved_d_head()
    return AttentionMemory(
        lengths=points,
        lsh=np.array([_peak(lsh, *_inputs(length, *sizes)) for length in lengths]),
        full=np.array([_peak(full, *_inputs(length, *sizes)) for length in lengths]),
        heads=FLOAT * points * config.n_heads * config.resolved_d_head(),
        all_pairs=paper.all_pairs,
        windows=paper.windows,
        n_hashes=config.n_hashes,
    )


def _inputs(
    length: int, n_heads: int, d_head: int
) -> tuple[
    Float[Tensor, "batch heads length d_head"],
    Float[Tensor, "batch heads length d_head"],
    Float[Tensor, "batch heads length d_head"],
]:
    """Draw query-keys, values and a gradient of the output, the same every time."""
    generator = torch.Generator().manual_seed(0)
    shape = 1, n_heads, length, d_head
    return tuple(torch.randn(shape, generator=generator) for _ in range(3))


def _peak(
    attend: Callable[[Tensor, Tensor], Tensor],
    qk: Float[Tensor, "batch heads length d_head"],
    values: Float[Tensor, "batch heads length d_head"],
    d_out: Float[Tensor, "batch heads length d_head"],
) -> int:
    """Count the most that a forward and backward has beyond its inputs."""
    with torch.enable_grad():
        leaves = [part.requires_grad_() for part in (qk, values)]
        with LiveBytes() as live:
            attend(*leaves).backward(d_out)
    return live.peak
