"""Threads that each compute some heads alone: together faster than all threads on one operation.

An operation on a few hundred kilobytes is too small to be shared among cores, and heads do not need
each other.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

Item = TypeVar("Item")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_making = Lock()


def in_parallel(
    function: Callable[[Item], None], items: Iterable[Item], device: torch.device
) -> None:
    """Call the function on every item, on as many threads as torch uses; the first error is raised.

    Other devices are parallel in themselves, so that there, and with one thread or item, the items
    are taken in turn. So they are while a dispatch mode looks at every operation: it looks at one
    thread only.
    """
    items, n_threads = list(items), torch.get_num_threads()
    watched = _get_current_dispatch_mode() is not None
    if device.type != "cpu" or n_threads == 1 or len(items) == 1 or watched:
        for item in items:
            function(item)
        return
    pool = _pool(n_threads)
    for done in [pool.submit(_without_gradient, function, item) for item in items]:
        done.result()


def _without_gradient(function: Callable[[Item], None], item: Item) -> None:
    """Call the function as a backward or a custom operation does: a new thread records a graph."""
    with torch.no_grad():
        function(item)


def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process: a fork inherits none."""
    with _making:
        name = os.getpid(), n_threads
        if name not in _pools:
            together = Barrier(n_threads)
            pool = ThreadPoolExecutor(n_threads, "heads", lambda: _use_one_core(together))
            for begun in [pool.submit(together.wait) for _ in range(n_threads)]:
                begun.result()
            # What a thread says of itself torch also takes for the default of threads to come.
            torch.set_num_threads(n_threads)
            _pools[name] = pool
        return _pools[name]


def _use_one_core(together: Barrier) -> None:
    """Keep this thread's operations on its own core."""
    torch.get_num_threads()  # the first question sets the default: it must not come after us
    torch.set_num_threads(1)
    together.wait()
