"""The benchmark's own logic, with this project's contestants: no peer needs to be installed."""

import json
import platform
import re
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reformer_viz.measure.speed import SCHEMA, read_speed, read_training_steps
from tests.benchmarks import __main__ as command
from tests.benchmarks import bounds, readme, record, tables, training, worker
from tests.benchmarks import race as racing
from tests.benchmarks.attention import prepare_full, prepare_products
from tests.benchmarks.bounds import Peaks, Work, least_seconds, measure_peaks, work_of
from tests.benchmarks.case import Case, NotHereError, Ready
from tests.benchmarks.check import products_difference
from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.race import Hopeless, Outcome, Rules, Runner, in_turn, race, repeats_of
from tests.benchmarks.worker import Orders, ProcessMemory, kilobytes, reason_of, serve

TINY = Case(length=40, n_hashes=2, n_heads=2, d_head=8, chunk_length=8)
RULES = Rules(repeats=2, seconds=60, limit_s=120, memory_bytes=2**30, threads=1)
MIB = 2**20


# ------------------------------------------------------------------------ turns and limits


def test_everybody_runs_as_often_as_said_and_spread_over_the_whole_race():
    repeats = {"fast": 7, "slow": 2, "never": 0, "middling": 3}
    turns = list(in_turn(repeats))
    assert {key: turns.count(key) for key in repeats} == repeats
    for key, n in repeats.items():
        places = [place for place, turn in enumerate(turns) if turn == key]
        gaps = [after - before for before, after in pairwise(places)]
        assert all(abs(gap - len(turns) / n) < 3 for gap in gaps)
    assert list(in_turn({})) == list(in_turn({"never": 0})) == []


def test_equally_many_repeats_are_strictly_in_turn():
    assert list(in_turn({"a": 2, "b": 2})) == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("first_s", "repeats"), [(0, 7), (0.001, 7), (5, 4), (20, 1), (59, 1), (61, 0)]
)
def test_repeats_fit_into_the_seconds_that_are_allowed_but_one_may_always(first_s, repeats):
    assert repeats_of(first_s, Rules(repeats=7, seconds=20)) == repeats


def test_an_outcome_keeps_the_highest_memory_and_says_the_times():
    outcome = Outcome("a", "step")
    for seconds, extra in ((3.0, None), (1.0, 5 * MIB), (2.0, 4 * MIB)):
        outcome.seconds.append(outcome.take({"seconds": seconds, "extra_bytes": extra}))
    assert outcome.extra_bytes == 5 * MIB
    assert outcome.skipped is outcome.cause is None
    said = str(outcome)
    assert all(part in said for part in ("min    1.000 s", "median    2.000 s", "5 MiB", "of 3"))


@pytest.mark.parametrize("cause", ["absent", "limit", "failed"])
def test_an_outcome_without_numbers_says_why(cause):
    outcome = Outcome("a", "step")
    assert outcome.take({cause: "for a reason"}) is None
    assert (outcome.cause, outcome.skipped) == (cause, "for a reason")
    assert f"{cause}: for a reason" in str(outcome)


@pytest.mark.parametrize(
    ("length", "n_hashes", "is_tried"),
    [(64, 4, False), (32, 2, True), (64, 2, True), (16, 8, True)],
)
def test_who_met_a_limit_is_not_asked_for_more(length, n_hashes, is_tried):
    hopeless = Hopeless()
    met = Case(length=32, n_hashes=4)
    hopeless.add(met, Outcome("a", "step", skipped="too slow", cause="limit"))
    case = Case(length=length, n_hashes=n_hashes)
    known = hopeless.known(case, "a", "step")
    assert (known is None) == is_tried
    if known:
        assert (known.cause, known.skipped) == ("limit", "too slow (32 tokens x 4 already)")


def test_a_limit_is_remembered_for_its_contestant_pass_and_part_alone():
    hopeless, case = Hopeless(), Case(length=32)
    hopeless.add(case, Outcome("a", "step", skipped="too slow", cause="limit"))
    hopeless.add(case, Outcome("b", "step", skipped="no such device", cause="absent"))
    assert hopeless.known(case, "a", "step")
    assert hopeless.known(case, "a", "forward") is None
    assert hopeless.known(case, "b", "step") is None
    assert hopeless.known(Case(part="training", length=32), "a", "step") is None


