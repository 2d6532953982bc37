"""The fused kernels compiled for chips that are not here: nothing spills, nothing is TF32."""

import itertools
import re

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton, which is for Linux alone")
import triton

from tests.core import aot

PINNED = re.search(r"(?m)^triton==(.*)$", (aot.TABLE.parents[2] / "constraints.txt").read_text())[1]
ROWS = [
    (name, chip, width, dtype)
    for chip, dtype, width, name in itertools.product(
        aot.CHIPS, aot.DTYPES, aot.WIDTHS, aot.KERNELS
    )
    if aot.has(chip, dtype)
]
# A kernel of each for every chip and dtype, of a width that differs from one to the next: the whole
# table takes many minutes.
RECOMPILED = [row for index, row in enumerate(ROWS) if index % 12 == index // 12 % 12]


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
    name = row[0]
    kind = list(aot.rules_of(name))[ROWS.index(row) % len(aot.rules_of(name))]
    used = aot.most(*row, **aot.rules_of(name)[kind])
    assert used == aot.table()["rows"][aot.row_name(*row)][kind], "make the table anew"


# ---------------------------------------------------------------- what multiplies


def products(name: str, dtype: torch.dtype, chip: int = 80) -> tuple[set[str], set[str]]:
    """Return the types of the products in Triton's own code and in the machine's assembly."""
    rules = {"IS_FIRST": True, "ONCE": False, "DROPOUT": False, "HIDDEN": "later"}
    assembly = aot.compiled(name, chip, 64, dtype, **rules).asm
    in_triton = set(re.findall(r"tt\.dot .*: tensor<\w*?x\w*?x(\w+)[,>]", assembly["ttir"]))
    return in_triton, set(re.findall(r"mma\.sync\S*?\.(f32\.\S+);?", assembly["ptx"]))


@pytest.mark.parametrize("name", aot.KERNELS)
class TestProducts:
    def test_bfloat16_is_multiplied_as_bfloat16_when_compiled(self, name):
        assert products(name, torch.bfloat16) == ({"bf16"}, {"f32.bf16.bf16.f32"})

    def test_float16_is_multiplied_as_float16_and_summed_in_float32(self, name):
        assert products(name, torch.float16) == ({"f16"}, {"f32.f16.f16.f32"})

    def test_float32_is_never_multiplied_as_tf32(self, name):
        assert products(name, torch.float32) == ({"f32"}, set())
