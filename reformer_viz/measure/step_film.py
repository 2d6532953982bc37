"""Film one training step: the bytes alive after every operation, forward and then backward."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from reformer_core.config import ReformerConfig, TrainConfig
from reformer_core.models import ReformerLM
from reformer_core.training.optimizers import make_optimizer, optimizer_tensors
from reformer_viz.measure.live_bytes import LiveBytes, in_units, key_of
from reformer_viz.measure.step_kinds import (
    KINDS,
    LABELS,
    Kind,
    check_kinds,
    model_of_kind,
    new_model,
    new_tokens,
)

EMBEDDING, HEAD = "embedding", "head and loss"


@dataclass(frozen=True, kw_only=True)
class StepFilm:
    """One training step of one kind: bytes alive after every operation.

    The forward ends with operation `n_forward - 1`; the rest is the backward.
    """

    kind: Kind
    activations: Int[np.ndarray, " operations"]
    """Floats that are no gradient of a parameter: activations, their gradients, working memory."""
    integers: Int[np.ndarray, " operations"]
    """Buckets, plans and random states."""
    gradients: Int[np.ndarray, " operations"]
    """Gradients of the parameters."""
    place: Int[np.ndarray, " operations"]
    """Where in the model an operation belongs: an index into `places`."""
    places: tuple[str, ...]
    operations: tuple[str, ...]
    """Torch's names; the last of each pass is empty, when what only its code held has gone."""
    n_forward: int
    parameters: int
    """Bytes that live all the time and are in no other number."""
    optimizer: int
    """Bytes of AdamW's memory, alive all the time and in no other number."""

    @property
    def live(self) -> Int[np.ndarray, " operations"]:
        """Everything that the step made and that was alive."""
        return self.activations + self.integers + self.gradients

    @property
    def peak(self) -> int:
        """The most that was alive at once."""
        return int(self.live.max())

    @property
    def peak_at(self) -> int:
        """The operation after which it was."""
        return int(self.live.argmax())

    @property
    def kept(self) -> int:
        """What was alive between forward and backward."""
        return int(self.live[self.n_forward - 1])

    def phase_of(self, operation: Integral) -> str:
        """Say in which pass an operation ran."""
        return "forward" if operation < self.n_forward else "backward"


@dataclass(frozen=True, kw_only=True)
class StepFilms:
    """The same training step in several ways."""

    films: tuple[StepFilm, ...]
    n_layers: int
    batch_size: int
    length: int

    def in_words(self) -> str:
        """Name the sizes: "4 layers at 1 x 512 tokens"."""
        layers = f"{self.n_layers} layer{'s' * (self.n_layers > 1)}"
        return f"{layers} at {self.batch_size} x {self.length:,} tokens"

    def describe(self) -> str:
        """Say in a few sentences how the bytes rise and fall."""
        said = [f"One training step of {self.in_words()}."]
        for film in self.films:
            at = film.peak_at
            said.append(
                f"{LABELS[film.kind].capitalize()}: {in_units(film.kept)} wait for the backward; "
                f"the peak, {in_units(film.peak)}, is in the {film.phase_of(at)} at "
                f"{film.places[film.place[at]]}."
            )
        lowest = min(self.films, key=lambda film: film.peak)
        if len(self.films) > 1:
            said.append(f"The lowest peak is that of: {LABELS[lowest.kind]}.")
        grown, states = (in_units(getattr(lowest, n)) for n in ("parameters", "optimizer"))
        said.append(
            f"Beside all of them live {grown} of parameters and {states} of AdamW's memory."
        )
        return " ".join(said)


def measure_step_film(
    config: ReformerConfig | ReformerLM,
    kinds: Sequence[str] = KINDS,
    *,
    batch_size: int = 1,
    length: int | None = None,
) -> StepFilms:
    """Run one training step in each of several ways, and count the live bytes at every operation.

    The ways are those of `model_of_kind`. Given a model instead of a config, copies of it are run,
    where it is. Counted are the tensors that the step makes, storage by storage, so the numbers are
    exact, and the same on every run and machine; on CUDA it is what the allocator has given out.
    `length` defaults to `max_length`. The caller's random state, model and gradient mode are left
    as they were.

    Raises ValueError for an unknown kind, and for a batch that the model cannot read.
    """
    check_kinds(tuple(kinds))
    model = config if isinstance(config, ReformerLM) else new_model(config)
    length = model.config.max_length if length is None else length
    tokens = new_tokens(model.config, batch_size, length)
    return StepFilms(
        films=tuple(film_step(model, tokens, kind) for kind in kinds),
        n_layers=model.config.n_layers,
        batch_size=batch_size,
        length=length,
    )


