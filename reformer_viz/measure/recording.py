"""Snapshots of one probe sequence, taken while a model trains, without disturbing the training."""

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from reformer_core.attention import full_attention
from reformer_core.bucketing import BucketPlan, plan_chunks
from reformer_core.models import LayerTrace, ReformerLM, evaluating
from reformer_core.training import Progress

FILE = "snapshots.safetensors"
NOBODY = -1
"""In `sought`: no other token holds half of the weight."""

_FORMAT = "reformer_viz snapshots 1"
_ARRAYS = ("steps", "buckets", "sought", "mass_found", "tokens")
_MAINLY = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """What one sequence looked like to a model at some steps of its training, LSH layers only.

    Every snapshot hashes with the model's evaluation rotations, which are the same at every step:
    what moves between two snapshots has been learned.
    """

    steps: Int[np.ndarray, " snapshots"]
    """How many steps of training a snapshot comes after, growing."""
    buckets: Int[np.ndarray, "snapshots layers heads rounds length"]
    sought: Int[np.ndarray, "snapshots layers heads length"]
    """The token on which a query's full attention puts at least half of its weight, or NOBODY."""
    mass_found: Float[np.ndarray, "snapshots layers heads"]
    """The share of full attention's weight that the plan's pairs hold, mean over the queries."""
    tokens: Int[np.ndarray, " length"]
    labels: tuple[str, ...]
    layers: tuple[int, ...]
    """Which of the model's layers these are."""
    rule: dict
    """The keywords of `plan_chunks` that make the plans of these buckets."""

    def plan(self, snapshot: int, layer: int, head: int) -> BucketPlan:
        """Plan again who saw whom, in one head of the `layer`-th of the layers."""
        buckets = self.buckets[snapshot, [layer]][:, [head]].astype(np.int64)
        return plan_chunks(torch.from_numpy(buckets), **self.rule)

    def check_place(
        self, layer: int, head: int, round: int, snapshot: int = 0, token: int | None = None
    ) -> None:
        """Refuse a place that was not recorded; layers count from 0 as recorded."""
        places = {
            "snapshot": snapshot,
            "layer": layer,
            "head": head,
            "round": round,
            "token": 0 if token is None else token,
        }
        for (name, place), size in zip(places.items(), self.buckets.shape, strict=True):
            if not 0 <= place < size:
                raise ValueError(
                    f"{name} must be in 0..{size - 1}, got {place}: {size} were recorded"
                )

    def last_order(self, layer: int, head: int, round: int) -> Int[np.ndarray, " length"]:
        """Return the tokens in the order in which the last snapshot's round sorts them."""
        self.check_place(layer, head, round)
        return self.plan(-1, layer, head).order[0, 0, round].numpy()

    def save(self, folder: str | Path) -> Path:
        """Write everything to a folder, such as the run's own, and return the file."""
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "format": _FORMAT,
            "labels": self.labels,
            "layers": self.layers,
            "rule": self.rule,
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        save_file(arrays, path, metadata={"facts": json.dumps(facts)})
        return path