# ------------------------------------------------------------------------------ one worker


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotHereError("needs CUDA"), {"absent": "needs CUDA"}),
        (ModuleNotFoundError("x", name="peer"), {"absent": "peer is not installed"}),
        (MemoryError(), {"limit": "needs more than 1.5 GiB"}),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), None),
        (RuntimeError("CUDA out of memory. Tried to"), None),
        (ValueError("a rule\nand more"), {"failed": "ValueError: a rule"}),
        (AssertionError(), {"failed": "AssertionError: "}),
    ],
)
def test_a_reason_is_given_for_every_error(error, reason):
    assert reason_of(error, 3 * 2**29) == (reason or {"limit": "needs more than 1.5 GiB"})


def test_a_worker_loads_the_code_on_a_small_case_and_then_obeys_every_word(monkeypatch):
    seen, answers = [], []

    def prepare(case):
        def did(what):
            seen.append((what, case.length))

        return Ready(
            forward=lambda: did("forward"), step=lambda: did("step"), forget=lambda: did("forget")
        )

    entry = type("Entry", (), {"prepare": staticmethod(prepare)})
    monkeypatch.setitem(CONTESTANTS["attention"], "fake", entry)
    monkeypatch.setattr(worker, "limit_memory", lambda *_: seen.append("limit"))
    orders = Orders(key="fake", case=Case(length=1000), threads=1, memory_bytes=1)
    serve(orders, ["forward\n", "step\n", "step\n"], answers.append)
    small, real = seen[: seen.index("limit")], seen[seen.index("limit") + 1 :]
    assert [what for what, _ in small if what != "forget"] == ["forward", "step"]
    assert {length for _, length in small} == {256}
    assert real == [
        (what, 1000) for name in ("forward", "step", "step") for what in ("forget", name, "forget")
    ]
    assert answers[0] == {"ready": True}
    assert all(answer["seconds"] > 0 for answer in answers[1:])
    assert len(answers) == 4


def test_orders_survive_the_way_to_the_worker():
    orders = Orders(key="full", case=TINY, threads=3, memory_bytes=5)
    assert Orders.from_json(orders.to_json()) == orders


def test_numbers_are_found_in_the_systems_status():
    status = "Name:\tpython\nVmHWM:\t  123 kB\nVmRSS:\t   45 kB\n"
    assert (kilobytes("VmHWM", status), kilobytes("VmSwap", status)) == (123, None)


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux tells a process its peak")
def test_memory_is_what_a_run_adds_at_its_peak():
    kept = np.ones(20 * MIB, dtype=np.int8)  # noqa: F841 (what is there before does not count)
    memory = ProcessMemory()
    if memory.before is None:
        pytest.skip("this system does not let a process reset its peak")
    passing = np.ones(40 * MIB, dtype=np.int8)
    del passing
    staying = np.ones(10 * MIB, dtype=np.int8)
    assert 39 * MIB < memory.extra() < 48 * MIB
    del staying
    assert ProcessMemory().extra() < 8 * MIB


def test_every_part_has_ours_and_keys_are_unique():
    for part, entries in CONTESTANTS.items():
        assert "ours" in {entry.kind for entry in entries.values()}, part
        assert all(key == entry.key for key, entry in entries.items())
    assert len({entry.label for entry in CONTESTANTS["attention"].values()}) == 9


def test_the_bound_is_seven_products_of_every_whole_tile(monkeypatch):
    products = []
    monkeypatch.setattr(torch, "bmm", lambda a, b, out: products.append((*a.shape, b.shape[-1])))
    case = Case(length=200 * 64, n_hashes=1, n_heads=1)
    ready = prepare_products(case)
    ready.step()
    assert sorted(products[:7]) == sorted(
        [(64, 64, 64, 128)] * 3 + [(64, 64, 128, 64)] * 2 + [(64, 128, 64, 64)] * 2
    )
    assert len(products) == 7 * 4  # 200 tiles in blocks of 64
    products.clear()
    ready.forward()
    assert products[:2] == [(64, 64, 64, 128), (64, 64, 128, 64)]
    assert len(products) == 2 * 4


def test_the_bound_does_the_operations_that_it_says():
    assert products_difference() == 0


# ------------------------------------------------------------------------------- the bound


