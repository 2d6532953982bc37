"""What a run keeps to itself: a random state that nobody else moves, and a Ctrl-C that waits."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomState:
    """Keep a run's own random state: others share the global one only while a step is computed."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        torch.manual_seed(seed)
        self.states = self._current()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Draw from this state, and remember how far."""
        torch.set_rng_state(self.states["cpu"])
        if self.device.type == "cuda" and "cuda" in self.states:
            torch.cuda.set_rng_state(self.states["cuda"], self.device)
        yield
        self.states = self._current()

    def _current(self) -> dict[str, Tensor]:
        """Read the global state."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request, and the second one into KeyboardInterrupt.

    Only the main thread can be interrupted; elsewhere nothing changes.
    """
    request = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: object) -> None:
        if request.is_set():
            raise KeyboardInterrupt
        request.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


def beside_the_cpu(device: torch.device) -> list[torch.device]:
    """Return the devices besides the CPU whose random state a run on `device` moves."""
    return [device] if device.type == "cuda" else []
