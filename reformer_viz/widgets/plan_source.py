"""Where an explorer's plan comes from: vectors, a way to hash them, and the rule of the window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ipywidgets import Widget
from torch import Tensor

from reformer_core.bucketing import BucketPlan
from reformer_viz.measure.hashing import Hash, name_of
from reformer_viz.measure.pairs import plan_by
from reformer_viz.measure.sequence import VectorSequence, make_sequence, take_sequence
from reformer_viz.widgets.controls import heads, noise_and_rotations, slider

DEFAULT_NOISE, DEFAULT_SEED = 0.4, 152
"""A draw in which buckets differ in size and one is too large for its window, as in real use."""


@dataclass(frozen=True, kw_only=True)
class PlanSource:
    """What no control changes; `plan` adds what the controls say.

    `vectors` None makes up `n_tokens` of them. With `hash`, a function of the reader's own,
    `n_buckets` is its number of buckets, or None to count them.
    """

    vectors: Tensor | np.ndarray | Sequence | None
    n_tokens: int
    labels: list[str] | None
    hash: Hash | None
    n_buckets: int | None
    seed: int
    causal: bool
    rule: Mapping[str, Any]
    most_tokens: int
    """How many an explorer draws."""

    @cached_property
    def sequence(self) -> VectorSequence:
        """The vectors, made up or copied as they are when first asked for."""
        if self.vectors is None:
            return make_sequence(self.n_tokens, self.seed)
        return take_sequence(self.vectors, self.seed, self.labels)

    @property
    def origin(self) -> str:
        """Where the vectors and their buckets come from, in words for the reader."""
        if self.hash is not None:
            return f"{self.sequence.origin} Hashed by {name_of(self.hash)}."
        how = "" if self.vectors is None else " Hashed with random rotations drawn here."
        return self.sequence.origin + how

    @property
    def given(self) -> dict[str, Any]:
        """The arguments that lead back here, under the names that explorers give them."""
        given = {name: getattr(self, name) for name in ("vectors", "n_tokens", "labels", "seed")}
        own = {"hash": self.hash, "n_buckets": self.n_buckets} if self.hash is not None else {}
        return {**given, **own, "causal": self.causal, **self.rule}

    def controls(
        self,
        *,
        n_buckets: int,
        n_hashes: int | None = None,
        chunk_length: int | None = None,
        noise: float | int | None,
        rotations: int,
        head: int,
    ) -> dict[str, Widget]:
        """Make the controls that `plan` understands, those that this source has a use for.

        `n_hashes` and `chunk_length` None have none: the page answers for them. With `noise`
        None, vectors that are given stay as they are, and those made up get some.
        """
        if noise is None:
            noise = 0.0 if self.vectors is not None else DEFAULT_NOISE
        controls = {"n_buckets": slider("buckets", n_buckets, 2, 32, step=2)}
        if n_hashes is not None:
            controls["n_hashes"] = slider("rounds", n_hashes, 1, 8)
        if chunk_length is not None:
            controls["chunk_length"] = slider("chunk length", chunk_length, 2, 32)
        controls |= noise_and_rotations(noise, rotations)
        if self.hash is not None:
            kept = ("chunk_length", "noise")
            controls = {name: controls[name] for name in kept if name in controls}
        return controls | heads(lambda: self.sequence, head)

    def plan(
        self,
        *,
        chunk_length: int,
        noise: float | int,
        head: int = 0,
        rotations: int = 0,
        **hashing: int,
    ) -> BucketPlan:
        """Hash one head's vectors as the controls say, and plan who may look at whom."""
        self._check_length()
        if self.hash is None:
            count, draw = hashing["n_buckets"], {"seed": self.seed, "draw": rotations}
            buckets = self.sequence.hash(head=head, noise=noise, **draw, **hashing)
        else:
            buckets, count = self.sequence.hash_by(
                self.hash, head=head, noise=noise, n_buckets=self.n_buckets
            )
        return plan_by(
            buckets, n_buckets=count, chunk_length=chunk_length, causal=self.causal, **self.rule
        )

    def _check_length(self) -> None:
        length = self.sequence.vectors.shape[1]
        if length < 2:
            raise ValueError(
                f"a sequence needs at least 2 tokens, got {length}: one alone has nobody to see"
            )
        if length > self.most_tokens:
            raise ValueError(
                f"the explorer draws at most {self.most_tokens:,} tokens, got {length:,}: give it "
                f"a part, such as vectors[..., :{self.most_tokens}, :]"
            )