def test_what_a_pass_must_do_is_what_one_counts_by_hand():
    case = Case(length=4, n_hashes=3, n_heads=1, d_head=2, chunk_length=2)
    # Two numbers of 4 bytes a vector, 4 positions: a round fetches qk and values and, for each
    # position, 4 bytes that say which; and once there is the output.
    assert work_of(case, "ours", "forward").bytes == 3 * (32 + 32 + 16) + 32
    # Again, with the output's gradient; the output is read, two gradients are written.
    more = 3 * (32 + 32 + 32 + 16) + 32 + 32 + 32
    assert work_of(case, "peer", "step").bytes == 3 * (32 + 32 + 16) + 32 + more
    # Two tiles a round, of 2 queries and 4 keys, each pair 2 multiplications and 2 additions.
    assert work_of(case, "ours", "forward").flops == 3 * 2 * (2 * 4) * 4 * 2
    assert work_of(case, "ours", "step").flops == 3 * 2 * (2 * 4) * 4 * 7
    # Full attention knows no rounds; 4 positions have 10 pairs on and below the diagonal.
    assert work_of(case, "full", "forward") == Work(bytes=3 * 32, flops=10 * 4 * 2)
    assert work_of(case, "full", "step") == Work(bytes=3 * 32 + 3 * 32 + 3 * 32, flops=10 * 4 * 7)
    assert work_of(case, "bound", "step") == Work(
        bytes=0, flops=work_of(case, "ours", "step").flops
    )


@pytest.mark.parametrize("which", ["forward", "step"])
@pytest.mark.parametrize("case", [TINY, replace(TINY, length=37, n_heads=1, d_head=16)])
def test_the_bounds_operations_are_those_that_torch_counts(case, which):
    with FlopCounterMode(display=False) as counted:
        getattr(prepare_products(case), which)()
    assert counted.get_total_flops() == work_of(case, "bound", which).flops


def test_full_attention_multiplies_about_half_of_what_torch_counts_for_all_pairs():
    # Of the ways that torch attends on a CPU, it counts only the plain one.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        prepare_full(TINY).forward()
    all_pairs, half = counted.get_total_flops(), work_of(TINY, "full", "forward").flops
    assert half * 2 * TINY.length == all_pairs * (TINY.length + 1)


def test_half_as_many_bytes_a_number_are_half_as_many_to_move_but_for_the_order():
    coarse, fine = (
        work_of(replace(TINY, dtype=dtype), "ours", "step") for dtype in ("bfloat16", "float32")
    )
    order = 2 * 4 * TINY.length * TINY.n_heads * TINY.n_hashes
    assert 2 * (coarse.bytes - order) == fine.bytes - order
    assert coarse.flops == fine.flops


def test_the_bound_is_the_longer_of_moving_and_multiplying():
    peaks = Peaks(bytes_per_s=10, flops_per_s={"float32": 100, "bfloat16": 1000})
    work = Work(bytes=20, flops=1000)
    assert least_seconds(work, peaks, "float32") == (10, "products")
    assert least_seconds(work, peaks, "bfloat16") == (2, "memory")


def test_peaks_count_the_bytes_read_and_written_and_every_operation(monkeypatch):
    monkeypatch.setitem(bounds.COPIED_BYTES, "cpu", 1000)
    monkeypatch.setitem(bounds.MULTIPLIED, "cpu", 10)
    times = iter([0.1, 4, 2, 3, 2.5, 5] * 3)  # the first is not counted
    done = []

    def timed(work):
        done.append(work())
        return next(times)

    monkeypatch.setattr(bounds, "time_here", timed)
    peaks = measure_peaks("cpu", {"float32", "bfloat16"}, threads=1)
    assert peaks == Peaks(bytes_per_s=1000, flops_per_s={"bfloat16": 1000, "float32": 1000})
    assert [tuple(result.shape) for result in done[::6]] == [(1000,), (10, 10), (10, 10)]


def test_measuring_peaks_leaves_the_number_of_threads_alone(monkeypatch):
    monkeypatch.setitem(bounds.COPIED_BYTES, "cpu", 1000)
    monkeypatch.setitem(bounds.MULTIPLIED, "cpu", 10)
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(bounds, "time_here", lambda work: seen.append(torch.get_num_threads()) or 1)
    measure_peaks("cpu", {"float32"}, threads=before + 1)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


# --------------------------------------------------------------------- through real pipes


def test_ours_is_measured_in_a_process_of_its_own():
    keys = ["ours_once", "flash"]
    outcomes = list(race(TINY, keys, ("forward", "step"), RULES, Hopeless()))
    assert [(outcome.which, outcome.key) for outcome in outcomes] == [
        (which, key) for which in ("forward", "step") for key in keys
    ]
    for ours, flash in (outcomes[:2], outcomes[2:]):
        assert len(ours.seconds) == 2
        assert min(ours.seconds) > 0
        assert ours.skipped is None
        assert (flash.cause, flash.skipped) == ("absent", "FlashAttention needs CUDA")