def film_step(model: ReformerLM, tokens: Int[Tensor, "batch length"], kind: Kind) -> StepFilm:
    """Film one step of a copy of a model, in one of the four ways."""
    model = model_of_kind(model, kind)
    tokens = tokens.to(model.hash_step.device)
    camera = Camera(_allocator(tokens.device))
    with torch.random.fork_rng(), torch.enable_grad(), _places_told(model, camera), camera:
        loss = model.loss(tokens)
        camera.shoot("")
        n_forward = len(camera.operations)
        loss.backward()
    del loss
    camera.shoot("")
    floats, integers = np.array(camera.live).T
    gradients = camera.bytes_of([p.grad for p in model.parameters() if p.grad is not None])
    return StepFilm(
        kind=kind,
        activations=floats - gradients,
        integers=integers,
        gradients=gradients,
        place=np.array(camera.place),
        places=tuple(camera.places),
        operations=tuple(camera.operations),
        n_forward=n_forward,
        parameters=n_bytes(model.parameters()),
        optimizer=_optimizer_bytes(model),
    )


class Camera(LiveBytes):
    """Live bytes that remember themselves: what there was after every operation, and where.

    `allocated` says how much an allocator has given out, where that is what counts.
    """

    def __init__(self, allocated: Callable[[], int] | None = None) -> None:
        super().__init__()
        self._allocated = allocated
        self.live: list[tuple[int, int]] = []
        """Bytes of floats and of integers after every operation."""
        self.operations: list[str] = []
        self.place: list[int] = []
        self.places = [EMBEDDING]
        self._here = 0
        self._born: dict[int, int] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run an operation, count what it made, and take a picture."""
        made = super().__torch_dispatch__(operation, types, args, kwargs)
        self.shoot(operation.name().partition("::")[2])
        return made

    def shoot(self, operation: str) -> None:
        """Remember what is alive."""
        floats = self._allocated() - self.integers if self._allocated else self.floats
        self.live.append((floats, self.integers))
        self.operations.append(operation)
        self.place.append(self._here)

    def go_to(self, place: str) -> None:
        """Say where in the model the next operations belong."""
        if place not in self.places:
            self.places.append(place)
        self._here = self.places.index(place)

    def bytes_of(self, tensors: list[Tensor]) -> Int[np.ndarray, " operations"]:
        """Return the bytes of tensors that are still alive, from when each of them was made."""
        storages = {key_of(tensor): tensor.untyped_storage() for tensor in tensors}
        grown = np.zeros(len(self.live), dtype=np.int64)
        for key, storage in storages.items():
            grown[self._born[key] :] += storage.nbytes()
        return grown

    def _count(self, tensor: Tensor, key: int) -> None:
        """Count a new storage, and remember in which picture it is seen first."""
        self._born[key] = len(self.live)
        super()._count(tensor, key)


def _allocator(device: torch.device) -> Callable[[], int] | None:
    """Return what counts the bytes given out from now on, where the device counts them itself."""
    if device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated(device)
    return lambda: torch.cuda.memory_allocated(device) - before


@contextlib.contextmanager
def _places_told(model: ReformerLM, camera: Camera) -> Iterator[None]:
    """Tell the camera which layer runs, in the forward and wherever the backward comes by.

    Torch's global hooks, because a hook of its own would change how a sublayer is replayed. In a
    backward without replay a layer is known by the gradient of its output.
    """
    names = {module: _place_of(name) for name, module in model.named_modules()}

    def enter(module: nn.Module, _inputs: object) -> None:
        if place := names.get(module):
            camera.go_to(place)

    def leave(module: nn.Module, _inputs: object, outputs: object) -> None:
        if module is model.layers:
            camera.go_to(HEAD)
        elif place := names.get(module):
            change = outputs[0] if isinstance(outputs, tuple) else outputs
            if change.requires_grad:
                change.register_hook(lambda _: camera.go_to(place))

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _place_of(module: str) -> str | None:
    """Translate a module's name for readers; None where it is no place of its own."""
    first, *rest = module.split(".")
    if first == "layers":
        part = {"f": "attention", "g": "feed-forward"}.get(rest[1]) if len(rest) > 1 else None
        return part and f"layer {rest[0]}'s {part}"
    return {"embed": EMBEDDING, "norm": HEAD, "dropout": HEAD, "head": HEAD}.get(first)


def n_bytes(tensors: Iterable[Tensor]) -> int:
    """Add up the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _optimizer_bytes(model: ReformerLM) -> int:
    """Count what AdamW remembers after its first step."""
    optimizer = make_optimizer(model, TrainConfig(steps=1))
    optimizer.step()
    return n_bytes(optimizer_tensors(optimizer, model).values())
