"""Measure every implementation side by side: `make bench`, or python -m tests.benchmarks."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from tests.benchmarks.bounds import measure_peaks
from tests.benchmarks.case import ALWAYS_IN, Case, Part
from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.race import Hopeless, Outcome, Rules, race
from tests.benchmarks.record import (
    LOCAL,
    RESULTS,
    add,
    cores,
    memory_bytes,
    new_record,
    run_of,
    write,
)
from tests.benchmarks.tables import summary

GRIDS = {
    "quick": [(length, n_hashes) for length in (1024, 4096) for n_hashes in (1, 4)],
    "moderate": [(length, 4) for length in (1024, 4096, 16384, 65536)]
    + [(length, n_hashes) for n_hashes in (1, 2, 8) for length in (1024, 4096, 16384)],
    "full": [(1024 * 2**power, n_hashes) for power in range(7) for n_hashes in (1, 2, 4, 8)],
}
LONGEST_ROUNDS = 4
TRAINING = {"length": 4096, "n_hashes": 4, "n_heads": 4}
PASSES: dict[Part, tuple[str, ...]] = {"attention": ("forward", "step"), "training": ("step",)}
DTYPES = ("float32", "bfloat16", "float16")
_SHARE_OF_MEMORY = 0.6


def main(arguments: list[str] | None = None) -> int:
    """Measure what the arguments say; return 1 where a contestant failed by a mistake."""
    asked = _parser().parse_args(arguments)
    on_cuda = asked.device == "cuda"
    asked.dtype = asked.dtype or ("bfloat16" if on_cuda else "float32")
    if asked.longest is None:
        asked.longest = on_cuda and asked.grid != "quick"
    if asked.check:
        from tests.benchmarks.check import check  # needs the peers

        return check()
    if on_cuda and not torch.cuda.is_available():
        print("error: device cuda needs a GPU that torch sees: say --device cpu", file=sys.stderr)
        return 2
    rules = _rules(asked)
    path = RESULTS / f"{asked.name}.json"
    record = _new_record(asked, rules)
    failed = []
    for case, outcomes in _measured(asked, rules):
        print(f"\n{case}", flush=True)
        for outcome in outcomes:
            add(record, run_of(case, outcome))
            failed += [outcome] if outcome.cause == "failed" else []
            print(f"  {outcome}", flush=True)
        write(record, path)
    print(f"\n{summary(path)}\n\n{os.path.relpath(path)}")
    for outcome in failed:
        print(f"error: {outcome}", file=sys.stderr)
    return int(bool(failed))


def _new_record(asked: argparse.Namespace, rules: Rules) -> dict[str, Any]:
    """Begin a record with what was asked and what the device can do."""
    settings = {"grid": asked.grid, "lengths": _lengths(asked), "dtype": asked.dtype}
    settings |= {"longest": asked.longest, **vars(rules)}
    dtypes = {asked.dtype} | (set(ALWAYS_IN.values()) if asked.device == "cuda" else set())
    peaks = measure_peaks(asked.device, dtypes, rules.threads)
    return new_record(asked.device, settings, vars(peaks))


def _measured(asked: argparse.Namespace, rules: Rules) -> Iterator[tuple[Case, Iterable[Outcome]]]:
    """Yield every case with its outcomes as they come: the grid, what is longer, the training.

    Training has few cases and long steps: where something disturbs the machine for some minutes it
    could disturb all of them. So it is measured in two goes, before all else and after.
    """
    hopeless = Hopeless()
    if asked.training:
        yield from _training(asked, rules, hopeless)
    for case in _cases(asked):
        keys = _keys(case.part, asked.only)
        yield case, race(case, keys, PASSES[case.part], rules, hopeless)
    if asked.longest:
        yield from _longest(asked, rules, hopeless)
    if asked.training:
        yield from _training(asked, rules, hopeless)


def _training(
    asked: argparse.Namespace, rules: Rules, hopeless: Hopeless
) -> Iterator[tuple[Case, Iterable[Outcome]]]:
    """Yield the training step, which is always in float32."""
    case = Case(part="training", **TRAINING, device=asked.device)
    yield case, race(case, _keys("training", asked.only), PASSES["training"], rules, hopeless)


def _cases(asked: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases of the chosen grid, short before long."""
    for length, n_hashes in sorted(GRIDS[asked.grid]):
        if length in _lengths(asked):
            yield Case(length=length, n_hashes=n_hashes, device=asked.device, dtype=asked.dtype)