def test_whoever_needs_too_much_memory_is_skipped_with_the_reason():
    little = replace(RULES, memory_bytes=MIB)
    with Runner("ours_once", Case(length=4096), little) as runner:
        first = runner.run("step")
        assert first == {"limit": "needs more than 0.000977 GiB"}
        assert runner.run("forward") == first


SLOW = "print('{}', flush=True); import time; time.sleep(60)"
DEAD = "print('{}', flush=True); import os, sys; print('a\\nb', file=sys.stderr, flush=True); "


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (SLOW, {"limit": "takes longer than 1 s"}),
        (DEAD + "os.kill(os.getpid(), 9)", {"limit": "was killed, as systems do when memory"}),
        (DEAD + "os._exit(3)", {"failed": "ended with exit code 3: b"}),
    ],
)
def test_whoever_is_slow_or_dead_gets_an_answer_made_for_it(monkeypatch, code, answer):
    ready = code.format(json.dumps({"ready": True}))
    monkeypatch.setattr(racing, "worker_command", lambda _: [sys.executable, "-c", ready])
    with Runner("any", TINY, replace(RULES, limit_s=1 if code == SLOW else 60)) as runner:
        ((cause, reason),) = runner.run("step").items()
        assert reason.startswith(*answer.values())
        assert cause in answer
        assert runner.run("step") == {cause: reason}


@pytest.mark.parametrize(("first_s", "times"), [(1, [2, 3]), (50, [50, 2]), (70, [70])])
def test_a_first_run_counts_only_where_there_are_not_two_others(monkeypatch, first_s, times):
    answers = iter([{"ready": 1}, *({"seconds": s, "extra_bytes": 1} for s in (first_s, 2, 3))])
    monkeypatch.setattr(Runner, "_read", lambda *_: next(answers))
    monkeypatch.setattr(racing, "worker_command", lambda _: ["cat"])
    (outcome,) = race(TINY, ["any"], ["step"], RULES, Hopeless())
    assert outcome.seconds == times


@pytest.mark.parametrize(
    ("key", "make"),
    [("ours_once", "our_model"), ("ours_repeats", "our_model"), ("floor", "floor_layers")],
)
def test_a_training_step_differentiates_every_weight_and_forgets_it(monkeypatch, key, make):
    case = Case(part="training", length=48, n_hashes=1, n_heads=2, d_head=8, chunk_length=8)
    model = getattr(training, make)(case)
    monkeypatch.setattr(training, make, lambda *_, **__: model)
    ready = CONTESTANTS["training"][key].prepare(case)
    ready.forward()
    assert {parameter.grad for parameter in model.parameters()} == {None}
    ready.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    ready.forget()
    assert {parameter.grad for parameter in model.parameters()} == {None}


@pytest.mark.parametrize("key", ["ours_once", "ours_repeats", "full"])
def test_an_attention_step_differentiates_both_inputs_and_forgets_them(monkeypatch, key):
    drawn = []
    draw = Case.qk_and_values
    monkeypatch.setattr(Case, "qk_and_values", lambda *a: drawn.extend(draw(*a)) or tuple(drawn))
    ready = CONTESTANTS["attention"][key].prepare(TINY)
    ready.forward()
    assert [leaf.grad for leaf in drawn] == [None, None]
    ready.step()
    assert all(leaf.grad.abs().sum() > 0 for leaf in drawn)
    ready.forget()
    assert [leaf.grad for leaf in drawn] == [None, None]


@pytest.fixture
def small_grid(tmp_path, monkeypatch):
    """Let the command measure 64 tokens in one round, and write beside the test."""
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setitem(command.GRIDS, "quick", [(64, 1)])
    return tmp_path / "mine.json"


SMALL = ["--quick", "--no-training", "--threads", "1", "--repeats", "1", "--name", "mine"]


def test_the_command_measures_writes_and_says_what_it_found(small_grid, capsys):
    assert command.main([*SMALL, "--only", "products"]) == 0
    content, said = json.loads(small_grid.read_text()), capsys.readouterr().out
    assert [run["contestant"] for run in content["runs"]] == ["products"] * 2
    assert content["settings"]["threads"] == 1
    assert content["settings"]["lengths"] == [64]
    assert content["settings"]["longest"] is False
    assert tables.summary(small_grid) in said


