"""Count what the paper's Tables 1 and 3 count: the largest tensors of a step, in bytes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from reformer_core.config import ReformerConfig
from reformer_viz.measure.step_kinds import Kind

FLOAT = 4
"""Bytes of the float32 that every number of the tables is taken to be."""


@dataclass(frozen=True, kw_only=True)
class PaperMemory:
    """The terms of the tables, in bytes. Nothing is fitted: each counts one tensor of the formula.

    With b sequences of l tokens, n_h heads, n_l layers and n_r rounds. The tables say "memory is in
    the order of the larger term"; an implementation may hold several such tensors, or none.
    """

    width: dict[Kind, Int[np.ndarray, " points"]]
    """Table 3's first term. Standard: b l d_ff n_l, the middle of every feed-forward. Reversible:
    b l d_ff, of one of them. Chunked: b l d_model, one stream. It has no row for checkpointing."""
    all_pairs: Int[np.ndarray, " points"]
    """b n_h l^2: all scores of one layer of full attention (Tables 1 and 3)."""
    windows: Int[np.ndarray, " points"]
    """b n_h l n_r c with c = (4 l / n_c)^2, all scores of one layer of LSH attention as printed
    (Tables 1 and 3); l / n_c is our `chunk_length`, and the paper's example, c = 128^2, has 32.
    It counts every window once for each of its queries: the products are l n_r times the 2 l / n_c
    keys of a window."""


def count_as_paper(
    config: ReformerConfig,
    depths: Int[np.ndarray, " points"],
    lengths: Int[np.ndarray, " points"],
    n_hashes: Int[np.ndarray, " points"],
    batch_size: int,
) -> PaperMemory:
    """Evaluate the tables' terms at several depths, lengths and numbers of rounds.

    Widths, heads and chunk length are the config's.
    """
    d_ff = 4 * config.d_model if config.d_ff is None else config.d_ff
    tokens = FLOAT * batch_size * lengths
    one = np.ones_like(depths)
    return PaperMemory(
        width={
            "standard": tokens * d_ff * depths,
            "reversible": tokens * d_ff * one,
            "chunked": tokens * config.d_model * one,
        },
        all_pairs=tokens * config.n_heads * lengths,
        windows=tokens * config.n_heads * n_hashes * (4 * config.chunk_length) ** 2,
    )
