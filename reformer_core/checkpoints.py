"""One file, whole or absent: every tensor as safetensors, every scalar as JSON in its header."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from reformer_core.config import ReformerConfig
from reformer_core.models import ReformerLM

FILE = "checkpoint.safetensors"
_FORMAT = "reformer_core checkpoint 1"
_WEIGHTS = "weights/"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Hold what a file says: a model, and the training run that made it, if any."""

    config: ReformerConfig
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Of the training run."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the training run: whatever JSON can say."""


def checkpoint_path(folder: str | Path) -> Path:
    """Return the file in which a folder's checkpoint is."""
    return Path(folder) / FILE


def save_checkpoint(
    folder: str | Path,
    model: ReformerLM,
    *,
    tensors: dict[str, Tensor] | None = None,
    facts: dict[str, Any] | None = None,
) -> Path:
    """Write a model, and what belongs to its training run, in place of the checkpoint before.

    Until the new one is whole and on the disk the one before stays: an error or a power cut leaves
    either, never half of one. Names that share a tensor keep sharing it. Raises OSError when the
    disk is full, and says what to do.
    """
    weights, shared = _without_repeats(model.state_dict())
    content = {_WEIGHTS + name: tensor for name, tensor in weights.items()} | (tensors or {})
    header = {"config": asdict(model.config), "shared": shared, "facts": facts or {}}
    path = checkpoint_path(folder)
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(
            {name: _snapshot(tensor) for name, tensor in content.items()},
            partial,
            metadata={"format": _FORMAT, "header": json.dumps(header)},
        )
        _flush(partial)
        partial.replace(path)
        _flush_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise _not_written(path, partial, error) from error
    return path


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read what a folder's checkpoint says.

    Raises FileNotFoundError where there is none, and ValueError for a file that is not whole or
    not a checkpoint of this package.
    """
    path = checkpoint_path(folder)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint in {folder}: train with folder={str(folder)!r} first"
        )
    try:
        with safe_open(path, framework="pt") as file:
            described = file.metadata() or {}
            names = list(file.keys())
            # Copies, because the file is mapped into memory and may be replaced.
            content = {name: file.get_tensor(name).clone() for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"{path} must be a whole checkpoint, got one that is cut off or damaged ({error}): "
            f"delete it, or take a copy"
        ) from error
    if described.get("format") != _FORMAT:
        raise ValueError(
            f'{path} must say "{_FORMAT}" in its header, got {described.get("format")!r}: it is of '
            f"another program or version; name another folder"
        )
    return _understood(json.loads(described["header"]), content)


def load_checkpoint(folder: str | Path) -> ReformerLM:
    """Rebuild the model of a folder's checkpoint from its config alone, on the CPU, in eval mode.

    The global random state is left as it was.
    """
    return model_of(read_checkpoint(folder))


def model_of(checkpoint: Checkpoint) -> ReformerLM:
    """Rebuild a checkpoint's model."""
    with torch.random.fork_rng(devices=[]):
        model = ReformerLM(checkpoint.config)
    floating = [w.dtype for w in checkpoint.weights.values() if w.is_floating_point()]
    put_weights(model.to(floating[0]), checkpoint.weights)
    return model.eval()


def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into a model that has exactly these: same names, shapes and types."""
    own = model.state_dict()
    differing = sorted(own.keys() ^ weights.keys()) + [
        name
        for name in own.keys() & weights.keys()
        if (own[name].shape, own[name].dtype) != (weights[name].shape, weights[name].dtype)
    ]
    if differing:
        raise ValueError(
            f"the checkpoint must have the model's own tensors, but {len(differing)} differ, among "
            f"them {', '.join(differing[:3])}: it was made by another version or in another dtype"
        )
    model.load_state_dict(weights)


def _understood(header: dict[str, Any], content: dict[str, Tensor]) -> Checkpoint:
    """Sort out what a file says."""
    weights = {
        name.removeprefix(_WEIGHTS): tensor
        for name, tensor in content.items()
        if name.startswith(_WEIGHTS)
    }
    weights |= {name: weights[first] for name, first in header["shared"].items()}
    return Checkpoint(
        config=_config_of(header["config"]),
        weights=weights,
        tensors={name: t for name, t in content.items() if not name.startswith(_WEIGHTS)},
        facts=header["facts"],
    )


def _config_of(said: dict[str, Any]) -> ReformerConfig:
    """Make the config again that JSON has turned into lists."""
    whole = {name: tuple(it) if isinstance(it, list) else it for name, it in said.items()}
    try:
        return ReformerConfig(**whole)
    except TypeError as error:
        raise ValueError(f"the checkpoint's config is of another version: {error}") from error


def _without_repeats(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Name every tensor once, and say which further names mean which."""
    first: dict[tuple, str] = {}
    shared = {}
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and first.setdefault(place, name) != name:
            shared[name] = first[place]
    return {name: t for name, t in weights.items() if name not in shared}, shared


def _snapshot(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU, with memory of its own."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _flush(path: Path) -> None:
    """Wait until a file is on the disk: only then may it replace another."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk, where a system allows it (Windows does not)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _not_written(path: Path, partial: Path, error: Exception) -> OSError:
    """Clear away what was begun, and explain."""
    with suppress(OSError):  # the first error's reason is the one to report
        partial.unlink(missing_ok=True)
    before = "the one before is untouched" if path.exists() else "there was none before"
    return OSError(
        f"could not write the checkpoint {path} ({error}); {before}: free some space or name "
        f"another folder, then resume"
    )