def test_the_command_records_what_the_device_does_at_most_and_what_share_a_pass_reaches(
    small_grid, capsys
):
    assert command.main([*SMALL, "--only", "full", "products"]) == 0
    content, said = json.loads(small_grid.read_text()), capsys.readouterr().out
    peaks = Peaks(**content["peaks"])
    assert peaks.bytes_per_s > 0
    assert [*peaks.flops_per_s] == ["float32"]
    for run in content["runs"]:
        kind = CONTESTANTS["attention"][run["contestant"]].kind
        work = work_of(Case(length=64, n_hashes=1), kind, run["pass"])
        assert run["work"] == {"dtype": "float32", **vars(work)}
        if run["pass"] == "step":
            least, limit = least_seconds(work, peaks, "float32")
            assert f"{least / min(run['seconds']):.0%} ({limit})" in said
    assert "share of the bound at 64" in said
    assert "The bound is the longer of two times" in said


@pytest.mark.parametrize(
    ("arguments", "dtype", "longest"),
    [
        (["--device", "cpu"], "float32", False),
        (["--device", "cuda"], "bfloat16", True),
        (["--device", "cuda", "--quick"], "bfloat16", False),
        (["--device", "cuda", "--dtype", "float32", "--no-longest"], "float32", False),
        (["--device", "cpu", "--dtype", "bfloat16", "--longest"], "bfloat16", True),
    ],
)
def test_on_cuda_everybody_computes_in_flash_attentions_dtype_and_up_to_what_fits(
    tmp_path, monkeypatch, arguments, dtype, longest
):
    asked = []
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command, "_new_record", lambda asked, _: {"runs": []})
    monkeypatch.setattr(command, "_measured", lambda told, _: asked.append(told) or [])
    monkeypatch.setattr(command, "summary", lambda _: "")
    assert command.main([*arguments, "--memory", "1"]) == 0
    assert [(told.dtype, told.longest) for told in asked] == [(dtype, longest)]


def test_peaks_on_cuda_are_also_those_of_flash_attentions_dtype(monkeypatch):
    wanted = []
    monkeypatch.setattr(
        command,
        "measure_peaks",
        lambda *told: wanted.append(told) or Peaks(bytes_per_s=1, flops_per_s={}),
    )
    monkeypatch.setattr(command, "new_record", lambda device, settings, peaks: settings)
    for device in ("cpu", "cuda"):
        asked = command._parser().parse_args(["--device", device, "--dtype", "float32"])
        command._new_record(asked, RULES)
    assert wanted == [("cpu", {"float32"}, 1), ("cuda", {"float32", "bfloat16"}, 1)]


def test_each_contestant_alone_is_given_twice_the_length_until_it_does_not_fit(
    small_grid, monkeypatch, capsys
):
    fits = {"ours_once": 512, "full": 128, "flash": 0}
    met = []

    def run(case, keys, passes, rules, hopeless):
        for which in passes:
            for key in keys:
                met.append((case.length, case.n_hashes, tuple(keys)))
                outcome = Outcome(key, which, seconds=[1.0], extra_bytes=MIB)
                if case.length > fits[key]:
                    outcome = Outcome(key, which, skipped="needs more than 1 GiB", cause="limit")
                yield outcome

    monkeypatch.setattr(command, "race", run)
    assert command.main([*SMALL, "--longest", "--only", *fits]) == 0
    alone = [(length, keys) for length, n_hashes, keys in dict.fromkeys(met) if n_hashes == 4]
    assert alone == [
        *((length, ("ours_once",)) for length in (128, 256, 512, 1024)),
        *((length, ("full",)) for length in (128, 256)),
        (128, ("flash",)),
    ]
    content = json.loads(small_grid.read_text())
    assert content["settings"]["longest"] is True
    assert {run["length"] for run in content["runs"] if run["seconds"]} == {64, 128, 256, 512}
    said = capsys.readouterr().out
    assert (
        "128, 256 and 512 tokens in 4 rounds; those beyond the grid each contestant alone" in said
    )
    assert "ours, each pair once at 1,024 tokens: needs more than 1 GiB" in said
    rows = cells(next(part for part in said.split("\n\n") if "longest that fits" in part))
    assert rows["4 rounds"][:2] == ["64 tokens", "longest that fits"]
    assert (rows["ours, each pair once"][1], rows[FULL][1]) == ("512", "128")


