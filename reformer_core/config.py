"""What a Reformer is made of, and how it is trained: frozen values that refuse to contradict."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from reformer_core.bucketing import Window, check_rule
from reformer_core.feed_forward import ACTIVATIONS
from reformer_core.hashing import Buckets, default_n_buckets, factors_of

AttentionKind = Literal["lsh", "local", "full"]


@dataclass(frozen=True, kw_only=True)
class ReformerConfig:
    """Describe a Reformer. Only `vocab_size` must be said; what is None stays None.

    Lengths count tokens, dropouts are probabilities. `attention` is a pattern that repeats over the
    layers: ("local", "lsh") alternates. `n_hashes` is the paper's n_rounds. `ff_chunks` and
    `loss_chunks` say into how many pieces feed-forward and loss are cut along the length.

    Raises ValueError for a combination that cannot work, and says what would.
    """

    vocab_size: int
    d_model: int = 256
    n_layers: int = 2
    n_heads: int = 4
    d_head: int | None = None
    """None: d_model / n_heads."""
    d_ff: int | None = None
    """None: 4 * d_model."""
    activation: str = "gelu"
    attention: tuple[AttentionKind, ...] = ("lsh",)
    n_hashes: int = 4
    n_buckets: Buckets | None = None
    """None: 2 * max_length / chunk_length, factored above 128."""
    chunk_length: int = 64
    chunks_before: int = 1
    chunks_after: int | None = None
    """None: 0 when causal, else 1."""
    local_chunk_length: int | None = None
    """None: chunk_length."""
    window: Window = "chunks"
    within_bucket: bool = True
    count_repeats: bool = False
    """A pair that several rounds see counts once (False, the paper) or in each of them (True)."""
    causal: bool = True
    max_length: int = 1024
    axial_shape: tuple[int, ...] | None = None
    """None: one learned vector per position. Otherwise the product must be max_length."""
    axial_dims: tuple[int, ...] | None = None
    """The width of each axis' vectors; their sum must be d_model."""
    dropout: float = 0.0
    attention_dropout: float = 0.0
    ff_chunks: int = 1
    loss_chunks: int = 1
    reversible: bool = True
    kept_layers: int = 0
    """How many of the last layers keep their activations while the others are reversible. The
    backward begins with the last: one kept saves a run and, with ff_chunks=1, costs no memory."""
    hash_seed: int = 0

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_attention()
        self._check_positions()

    def resolved_d_head(self) -> int:
        """Return the width of one head."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    def resolved_n_buckets(self) -> Buckets:
        """Return the number of buckets of every round: a function of this config alone."""
        if self.n_buckets is not None:
            return self.n_buckets
        return default_n_buckets(self.max_length, self.chunk_length)

    def resolved_chunks_after(self) -> int:
        """Return how many chunks after its own a query sees."""
        return int(not self.causal) if self.chunks_after is None else self.chunks_after

    def attention_of(self, layer: int) -> AttentionKind:
        """Return which attention a layer has: the pattern repeats."""
        return self.attention[layer % len(self.attention)]

    def _check_sizes(self) -> None:
        whole = {
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "d_head": self.d_head,
            "d_ff": self.d_ff,
            "n_hashes": self.n_hashes,
            "chunk_length": self.chunk_length,
            "local_chunk_length": self.local_chunk_length,
            "max_length": self.max_length,
            "ff_chunks": self.ff_chunks,
            "loss_chunks": self.loss_chunks,
        }
        for name, number in whole.items():
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if not 0 <= self.kept_layers <= self.n_layers:
            raise ValueError(
                f"kept_layers must be 0 to n_layers = {self.n_layers}, got {self.kept_layers}"
            )
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads, got {self.d_model} and {self.n_heads}: "
                f"change one, or say d_head"
            )
        for name in ("dropout", "attention_dropout"):
            rate = getattr(self, name)
            if not 0 <= rate < 1:
                raise ValueError(f"{name} must be in [0, 1), got {rate}: it is a probability")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {tuple(ACTIVATIONS)}, got {self.activation!r}"
            )

    def _check_attention(self) -> None:
        if not self.attention or not set(self.attention) <= {"lsh", "local", "full"}:
            raise ValueError(
                f'attention must be a tuple of "lsh", "local" and "full", got {self.attention!r}'
            )
        if self.n_buckets is not None:
            factors_of(self.n_buckets)
        check_rule(
            self.chunk_length,
            self.causal,
            self.chunks_before,
            self.resolved_chunks_after(),
            self.window,
        )

    def _check_positions(self) -> None:
        if self.axial_shape is None and self.axial_dims is None:
            return
        shape, dims = self.axial_shape or (), self.axial_dims or ()
        if len(shape) != len(dims):
            raise ValueError(
                f"axial_shape and axial_dims need one entry per axis, got {self.axial_shape} and "
                f"{self.axial_dims}: say both or neither"
            )
        if min(*shape, *dims) < 1:
            raise ValueError(
                f"axial_shape and axial_dims must be at least 1, got {shape} and {dims}"
            )
        if math.prod(shape) != self.max_length:
            raise ValueError(
                f"axial_shape must multiply to max_length = {self.max_length}, got {shape} = "
                f"{math.prod(shape)}: change either (inputs may be shorter than max_length)"
            )
        if sum(dims) != self.d_model:
            raise ValueError(
                f"axial_dims must add up to d_model = {self.d_model}, got {dims} = {sum(dims)}"
            )


OptimizerKind = Literal["adamw", "adafactor"]
ScheduleKind = Literal["constant", "cosine", "inverse_sqrt"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Describe a training run. Only `steps` must be said.

    With the same seed, the same data and the same initial model a run on a CPU repeats bit for
    bit: `seed` decides the order of the data and every dropout mask. One step sees `accumulate`
    micro-batches of `batch_size` sequences each.

    Raises ValueError for a combination that cannot work, and says what would.
    """

    steps: int
    seed: int = 0
    batch_size: int = 16
    accumulate: int = 1
    optimizer: OptimizerKind = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 20
    """The learning rate grows linearly over that many steps, then follows `schedule`."""
    schedule: ScheduleKind = "constant"
    weight_decay: float = 0.01
    """For matrices only: norms, biases and embeddings are left alone."""
    clip_norm: float | None = 1.0
    """A longer gradient is cut to that length; None: never."""
    autocast: bool | None = None
    """bfloat16 in the matrix products; None: where the GPU computes it natively, never on a CPU."""
    device: str | None = None
    """None: the GPU where there is one, else where the model is."""
    evaluate_every: int | None = None
    """None: at the end only."""
    evaluation_batches: int | None = None
    """How many held-out batches one evaluation takes; None: all."""
    folder: str | Path | None = None
    """Where the checkpoint goes; None: nowhere."""
    checkpoint_every: int = 200
    """The checkpoint is also written at the end and after an interruption."""
    resume: bool = False
    """Go on from the checkpoint in `folder`, or begin where there is none yet."""

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_amounts()
        for name, kinds in (("optimizer", OptimizerKind), ("schedule", ScheduleKind)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(
                    f"{name} must be one of {get_args(kinds)}, got {getattr(self, name)!r}"
                )
        if self.resume and self.folder is None:
            raise ValueError("resume=True needs the folder of a checkpoint, got folder=None")

    def _check_counts(self) -> None:
        at_least = {
            "steps": 1,
            "batch_size": 1,
            "accumulate": 1,
            "warmup_steps": 0,
            "evaluate_every": 1,
            "evaluation_batches": 1,
            "checkpoint_every": 1,
        }
        for name, least in at_least.items():
            number = getattr(self, name)
            if number is not None and number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")

    def _check_amounts(self) -> None:
        for name in ("learning_rate", "clip_norm"):
            amount = getattr(self, name)
            if amount is not None and not 0 < amount < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {amount}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0 and finite, got {self.weight_decay}")