def _lengths(asked: argparse.Namespace) -> list[int]:
    """Return the lengths of the grid that are asked for."""
    lengths = sorted({length for length, _ in GRIDS[asked.grid]})
    return [length for length in lengths if asked.lengths is None or length in asked.lengths]


def _longest(
    asked: argparse.Namespace, rules: Rules, hopeless: Hopeless
) -> Iterator[tuple[Case, Iterable[Outcome]]]:
    """Double the length for each contestant alone, until it no longer fits.

    Alone, because the inputs of all the others would take from what there is to fit into.
    """
    for key in _keys("attention", asked.only):
        length, fits = max(_lengths(asked), default=0), True
        while fits and length:
            length *= 2
            case = Case(
                length=length, n_hashes=LONGEST_ROUNDS, device=asked.device, dtype=asked.dtype
            )
            outcomes = list(race(case, [key], PASSES["attention"], rules, hopeless))
            fits = all(outcome.seconds for outcome in outcomes)
            yield case, outcomes


def _keys(part: Part, only: list[str] | None) -> list[str]:
    """Return who takes part."""
    return [key for key in CONTESTANTS[part] if only is None or key in only]


def _rules(asked: argparse.Namespace) -> Rules:
    """Turn the arguments into limits."""
    if asked.memory is not None:
        limit = int(asked.memory * 2**30)
    else:
        on_cuda = asked.device == "cuda"
        total = torch.cuda.mem_get_info()[1] if on_cuda else memory_bytes() or Rules.memory_bytes
        limit = int(_SHARE_OF_MEMORY * total)
    return Rules(
        repeats=asked.repeats,
        seconds=asked.seconds,
        limit_s=asked.limit,
        memory_bytes=limit,
        threads=asked.threads,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    grid = parser.add_mutually_exclusive_group()
    for name, about in (("quick", "minutes"), ("full", "hours; without either, about half of one")):
        grid.add_argument(
            f"--{name}", dest="grid", action="store_const", const=name, help=f"takes {about}"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    keys = sorted({key for entries in CONTESTANTS.values() for key in entries})
    for option, about in (
        ("lengths", {"type": int, "nargs": "+", "help": "of the grid's lengths only these"}),
        ("only", {"nargs": "+", "choices": keys, "help": "only these contestants"}),
        ("name", {"default": LOCAL, "help": "of the file; the README shows all but %(default)s"}),
        ("device", {"default": device, "choices": ("cpu", "cuda")}),
        ("dtype", {"choices": DTYPES, "help": "default: bfloat16 on CUDA, else float32"}),
        ("threads", {"type": int, "default": cores(), "help": "default: every core"}),
        ("repeats", {"type": int, "default": Rules.repeats, "help": "at most"}),
        ("seconds", {"type": float, "default": Rules.seconds, "help": "for repeats, at most"}),
        ("limit", {"type": float, "default": Rules.limit_s, "help": "seconds a run may take"}),
        ("memory", {"type": float, "help": "GiB a run may take; default: 60 %% of the machine"}),
    ):
        parser.add_argument(f"--{option}", **about)
    parser.add_argument("--training", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--longest",
        action=argparse.BooleanOptionalAction,
        help="double the length until nobody fits; default: on CUDA, unless --quick",
    )
    parser.add_argument("--check", action="store_true", help="compare the peers with oracles")
    parser.set_defaults(grid="moderate")
    return parser


if __name__ == "__main__":
    sys.exit(main())