def test_a_mistake_is_recorded_reported_and_a_limit_is_not_a_mistake(
    small_grid, monkeypatch, capsys
):
    def one(cause):
        return lambda *_: iter([Outcome("full", "step", skipped="for a reason", cause=cause)])

    monkeypatch.setattr(command, "race", one("failed"))
    assert command.main(SMALL) == 1
    assert "failed: for a reason" in capsys.readouterr().err
    assert json.loads(small_grid.read_text())["runs"][0]["cause"] == "failed"
    for cause in ("limit", "absent"):
        monkeypatch.setattr(command, "race", one(cause))
        assert command.main(SMALL) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(capsys):
    assert command.main(["--device", "cuda"]) == 2
    assert "needs a GPU that torch sees: say --device cpu" in capsys.readouterr().err


# ------------------------------------------------------------------------------- the record


@pytest.fixture
def made(tmp_path):
    """Write a record as a run would, of invented times, and return its path."""
    content = record.new_record("cpu", {"grid": "quick", "dtype": "float32", **vars(RULES)})
    seconds = {"ours_once": 1.0, "ours_repeats": 0.5, "lucidrains_once": 8.0, "full": 2.0}
    seconds |= {"hugging_face": 3.0, "products": 0.25}
    for length in (64, 128):
        case = Case(length=length)
        for key, time in seconds.items():
            times = [time * length / 64, time * length / 32]
            outcome = Outcome(key, "step", seconds=times, extra_bytes=length * MIB)
            content["runs"].append(record.run_of(case, outcome))
        for key, cause in (("flash", "absent"), ("lucidrains_repeats", "limit")):
            outcome = Outcome(key, "step", skipped="for a reason", cause=cause)
            content["runs"].append(record.run_of(case, outcome))
    case = Case(part="training", length=64)
    times = {"ours_once": 2.0, "ours_repeats": 2.5, "hugging_face": 5.0, "floor": 1.0}
    for key, time in times.items():
        outcome = Outcome(key, "step", seconds=[time], extra_bytes=MIB)
        content["runs"].append(record.run_of(case, outcome))
    record.write(content, tmp_path / "made.json")
    assert json.loads((tmp_path / "made.json").read_text()) == content
    return tmp_path / "made.json"


def test_two_goes_of_the_same_are_one_run(tmp_path):
    case = Case(part="training", length=64)
    content = {"runs": []}
    goes = [
        Outcome("floor", "step", seconds=[3.0, 2.0], extra_bytes=7),
        Outcome("ours_once", "step", skipped="too slow", cause="limit"),
        Outcome("floor", "step", seconds=[1.0], extra_bytes=9),
        Outcome("ours_once", "step", seconds=[4.0], extra_bytes=5),
        Outcome("floor", "step", skipped="too slow", cause="limit"),
    ]
    for outcome in goes:
        record.add(content, record.run_of(case, outcome))
    floor, ours = content["runs"]
    assert (floor["seconds"], floor["extra_bytes"]) == ([3.0, 2.0, 1.0], 9)
    assert (floor["skipped"], ours["skipped"]) == (None, None)
    assert (ours["seconds"], ours["extra_bytes"]) == ([4.0], 5)
    record.add(content, record.run_of(Case(part="training", length=128), goes[0]))
    assert len(content["runs"]) == 3


def test_two_goes_of_training_are_said_where_there_were_two(made):
    assert "again after" not in tables.summary(made)
    content = json.loads(made.read_text())
    (step, *_) = (run for run in content["runs"] if run["part"] == "training")
    step["seconds"] = [1.0] * (content["settings"]["repeats"] + 1)
    record.write(content, made)
    said = "taken in turn; training steps were measured before all else and again after. In br"
    assert said in tables.summary(made)


def test_training_is_measured_before_all_else_and_after(monkeypatch):
    parts = []
    monkeypatch.setattr(command, "race", lambda case, *_: parts.append(case.part) or [])
    asked = command._parser().parse_args(["--quick", "--device", "cpu", "--dtype", "float32"])
    for _ in command._measured(asked, RULES):
        pass
    assert parts[0] == parts[-1] == "training"
    assert set(parts[1:-1]) == {"attention"}


def test_a_record_says_who_where_and_when(made):
    content = json.loads(made.read_text())
    assert content["schema"] == SCHEMA
    assert set(content["versions"]) == {
        "python", "torch", "numpy", "reformer-pytorch", "transformers", "commit",
    }  # fmt: skip
    assert content["versions"]["torch"] == torch.__version__
    assert set(content["machine"]) == {
        "cpu", "cores", "memory_bytes", "gpu", "system", "load_average",
    }  # fmt: skip
    assert content["machine"]["cpu"]
    assert content["machine"]["gpu"] is None