def load_recording(folder: str | Path) -> Recording:
    """Read what `Recording.save` wrote.

    Raises FileNotFoundError where there is nothing, and ValueError for a file of another kind.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"there are no snapshots in {folder}: record a run and call its recording's save first"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            names = list(file.keys())
            arrays = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"{path} must be whole, got a file that is cut off or damaged ({error}): take a copy, "
            f"or record the run again"
        ) from error
    if facts.get("format") != _FORMAT:
        raise ValueError(
            f'{path} must say "{_FORMAT}" in its header, got {facts.get("format")!r}: it is of '
            f"another program or version; name another folder"
        )
    words = {name: tuple(facts[name]) for name in ("labels", "layers")}
    return Recording(**arrays, **words, rule=facts["rule"])


class Recorder:
    """Take snapshots of a probe sequence at some steps: `train(..., on_step=recorder)`.

    The training thread itself takes them, between two steps, in evaluation mode and without
    gradients: weights, random state, mode and hash step are as if nobody had looked. A snapshot
    builds length x length numbers, one head after the other. Other threads may ask for the
    `recording` at any time; what they get is a copy.
    """

    def __init__(
        self,
        model: ReformerLM,
        probe: Int[Tensor, "1 length"] | Int[Tensor, " length"],
        *,
        at: Iterable[int],
        labels: Sequence[str] | None = None,
    ) -> None:
        """Get ready to look at `probe` after the steps `at`; 0 is now, before the first one.

        `labels` names the tokens, one each; without them they are called by their number.
        """
        self._model, self._probe = model, probe.detach().cpu().reshape(1, -1).clone()
        self._at = _checked_steps(at)
        self._labels = _labels_of(self._probe[0], labels)
        self._layers = _lsh_layers(model)
        self._lock = threading.Lock()
        self._snapshots: list[_Snapshot] = []
        self._rule: dict = {}
        self._step = 0
        if self._probe.shape[1] < 2:
            raise ValueError(
                f"a probe needs at least 2 tokens, got {self._probe.shape[1]}: it would see nobody"
            )
        if 0 in self._at:
            self._look(0)

    def __call__(self, progress: Progress) -> None:
        """Look, if it is time to."""
        step = progress.latest.step
        if step <= self._step:
            raise ValueError(
                f"a recorder must follow one run, got step {step} after step {self._step}: make a "
                f"new one for every run"
            )
        if self._step == 0 and step > 1:  # the run goes on from a checkpoint: 0 was another model
            with self._lock:
                self._snapshots.clear()
        self._step = step
        if step in self._at:
            self._look(step)

    @property
    def recording(self) -> Recording:
        """What was seen so far. Raises ValueError while that is nothing."""
        recording = self.so_far
        if recording is None:
            raise ValueError(
                f"nothing was recorded yet: say train(..., on_step=recorder), and look at steps "
                f"that it reaches, not only {sorted(self._at)[:8]}"
            )
        return recording

    @property
    def so_far(self) -> Recording | None:
        """What was seen so far, or None while that is nothing."""
        with self._lock:
            snapshots, rule = list(self._snapshots), dict(self._rule)
        if not snapshots:
            return None
        return Recording(
            **{
                name: np.stack([getattr(snapshot, name) for snapshot in snapshots])
                for name in _Snapshot._fields
            },
            tokens=self._probe[0].numpy().copy(),
            labels=self._labels,
            layers=self._layers,
            rule=rule,
        )

    def _look(self, step: int) -> None:
        """Take a snapshot of the model as it is now."""
        device = next(self._model.parameters()).device
        with evaluating(self._model):
            trace = self._model.trace(self._probe.to(device))
        layers = [trace.layers[layer] for layer in self._layers]
        for layer, seen in zip(self._layers, layers, strict=True):
            if not seen.qk.isfinite().all():
                raise ValueError(
                    f"activations must be finite, got NaN or infinity in layer {layer} at step "
                    f"{step}: a lower learning rate or gradient clipping avoids most of these"
                )
        looks = [look_at(seen) for seen in layers]
        snapshot = _Snapshot(step, *map(np.stack, zip(*looks, strict=True)))
        with self._lock:
            self._snapshots.append(snapshot)
            self._rule = layers[0].plan.rule()


class _Snapshot(NamedTuple):
    """One step's part of a `Recording`, under its names."""

    steps: int
    buckets: np.ndarray
    sought: np.ndarray
    mass_found: np.ndarray


def look_at(layer: LayerTrace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one traced sequence's buckets, whom each query seeks, and the weight that is found.

    The weights are those of core's full attention, whose values name the keys.
    """
    n_heads, length = layer.qk.shape[1:3]
    names = torch.eye(length, dtype=torch.float64, device=layer.qk.device)[None, None]
    sought = np.empty((n_heads, length), np.int16 if length <= 2**15 else np.int32)
    found = np.empty(n_heads, np.float32)
    first = 1 if layer.plan.causal else 0  # before the first token there is nobody
    for head in range(n_heads):
        qk, buckets = layer.qk[:1, [head]].double(), layer.plan.buckets[:1, [head]]
        weights = full_attention(qk, names, causal=layer.plan.causal)[0, 0]
        seen = layer.plan.with_buckets(buckets).visible()[0, 0].any(0)
        found[head] = (weights * seen).sum(-1)[first:].mean()
        most = weights.max(-1)
        mainly = torch.where(most.values >= _MAINLY, most.indices, NOBODY)
        mainly[:first] = NOBODY
        sought[head] = mainly.cpu().numpy()
    small = np.int16 if layer.plan.n_buckets <= 2**15 else np.int32
    return layer.plan.buckets[0].cpu().numpy().astype(small), sought, found


def _checked_steps(at: Iterable[int]) -> frozenset[int]:
    """Refuse steps that no run reaches."""
    steps = frozenset(at)
    if not steps or min(steps) < 0:
        raise ValueError(
            f"at must be one or more steps from 0 on, got {sorted(steps)}: say at=range(0, 301, 20)"
        )
    return steps


def _labels_of(tokens: Int[Tensor, " length"], labels: Sequence[str] | None) -> tuple[str, ...]:
    """Name every token."""
    if labels is None:
        return tuple(str(token) for token in tokens.tolist())
    if len(labels) != len(tokens):
        raise ValueError(
            f"labels must name every token, got {len(labels)} for {len(tokens)} tokens"
        )
    return tuple(labels)


def _lsh_layers(model: ReformerLM) -> tuple[int, ...]:
    """List the layers that hash."""
    kinds = [model.config.attention_of(layer) for layer in range(model.config.n_layers)]
    layers = tuple(layer for layer, kind in enumerate(kinds) if kind == "lsh")
    if not layers:
        raise ValueError(
            f"the model must have an LSH layer, got attention {', '.join(kinds)}: only those have "
            f'buckets; build it with attention=("lsh",)'
        )
    return layers
