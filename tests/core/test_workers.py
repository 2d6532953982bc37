"""The threads that compute heads: every item once, errors raised, nobody's settings changed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from reformer_core.workers import in_parallel
from tests.core.counting import LiveBytes

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]

# The second thread cannot be had, as where a container may have no more.
CANNOT_START = """
import threading

import torch

from reformer_core.workers import in_parallel

torch.set_num_threads(2)
start, asked = threading.Thread.start, []


def scarce(self):
    asked.append(self)
    if len(asked) == 2:
        raise RuntimeError("can't start new thread")
    start(self)


threading.Thread.start = scarce
taken = []
try:
    in_parallel(taken.append, range(4), torch.device("cpu"))
except RuntimeError as error:
    print(error)
print(torch.get_num_threads())
in_parallel(taken.append, range(4), torch.device("cpu"))
print(sorted(taken))
"""


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def names_of_threads(n_items: int) -> set[str]:
    meet, names = threading.Barrier(min(2, n_items), timeout=30), set()

    def note(item: int) -> None:
        if torch.get_num_threads() == 1 and item < 2 and n_items > 1:
            meet.wait()  # both work at once, or this breaks
        names.add(threading.current_thread().name)

    in_parallel(note, range(n_items), CPU)
    return names


def test_every_item_is_taken_once_by_threads_that_use_one_core_each():
    taken, threads = [], []

    def take(item: int) -> None:
        taken.append(item)
        threads.append(torch.get_num_threads())

    in_parallel(take, range(50), CPU)
    assert sorted(taken) == list(range(50))
    assert set(threads) == {1}


def test_two_items_are_computed_at_the_same_time():
    assert len(names_of_threads(2)) == 2


def test_a_single_item_stays_in_the_callers_thread():
    assert names_of_threads(1) == {threading.current_thread().name}


def test_the_callers_threads_and_those_to_come_are_as_before():
    in_parallel(lambda item: None, range(4), CPU)
    assert torch.get_num_threads() == 2
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


def test_other_numbers_of_threads_have_their_own_pools():
    torch.set_num_threads(3)
    meet = threading.Barrier(3, timeout=30)
    in_parallel(lambda item: meet.wait(), range(3), CPU)
    assert torch.get_num_threads() == 3


def test_an_error_in_a_thread_reaches_the_caller():
    def fail(item: int) -> None:
        if item == 3:
            raise ValueError("item 3 is no good")

    with pytest.raises(ValueError, match="item 3 is no good"):
        in_parallel(fail, range(5), CPU)


def test_after_an_error_no_item_is_begun_and_none_goes_on():
    begun, ended = [], []

    def fail_at_once(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise ValueError("item 1 is no good")
        time.sleep(0.05)
        ended.append(item)

    with pytest.raises(ValueError, match="item 1 is no good"):
        in_parallel(fail_at_once, range(60), CPU)
    so_far = list(ended)
    assert len(begun) < 6
    assert len(begun) == 1 + len(so_far)
    time.sleep(0.2)
    assert ended == so_far


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread here")
def test_an_interrupt_ends_the_work_within_an_item():
    begun = []

    def interrupt(item: int) -> None:
        begun.append(item)
        time.sleep(0.1)  # until the caller waits
        if item == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.05)

    # who was started in the background is deaf to an interrupt, and pytest with it
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            in_parallel(interrupt, range(60), CPU)
    finally:
        signal.signal(signal.SIGINT, former)
    so_far = list(begun)
    assert len(so_far) < 6
    time.sleep(0.2)
    assert begun == so_far
    in_parallel(begun.append, range(60), CPU)  # and the threads are there for the next call
    assert len(begun) == len(so_far) + 60


def test_a_thread_that_cannot_start_is_an_error_and_the_process_ends():
    ended = subprocess.run(
        [sys.executable, "-c", CANNOT_START],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("\n") == ["can't start new thread", "2", "[0, 1, 2, 3]", ""]
    assert ended.stderr == ""


def test_what_was_made_in_inference_mode_is_written_into_there():
    with torch.inference_mode():
        table, modes = torch.zeros(4), []

        def fill(item: int) -> None:
            modes.append(torch.is_inference_mode_enabled())
            table[item : item + 1].fill_(item)

        in_parallel(fill, range(4), CPU)
    assert table.tolist() == [0, 1, 2, 3]
    assert modes == [True] * 4
    in_parallel(lambda item: modes.append(torch.is_inference_mode_enabled()), range(4), CPU)
    assert modes[4:] == [False] * 4


def test_no_graph_is_recorded_in_a_thread():
    weight = torch.ones(2, requires_grad=True)
    recorded = []
    in_parallel(lambda item: recorded.append((weight * item).requires_grad), range(4), CPU)
    assert recorded == [False] * 4


def test_a_dispatch_mode_sees_every_operation():
    with LiveBytes() as live:
        in_parallel(lambda item: torch.zeros(1000), range(4), CPU)
    assert live.peak >= 4000


def in_a_fork(answers) -> None:
    taken = []
    in_parallel(taken.append, range(4), CPU)
    answers.put(sorted(taken))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own():
    in_parallel(lambda item: None, range(4), CPU)  # the parent's threads, which a fork loses
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=in_a_fork, args=(answers,))
    child.start()
    try:
        assert answers.get(timeout=60) == [0, 1, 2, 3]
    finally:
        child.kill()
        child.join()