def test_a_record_has_a_run_a_line_and_names_neither_host_nor_folder(made):
    text = made.read_text()
    content = json.loads(text)
    assert len([line for line in text.splitlines() if '"contestant":' in line]) == len(
        content["runs"]
    )
    assert str(record.ROOT) not in text
    assert f'"{platform.node()}"' not in text


def test_what_is_written_is_read(made):
    measurement, steps = read_speed(made), read_training_steps(made)
    assert measurement.lengths.tolist() == [64, 128]
    assert measurement.step.fastest[measurement.row("hugging_face"), 0].tolist() == [3, 6]
    assert measurement.step.median[measurement.row("full"), 0].tolist() == [3, 6]
    assert np.isnan(measurement.forward.fastest).all()
    assert steps.fastest.tolist() == [2, 2.5, 5, 1]


# ------------------------------------------------------------------------------- the tables


FULL = "full causal attention, torch SDPA"


def attention_table(path) -> str:
    return tables.attention_table(read_speed(path), json.loads(path.read_text()))


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_a_table_compares_everybody_with_ours_of_the_same_semantics(made):
    rows = cells(attention_table(made))
    assert rows["4 rounds"][:3] == ["64 tokens", "128 tokens", "extra memory at 128"]
    assert rows["ours, each pair once"] == [
        "1,000 / 1,500 ms", "2,000 / 3,000 ms", "128 MiB", "length^1.00",
    ]  # fmt: skip
    theirs = rows["lucidrains, each pair once"][:2]
    assert theirs == ["8,000 ms / 12.0 s (8.0x)", "16.0 / 24.0 s (8.0x)"]
    # counts repeats: ours takes 500 ms
    assert rows["Hugging Face"][0] == "3,000 / 4,500 ms (6.0x)"
    assert rows[FULL][0] == "2,000 / 3,000 ms (2.0x)"
    assert "FlashAttention, torch SDPA in bfloat16" not in rows


@pytest.mark.parametrize(
    ("fastest", "median", "said"),
    [
        (0.05, 0.082, "50 / 82 ms"),
        (9.0, 11.0, "9,000 ms / 11.0 s"),
        (11.0, 12.0, "11.0 / 12.0 s"),
        (104.9, 104.9, "104.9 s"),
        (np.nan, np.nan, "-"),
    ],
)
def test_the_fastest_and_the_median_share_a_unit_where_they_can(fastest, median, said):
    assert tables.fastest_and_median(fastest, median) == said


def test_the_table_has_a_share_of_the_bound_where_the_device_was_measured(made):
    assert "share of the bound" not in tables.summary(made)
    content = json.loads(made.read_text())
    work = {key: work_of(Case(length=128), kind, "step") for key, kind in KINDS.items()}
    flops = work["ours_once"].flops / 0.2  # so that the products of whole tiles take 0.2 s
    content["peaks"] = vars(Peaks(bytes_per_s=1e15, flops_per_s={"float32": flops}))
    record.write(content, made)
    rows = cells(attention_table(made))
    assert rows["4 rounds"][3] == "share of the bound at 128"
    assert rows["ours, each pair once"][3] == "10% (products)"  # of 2 s
    assert rows["ours, repeats counted"][3] == "20% (products)"
    assert rows["the products of whole tiles alone"][3] == "40% (products)"
    content["peaks"]["bytes_per_s"] = work["full"].bytes / 2
    record.write(content, made)
    assert cells(attention_table(made))[FULL][3] == "50% (memory)"
    assert f"{flops / 1e9:,.0f} GFLOP/s in float32" in tables.summary(made)


KINDS = {"ours_once": "ours", "full": "full"}


def test_a_sentence_says_which_lengths_were_measured_in_how_many_rounds(made):
    content = json.loads(made.read_text())
    assert tables.grid(content) == "Measured were 64 and 128 tokens in 4 rounds."
    for length, n_hashes in ((64, 8), (64, 1), (128, 8), (128, 1), (256, 1)):
        case = Case(length=length, n_hashes=n_hashes)
        content["runs"].append(record.run_of(case, Outcome("full", "step", seconds=[1.0])))
    nothing = Outcome("full", "step", skipped="too slow", cause="limit")
    content["runs"].append(record.run_of(Case(length=512), nothing))
    said = "Measured were 64 and 128 tokens in 1, 4 and 8 rounds; 256 tokens in 1 round."
    assert tables.grid(content) == said
    record.write(content, made)
    assert said in tables.summary(made)


