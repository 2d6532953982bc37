"""Threads that each compute some heads alone: together faster than all threads on one operation.

An operation on a few hundred kilobytes is too small to be shared among cores, and heads do not need
each other.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from threading import Barrier, BrokenBarrierError, Lock
from typing import TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

Item = TypeVar("Item")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_making = Lock()


def in_parallel(
    function: Callable[[Item], None], items: Iterable[Item], device: torch.device
) -> None:
    """Call the function on every item, by `n_workers` threads; the first error is raised.

    One worker, or one item, is the caller's own thread. After an error or an interrupt no item is
    begun any more, and none is being worked on when it is raised.
    """
    items, n_threads = list(items), n_workers(device)
    if n_threads == 1 or len(items) == 1:
        for item in items:
            function(item)
        return
    pool, inference = _pool(n_threads), torch.is_inference_mode_enabled()
    begun: list[Future] = []
    try:
        for item in items:
            begun.append(pool.submit(_without_gradient, inference, function, item))
        ended = wait(begun, return_when=FIRST_EXCEPTION).done
        for each in begun:
            if each in ended:
                each.result()
    except BaseException:
        wait([each for each in begun if not each.cancel()])
        raise


def n_workers(device: torch.device) -> int:
    """Say how many threads share the items: on a processor as many as torch uses.

    Other devices are parallel in themselves. And one while a dispatch mode looks at every
    operation: it looks at one thread only, and what it counts must not depend on the machine.
    """
    watched = _get_current_dispatch_mode() is not None
    return 1 if watched or device.type != "cpu" else torch.get_num_threads()


def _without_gradient(inference: bool, function: Callable[[Item], None], item: Item) -> None:
    """Call the function as a backward or a custom operation does: a new thread records a graph.

    And it is not in the caller's inference mode, without which nobody may write into what was made
    there.
    """
    with torch.inference_mode(inference), torch.no_grad():
        function(item)


def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process: a fork inherits none."""
    with _making:
        name = os.getpid(), n_threads
        if name not in _pools:
            together = Barrier(n_threads)
            pool = ThreadPoolExecutor(n_threads, "heads", lambda: _use_one_core(together))
            try:
                for begun in [pool.submit(together.wait) for _ in range(n_threads)]:
                    begun.result()
            except BaseException:  # a thread that cannot start: the others would wait for ever
                together.abort()
                pool.shutdown()
                raise
            finally:
                # What a thread says of itself torch also takes for the default of those to come.
                torch.set_num_threads(n_threads)
            _pools[name] = pool
        return _pools[name]


def _use_one_core(together: Barrier) -> None:
    """Keep this thread's operations on its own core."""
    torch.get_num_threads()  # the first question sets the default: it must not come after us
    torch.set_num_threads(1)
    with suppress(BrokenBarrierError):  # who made us says why not all are here
        together.wait()
