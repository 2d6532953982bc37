"""The fused kernels compiled for chips that are not here: nothing spills, nothing is TF32."""

import itertools
import re

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton, which is for Linux alone")
import triton

from reformer_core.attention.triton import LARGEST_HEAD, tiling
from tests.core import aot

PINNED = re.search(r"(?m)^triton==(.*)$", (aot.TABLE.parents[2] / "constraints.txt").read_text())[1]
ROWS = aot.all_rows()
# One row for every chip and dtype, whose kernel, widths and way to compile differ from one to the
# next: the whole table takes an hour.
HAVE = [(chip, dtype) for chip in aot.CHIPS for dtype in aot.DTYPES if aot.has(chip, dtype)]
RECOMPILED = [
    (aot.KERNELS[index % 3], chip, aot.WIDTHS[3 * index % len(aot.WIDTHS)], dtype)
    for index, (chip, dtype) in enumerate(HAVE)
]


def recompiled_kind(row) -> str:
    """Name the way to compile a row, the last ones first: they take most."""
    return list(aot.rules_of(row[0]))[-1 - RECOMPILED.index(row) // 3]


@pytest.fixture(autouse=True)
def compile_anew(tmp_path_factory, monkeypatch):
    """Neither trust nor fill the user's cache of compiled kernels."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


def test_the_table_is_of_the_triton_that_the_tests_run_with():
    assert aot.table()["triton"] == PINNED


def test_the_table_has_every_kernel_chip_dtype_and_width_and_every_way_to_compile_it():
    assert set(aot.table()["rows"]) == {aot.row_name(*row) for row in ROWS}
    for row in ROWS:
        assert set(aot.table()["rows"][aot.row_name(*row)]) == {"tiles", *aot.rules_of(row[0])}


@pytest.mark.parametrize("row", ROWS, ids=itertools.starmap(aot.row_name, ROWS))
def test_nothing_spills_or_exceeds_the_shared_memory_of_its_chip(row):
    used = dict(aot.table()["rows"][aot.row_name(*row)])
    assert used.pop("tiles") == aot.tiles_in_words(aot.tiles_of(*row)), "make the table anew"
    for registers, spilled, shared in used.values():
        assert 0 < registers <= 255
        assert spilled == 0
        assert shared <= aot.SHARED_KIB[row[1]] << 10


@pytest.mark.skipif(triton.__version__ != PINNED, reason="the table is of another Triton")
@pytest.mark.parametrize("row", RECOMPILED, ids=itertools.starmap(aot.row_name, RECOMPILED))
def test_the_table_says_what_the_compiler_does(row):
    kind = recompiled_kind(row)
    used = aot.most(*row, **aot.rules_of(row[0])[kind])
    assert used == aot.table()["rows"][aot.row_name(*row)][kind], "make the table anew"


def test_what_is_compiled_anew_is_spread_over_all_that_the_table_has():
    names, chips, widths, dtypes = map(set, zip(*RECOMPILED, strict=True))
    assert (names, chips) == (set(aot.KERNELS), set(aot.CHIPS))
    assert (widths, dtypes) == (set(aot.WIDTHS), set(aot.DTYPES))
    kinds = {recompiled_kind(row) for row in RECOMPILED}
    assert kinds >= {"once", "once with dropout", "repeats", "repeats with dropout"}


def test_whatever_the_widths_of_a_head_it_is_launched_as_one_that_the_table_has():
    every = range(1, LARGEST_HEAD + 1)
    for d_head, d_value in itertools.product(every, every):
        for tiles in tiling((9, 0), d_head, d_value, 2).values():
            assert (tiles["D"], tiles["V"]) in aot.WIDTHS
            assert max(d_head, d_value) <= tiles["D"] <= tiles["BLOCK_D"] == tiles["BLOCK_V"]


# ---------------------------------------------------------------- what multiplies


def products(name: str, dtype: torch.dtype, chip: int, widths: aot.Widths):
    """Return the types of the products in Triton's own code and in the machine's assembly.

    Those of the assembly are what is summed, the left factor and the right one.
    """
    rules = {"IS_FIRST": True, "ONCE": False, "DROPOUT": False, "HIDDEN": "later"}
    assembly = aot.compiled(name, chip, widths, dtype, **rules).asm
    in_triton = set(re.findall(r"tt\.dot .*: tensor<\w*?x\w*?x(\w+)[,>]", assembly["ttir"]))
    multiplies = r"(?:mma\.sync|wgmma\.mma_async)\S*?\.(f\d+)\.(\w+)\.(\w+)"
    return in_triton, set(re.findall(multiplies, assembly["ptx"]))


@pytest.mark.parametrize("name", aot.KERNELS)
@pytest.mark.parametrize(
    ("chip", "widths"), [(80, (64, 64)), (89, (48, 48)), (90, (128, 128))], ids=str
)
class TestProducts:
    def test_bfloat16_is_multiplied_as_bfloat16_when_compiled(self, name, chip, widths):
        found = products(name, torch.bfloat16, chip, widths)
        assert found == ({"bf16"}, {("f32", "bf16", "bf16")})

    def test_float16_is_multiplied_as_float16_and_summed_in_float32(self, name, chip, widths):
        found = products(name, torch.float16, chip, widths)
        assert found == ({"f16"}, {("f32", "f16", "f16")})

    def test_float32_is_never_multiplied_as_tf32(self, name, chip, widths):
        assert products(name, torch.float32, chip, widths) == ({"f32"}, set())