def test_ours_stands_out_in_a_table(made):
    for table in (
        attention_table(made),
        tables.training_table(read_training_steps(made)),
    ):
        bold = [line for line in table.splitlines() if line.startswith("| **")]
        assert {line.split("**")[1] for line in bold} <= {
            "ours, each pair once",
            "ours, repeats counted",
            "ReformerLM, each pair once",
            "ReformerLM, repeats counted",
        }
        assert bold


def test_a_training_step_is_compared_with_ours_of_the_same_semantics(made):
    rows = cells(tables.training_table(read_training_steps(made)))
    assert rows["one training step in float32, 64 tokens, 4 rounds"] == ["time", "extra memory"]
    assert rows["ReformerLM, each pair once"] == ["2,000 ms", "1 MiB"]
    assert rows["Hugging Face's ReformerModelWithLMHead"][0] == "5,000 ms (2.00x)"
    assert rows["projections and feed-forward alone, with replay"][0] == "1,000 ms (0.50x)"
    said = "Hugging Face's ReformerModelWithLMHead takes 2.00 times as long as ReformerLM, repeats"
    assert f"{said} counted (2.00 by medians)." in tables.summary(made)


def test_a_peer_is_compared_in_words_with_everyone_of_its_semantics(made):
    content = json.loads(made.read_text())
    case = Case(part="training", length=64)
    for key, seconds in (("ours_last_kept", [2.0, 4.0]), ("hugging_face_in_pieces", [5.0, 8.0])):
        content["runs"].append(record.run_of(case, Outcome(key, "step", seconds=seconds)))
    record.write(content, made)
    said = tables.training_in_words(read_training_steps(made))
    assert "each pair once" not in said
    assert said.count("2.50 times as long as ReformerLM, repeats counted, kept_layers=1 (") == 2
    assert "Hugging Face's, feed-forward in 4 pieces takes 2.00 times as long as" in said
    assert "kept_layers=1 (2.17 by medians)" in said


def test_without_ours_nobody_is_compared(made):
    content = json.loads(made.read_text())
    content["runs"] = [run for run in content["runs"] if "ours" not in run["contestant"]]
    record.write(content, made)
    said = tables.summary(made)
    assert "16.0 / 24.0 s" in said
    assert not re.search(r"\dx\)", said)


def test_whoever_is_missing_is_named_once_with_the_reason(made):
    assert tables.skipped(json.loads(made.read_text()), 4) == [
        "FlashAttention, torch SDPA in bfloat16: for a reason",
        "lucidrains, repeats counted at 64 tokens: for a reason",
        "lucidrains, repeats counted at 128 tokens: for a reason",
    ]
    assert tables.skipped(json.loads(made.read_text()), 2) == []


def test_what_is_unknown_is_a_dash():
    assert tables.seconds(np.nan) == tables.memory(np.nan) == "-"


def test_the_summary_says_machine_date_and_what_a_pass_is(made):
    content, said = json.loads(made.read_text()), tables.summary(made)
    assert content["machine"]["cpu"] in said
    assert f"A quick run on {content['date']}" in said
    assert f"torch {torch.__version__}" in said
    assert read_speed(made).describe() in said


# ------------------------------------------------------------------------------- the README


def test_the_readme_says_what_the_results_say():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.results()
    assert readme.section() in text
    assert readme.with_section(text) == text


def test_every_file_of_results_has_its_picture():
    assert [path.name for path in readme.results() if not readme.figure_of(path).exists()] == []


def test_the_section_is_made_from_the_files_of_results(made, monkeypatch):
    monkeypatch.setattr(readme, "RESULTS", made.parent)
    (made.parent / "local.json").write_text("not read")
    before = "# T\n<!-- speed: made by `make pictures` -->\nold\n<!-- end of speed -->\nend\n"
    after = readme.with_section(before)
    assert tables.summary(made) in after
    assert "(docs/speed_made.png)" in after
    assert "old" not in after
    assert after.startswith("# T\n<!-- speed")
    assert after.endswith("<!-- end of speed -->\nend\n")
    assert readme.with_section(after) == after
    with pytest.raises(ValueError, match="must have the two comments"):
        readme.with_section("# T\n")


def test_the_command_says_what_it_can_be_asked(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0
    assert "60 % of the machine" in " ".join(capsys.readouterr().out.split())
