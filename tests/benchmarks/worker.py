"""One contestant in a process of its own: it waits for a word, does one run, and says what it took.

Started by `race.py`, which writes "forward" or "step" on its standard input; every answer is one
line of JSON.
"""

import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from tests.benchmarks.case import Case, NotHereError, Ready
from tests.benchmarks.contestants import CONTESTANTS

_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a worker is told when it starts."""

    key: str
    case: Case
    threads: int
    memory_bytes: int
    """A contestant that wants more than this on top of its inputs is skipped."""

    def to_json(self) -> str:
        """Write the orders as an argument."""
        return json.dumps({**vars(self), "case": vars(self.case)})

    @classmethod
    def from_json(cls, text: str) -> "Orders":
        """Read them again."""
        said = json.loads(text)
        return cls(**{**said, "case": Case(**said["case"])})


def kilobytes(name: str, status: str) -> int | None:
    """Find a number of kB in /proc/self/status, or None."""
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return None


class ProcessMemory:
    """Bytes that a run adds to this process at its peak; None where the system does not tell."""

    def __init__(self) -> None:
        try:
            _REFS.write_text(_RESET_PEAK)
            self.before = kilobytes("VmRSS", _STATUS.read_text())
        except OSError:
            self.before = None

    def extra(self) -> int | None:
        """Return the peak since this was made, less what was there."""
        if self.before is None:
            return None
        return max(0, kilobytes("VmHWM", _STATUS.read_text()) - self.before) * 1024


class DeviceMemory:
    """The same on CUDA, by torch's own count."""

    def __init__(self) -> None:
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()

    def extra(self) -> int:
        """Return the peak since this was made, less what was there."""
        return torch.cuda.max_memory_allocated() - self.before


def give_back() -> None:
    """Return freed memory to the system, so that what a run takes is seen to grow."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)


def time_here(work: Callable[[], object]) -> float:
    """Return the seconds that some work took."""
    start = perf_counter()
    work()
    return perf_counter() - start


def time_on_cuda(work: Callable[[], object]) -> float:
    """Return the seconds between two events of the device; code and caches are warm before."""
    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def run(ready: Ready, name: str, device: str) -> dict[str, Any]:
    """Do one run and say what it took."""
    on_cuda = device == "cuda"
    ready.forget()
    memory = DeviceMemory() if on_cuda else ProcessMemory()
    seconds = (time_on_cuda if on_cuda else time_here)(getattr(ready, name))
    answer = {"seconds": seconds, "extra_bytes": memory.extra()}
    ready.forget()
    if on_cuda:
        torch.cuda.empty_cache()  # the others are on the same device
    return answer


def limit_memory(n_bytes: int, device: str) -> None:
    """Let an allocation fail that goes further than this above what is in use now."""
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, n_bytes / total))
    elif _STATUS.exists():
        limit = kilobytes("VmSize", _STATUS.read_text()) * 1024 + n_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def reason_of(error: Exception, memory_bytes: int) -> dict[str, str]:
    """Say why a contestant has no numbers: it is absent, met a limit, or failed."""
    if isinstance(error, NotHereError):
        return {"absent": str(error)}
    if isinstance(error, ModuleNotFoundError):
        return {"absent": f"{error.name} is not installed"}
    if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return {"limit": f"needs more than {memory_bytes / 2**30:.3g} GiB"}
    said = (str(error).splitlines() or [""])[0]
    return {"failed": f"{type(error).__name__}: {said}"}


def serve(orders: Orders, words, answer: Callable[[dict], None]) -> None:
    """Load the code on a small case, make the inputs of the real one, and run when told."""
    try:
        prepare = CONTESTANTS[orders.case.part][orders.key].prepare
        device = orders.case.device
        small = prepare(orders.case.smaller())
        for name in ("forward", "step"):
            run(small, name, device)
        del small
        limit_memory(orders.memory_bytes, device)
        ready = prepare(orders.case)
        answer({"ready": True})
        known = set()
        for name in map(str.strip, words):
            if name not in known:
                known.add(name)
                give_back()
            answer(run(ready, name, device))
    except Exception as error:
        answer(reason_of(error, orders.memory_bytes))


def main() -> None:
    """Serve on standard input and output; whatever the contestants print goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(message: dict) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    orders = Orders.from_json(sys.argv[1])
    torch.set_num_threads(orders.threads)
    torch.manual_seed(0)
    serve(orders, sys.stdin, answer)


if __name__ == "__main__":
    main()
