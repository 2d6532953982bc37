"""Compile the Triton kernels for chips that are not here, and read what they would use there.

`python -m tests.core.aot 75 80 89 90` makes the table beside it anew, chip by chip: many minutes
each. With `--missing` it makes only the rows that are not there.
"""

import argparse
import functools
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from reformer_core.attention import kernels
from reformer_core.attention.triton import DTYPES, OLDEST_WITH_BFLOAT16, tiling

Widths = tuple[int, int]
Row = tuple[str, int, Widths, torch.dtype]

TABLE = Path(__file__).with_name("triton_resources.json")
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

CHIPS = (75, 80, 89, 90)  # T4, A100, L4 and RTX 4090, H100
# The widths of keys and of values: all that a launch fills them up to, 100 and 80 to 112 for one.
WIDTHS = tuple((width, width) for width in range(16, 129, 16))
KERNELS = ("attend", "query_gradients", "key_gradients")
# What a block of threads may ask for, in KiB: CUDA's programming guide, "Compute Capabilities".
SHARED_KIB = {75: 64, 80: 163, 89: 99, 90: 227}
HIDDEN = ("nothing", "later", "itself")
ROUNDS = {
    "first": {"IS_FIRST": True, "ONCE": False},
    "once": {"IS_FIRST": False, "ONCE": True},
    "repeats": {"IS_FIRST": False, "ONCE": False},
}

LAUNCH = ("num_warps", "num_stages", "maxnreg")
INT64 = ("order", "run_at")
INT32 = ("first", "last", "slot_at")
FLOAT32 = ("inverse_norm", "log_total", "projected", "d_qk", "d_values", "out")
INPUTS = ("qk", "values", "d_out")
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


def signature(kernel, dtype: torch.dtype, constants: dict) -> dict[str, str]:
    """Spell out the type of every argument as a launch on tensors of that dtype would."""
    types = dict.fromkeys(INT64, "*i64") | dict.fromkeys(INT32, "*i32") | {"padding": "*i1"}
    types |= dict.fromkeys(FLOAT32, "*fp32") | dict.fromkeys(INPUTS, f"*{TYPES[dtype]}")
    types |= {"share": "fp32"} | dict.fromkeys(constants, "constexpr")
    return {name: types.get(name, "i32") for name in kernel.arg_names}


def aligned(kernel, types: dict[str, str]) -> dict:
    """Say of pointers and strides that 16 divides them, which a launch sees to."""
    strides = {name for name in types if name.endswith(("_batch", "_head", "_row"))}
    return {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(kernel.arg_names)
        if types[name].startswith("*") or name in strides
    }


def tiles_of(name: str, chip: int, widths: Widths, dtype: torch.dtype) -> dict:
    """Return the tiles that a launch would choose."""
    return tiling(divmod(chip, 10), *widths, dtype.itemsize)[name]


def compiled(name: str, chip: int, widths: Widths, dtype: torch.dtype, **rules) -> CompiledKernel:
    """Compile a kernel for a chip, by the rules given, as a launch would."""
    kernel = getattr(kernels, name)
    constants = tiles_of(name, chip, widths, dtype) | rules
    options = {key: constants.pop(key) for key in LAUNCH} | {"enable_fp_fusion": True}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    types = signature(kernel, dtype, constants)
    source = ASTSource(kernel, types, constants, aligned(kernel, types))
    return triton.compile(source, target=GPUTarget("cuda", chip, 32), options=options)


def resources(kernel: CompiledKernel) -> tuple[int, int, int]:
    """Return a thread's registers and spilled bytes, and a block's bytes of shared memory.

    The first two are read out of the machine code; shared memory is asked for at launch.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [CUOBJDUMP, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return numbers["REG"], numbers["STACK"] + numbers["LOCAL"], kernel.metadata.shared


def most(name: str, chip: int, widths: Widths, dtype: torch.dtype, **rules) -> list[int]:
    """Return the most that a kernel takes of each, whatever a query must not see in its run."""
    used = (resources(compiled(name, chip, widths, dtype, HIDDEN=h, **rules)) for h in HIDDEN)
    return list(map(max, zip(*used, strict=True)))


def rules_of(name: str) -> dict[str, dict[str, bool]]:
    """Name every way to compile a kernel: the kind of round, and whether pairs are dropped."""
    kinds = [kind for kind in ROUNDS if kind != "first" or name != "key_gradients"]
    return {
        kind + " with dropout" * dropout: ROUNDS[kind] | {"DROPOUT": dropout}
        for kind, dropout in itertools.product(kinds, (False, True))
    }


def has(chip: int, dtype: torch.dtype) -> bool:
    """Say whether a chip has a dtype."""
    return dtype != torch.bfloat16 or divmod(chip, 10) >= OLDEST_WITH_BFLOAT16


def all_rows(chips: Iterable[int] = CHIPS) -> list[Row]:
    """List what the table has a row of: every kernel, chip, dtype and pair of widths."""
    return [
        (name, chip, widths, dtype)
        for chip, dtype, widths, name in itertools.product(chips, DTYPES, WIDTHS, KERNELS)
        if has(chip, dtype)
    ]


def made(row: Row) -> dict[str, object]:
    """Make a row: the tiles, and by each way "registers, spilled bytes, shared bytes"."""
    used = {kind: most(*row, **rules) for kind, rules in rules_of(row[0]).items()}
    return {"tiles": tiles_in_words(tiles_of(*row)), **used}


def row_name(name: str, chip: int, widths: Widths, dtype: torch.dtype) -> str:
    width = "/".join(map(str, dict.fromkeys(widths)))
    return f"sm_{chip} {TYPES[dtype]} {width} {name}"


def tiles_in_words(tiles: dict) -> str:
    return "{BLOCK_M} queries, {BLOCK_N} keys, {num_warps} warps, {num_stages} stages".format(
        **tiles
    )


@functools.cache
def table() -> dict:
    """Read the table that is kept."""
    return json.loads(TABLE.read_text())


def main(arguments: list[str]) -> None:
    """Make the rows of some chips; rows that another Triton made go."""
    parser = argparse.ArgumentParser(prog="python -m tests.core.aot", description=__doc__)
    parser.add_argument("chips", nargs="*", type=int, default=CHIPS)
    parser.add_argument("--missing", action="store_true", help="make only rows that are not there")
    asked = parser.parse_args(arguments)
    kept = table() if TABLE.exists() else {"triton": None}
    rows = dict(kept["rows"]) if kept["triton"] == triton.__version__ else {}
    for row in all_rows(asked.chips):
        name = row_name(*row)
        if not (asked.missing and name in rows):
            rows[name] = made(row)
            sys.stdout.write(f"{name}: {rows[name]}\n")
    write(rows)


def write(rows: dict[str, dict]) -> None:
    """Write the table, one row a line."""
    lines = ",\n".join(f'"{name}": {json.dumps(rows[name])}' for name in sorted(rows))
    TABLE.write_text(f'{{"triton": "{triton.__version__}", "rows": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main(sys.argv[1:])
