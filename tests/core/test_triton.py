"""The fused kernels: exact attention over a plan's pairs, and what they refuse or do without."""

import functools
import importlib
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reformer_core.attention import triton as fused
from reformer_core.attention.rule import Rule
from tests.core import fused_cases

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.device("cuda")
MEMORY_FOR_FAR_VECTORS = 12 << 30
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux alone"
)


def python(*arguments: str, **environment: str) -> str:
    """Run Python in a process of its own, where warnings are errors too, and return its output."""
    result = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])} | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@functools.cache
def interpreted() -> dict[str, dict[str, float]]:
    """Run every case under Triton's interpreter, once."""
    return json.loads(python("-m", "tests.core.fused_cases"))


def assert_within_bounds(errors: dict[str, float]) -> None:
    assert errors
    assert {what: share for what, share in errors.items() if not share <= 1} == {}


# ---------------------------------------------------------------- equality


@needs_triton
@pytest.mark.parametrize("name", fused_cases.CASES)
def test_the_kernels_are_exact_attention_over_the_pairs_that_a_plan_shows(name):
    assert_within_bounds(interpreted()[name])


@pytest.mark.gpu
@pytest.mark.parametrize("name", fused_cases.CASES)
def test_the_kernels_are_exact_on_a_gpu(name):
    if "farther_apart" in name and torch.cuda.mem_get_info()[0] < MEMORY_FOR_FAR_VECTORS:
        pytest.skip(f"needs {MEMORY_FOR_FAR_VECTORS >> 30} GiB of free GPU memory")
    assert_within_bounds(fused_cases.errors_of(name, CUDA))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", fused_cases.DTYPES)
@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 100, 128])
def test_every_tile_size_is_exact_on_a_gpu(width, dtype):
    errors = fused_cases.Errors(CUDA)
    qk, values, d_out = fused_cases.inputs(2, 2, 300, width, width, dtype)
    fused_cases.check_rules(errors, qk, values, d_out, rounds=3, chunk_length=32)
    assert_within_bounds(errors.worst)


@pytest.mark.gpu
def test_the_same_inputs_give_the_same_bits_every_time():
    inputs = [part.to(CUDA) for part in fused_cases.inputs(2, 4, 1000, 64, 64)]
    plan = fused_cases.moved(fused_cases.planned(inputs[0].cpu(), rounds=4), CUDA)
    first, *others = (results(*inputs, Rule(plan=plan)) for _ in range(4))
    for again in others:
        assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


@pytest.mark.gpu
def test_a_head_at_the_end_of_more_numbers_than_32_bits_count_is_like_one_alone():
    length, width = 1 << 20, 128
    heads = (1 << 31) // (length * width) + 1
    if torch.cuda.mem_get_info()[0] < 40 * heads * length * width:
        pytest.skip("needs 40 bytes of GPU memory for each of over 2^31 numbers")
    qk = torch.randn(1, heads, length, width, dtype=torch.float16, device=CUDA)
    buckets = torch.randint(length // 32, (1, heads, 1, length), device=CUDA)
    rule = {"chunk_length": 64, "causal": True}
    whole = results(qk, qk, qk, Rule(plan=fused_cases.plan_chunks(buckets, **rule)))
    last, plan = qk[:, -1:], fused_cases.plan_chunks(buckets[:, -1:], **rule)
    for all_heads, alone in zip(whole, results(last, last, last, Rule(plan=plan)), strict=True):
        assert torch.equal(all_heads[:, -1:], alone)


def results(qk, values, d_out, rule):
    out, log_total = fused.attend(qk, values, rule)
    return out, *fused.gradients(d_out, qk, values, out, log_total, rule)


# ---------------------------------------------------------------- what they are given


class FakeKernels:
    """Keeps what every kernel was given, and computes nothing."""

    def __init__(self):
        self.given = []

    def __getattr__(self, name):
        return {(tiles,): functools.partial(self.run, name) for tiles in range(100)}

    def run(self, name, *arguments, **more):
        self.given.append((name, arguments, more))


LAYOUTS = {
    "whole": lambda zeros, shape: zeros(shape),
    "heads of a projection": lambda zeros, shape: zeros(
        shape[0], shape[2], shape[1], shape[3]
    ).transpose(1, 2),
    "part of a wider one": lambda zeros, shape: zeros(*shape[:3], shape[3] + 7)[..., 7:],
    "not at the beginning": lambda zeros, shape: zeros(math.prod(shape) + 1)[1:].view(shape),
    "vectors that lie apart": lambda zeros, shape: zeros(*shape[:3], 2 * shape[3])[..., ::2],
    "expanded": lambda zeros, shape: zeros(1, 1, 1, shape[3]).expand(shape),
    "one number": lambda zeros, shape: zeros(1).expand(shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [1, 16, 48, 100, 128])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_16_divides_every_width_stride_and_address_that_a_kernel_is_given(
    monkeypatch, layout, width, dtype
):
    kernels, zeros = FakeKernels(), functools.partial(torch.zeros, dtype=dtype)
    monkeypatch.setattr(fused, "_kernels", lambda: kernels)
    qk, values, d_out = (LAYOUTS[layout](zeros, (2, 3, 20, width)) for _ in range(3))
    out, d_qk, d_values = results(qk, values, d_out, Rule(plan=fused_cases.planned(qk)))
    assert out.shape == d_qk.shape == d_values.shape == (2, 3, 20, width)
    assert len(kernels.given) == 2 * 3  # rounds, kernels
    for _, arguments, more in kernels.given:
        numbers = [argument for argument in arguments if isinstance(argument, int)]
        numbers += [part.data_ptr() for part in arguments if isinstance(part, torch.Tensor)]
        numbers += [more["D"], more["V"]]
        assert [number % 16 for number in numbers] == [0] * len(numbers)
        assert (more["D"], more["V"]) == (-(-width // 16) * 16,) * 2


@pytest.mark.parametrize("widths", [(16, 40), (40, 16), (128, 1)])
def test_keys_and_values_are_filled_up_to_the_wider_of_them(monkeypatch, widths):
    kernels = FakeKernels()
    monkeypatch.setattr(fused, "_kernels", lambda: kernels)
    qk, values, d_out = fused_cases.inputs(1, 2, 20, *widths)
    out, d_qk, d_values = results(qk, values, d_out, Rule(plan=fused_cases.planned(qk)))
    assert (d_qk.shape[-1], d_values.shape[-1], out.shape[-1]) == (*widths, widths[1])
    for _, (qk_given, values_given, *_), more in kernels.given:
        assert qk_given.shape[-1] == values_given.shape[-1] == more["D"] == more["V"]
        assert torch.equal(qk_given[..., : widths[0]], qk)
        assert torch.equal(values_given[..., : widths[1]], values)
        assert not qk_given[..., widths[0] :].any()
        assert not values_given[..., widths[1] :].any()


def test_what_is_laid_out_well_is_not_copied():
    for layout in ("whole", "heads of a projection", "expanded"):
        tensor = LAYOUTS[layout](torch.zeros, (2, 3, 20, 48))
        assert fused._laid_out(tensor, 48) is tensor


# ---------------------------------------------------------------- what they cannot do


def pair(d_head=16, d_value=16, dtype=torch.float32):
    qk, values, _ = fused_cases.inputs(length=4, d_head=d_head, d_value=d_value, dtype=dtype)
    return qk, values


@pytest.mark.parametrize("width", [1, 16, 100, 128])
@pytest.mark.parametrize("dtype", fused_cases.DTYPES)
def test_there_is_no_objection_to_what_the_kernels_have(width, dtype):
    assert fused.objection(*pair(width, 16, dtype)) is None
    assert fused.objection(*pair(16, width, dtype)) is None


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"d_head": 129}, "qk must have heads of 1 to 128 .*, got 129: use more heads"),
        ({"d_value": 256}, "values must have heads of 1 to 128 .*, got 256: use more heads"),
        ({"d_head": 0}, "qk must have heads of 1 to 128 .*, got 0"),
        (
            {"dtype": torch.float64},
            "qk must be of float16, bfloat16, float32 .* torch.float64",
        ),
    ],
)
def test_what_the_kernels_lack_is_refused_by_name(sizes, complaint):
    qk, values = pair(**sizes)
    with pytest.raises(ValueError, match=complaint) as raised:
        fused.attend(qk, values, Rule(plan=fused_cases.planned(qk)))
    assert str(raised.value) == fused.objection(qk, values)


def test_values_of_another_unsupported_dtype_are_refused_too():
    qk, values = pair()
    assert "values must be of" in fused.objection(qk, values.double())


def test_turing_has_no_bfloat16(monkeypatch):
    class OnTuring(torch.Tensor):
        is_cuda = True

    qk, values = (part.as_subclass(OnTuring) for part in pair(dtype=torch.bfloat16))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "qk must be of float16, float32 " in fused.objection(qk, values)
    assert fused.objection(qk.half(), values.half()) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert fused.objection(qk, values) is None


# ---------------------------------------------------------------- where they cannot run


class FakeTriton:
    def __init__(self, version):
        self.__version__ = version


@pytest.fixture
def machine(monkeypatch, caplog):
    """Pretend to a GPU and to a Triton; returns what `available` says, and what it logs."""
    caplog.set_level(logging.DEBUG, logger="reformer_core")
    monkeypatch.delenv("REFORMER_FUSED", raising=False)

    def pretend(
        version: str | None,
        capability: tuple[int, int] = (8, 0),
        rocm: str | None = None,
        compiler: str | None = "gcc",
        cc: str | None = None,
    ):
        def found(name):
            if version is None:
                raise ImportError(name)
            return FakeTriton(version)

        monkeypatch.setattr(importlib, "import_module", found)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.version, "hip", rocm)
        monkeypatch.setattr(fused.sys, "platform", "linux")
        monkeypatch.setattr(fused.shutil, "which", lambda name: name if name == compiler else None)
        monkeypatch.delenv("CC", raising=False)
        if cc:
            monkeypatch.setenv("CC", cc)
        fused._usable.cache_clear()
        said = {fused.available(CUDA) for _ in range(3)}
        fused._usable.cache_clear()
        return said, [record.getMessage() for record in caplog.records]

    return pretend


@pytest.mark.parametrize("version", ["3.2.0", "3.7.1", "3.10.0+git1a2b3c", "4.0.0"])
def test_the_kernels_run_on_cuda_with_triton_and_nothing_is_logged(machine, version):
    assert machine(version) == ({True}, [])


@pytest.mark.parametrize("found", [{"compiler": "clang"}, {"compiler": None, "cc": "zig cc"}])
def test_any_compiler_that_triton_finds_will_do(machine, found):
    assert machine("3.7.1", **found) == ({True}, [])


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ({"rocm": "6.2.41133"}, "they are made for CUDA, and this torch is for ROCm"),
        ({"compiler": None}, "Triton needs a C compiler, and finds neither gcc nor clang"),
        ({"version": ""}, "what is installed as Triton has no version, got ''"),
        ({"version": "unknown"}, "what is installed as Triton has no version, got 'unknown'"),
    ],
)
def test_a_machine_where_the_kernels_would_fail_says_so_once(machine, lacking, reason):
    said, logged = machine(**{"version": "3.7.1"} | lacking)
    assert said == {False}
    assert logged == [f"LSH attention runs in chunks instead of fused: {reason}"]


def test_a_folder_that_is_called_triton_is_no_triton(machine, monkeypatch):
    machine("3.7.1")
    monkeypatch.setattr(importlib, "import_module", lambda name: object())
    assert fused._lack((8, 0)) == "what is installed as Triton has no version, got ''"


@pytest.mark.parametrize(
    ("version", "capability", "reason"),
    [
        (None, (8, 0), "Triton is not installed"),
        ("3.1.0", (8, 0), "Triton 3.1.0 is older than 3.2"),
        ("2.3.1", (9, 0), "Triton 2.3.1 is older than 3.2"),
        ("3.7.1", (7, 0), "compute capability 7.0 is below 7.5"),
    ],
)
def test_a_machine_that_lacks_something_says_so_once(machine, version, capability, reason):
    said, logged = machine(version, capability)
    assert said == {False}
    assert logged == [f"LSH attention runs in chunks instead of fused: {reason}"]


def test_whoever_asks_for_chunks_gets_them_and_one_line_that_says_so(machine, monkeypatch):
    monkeypatch.setenv("REFORMER_FUSED", "0")
    reason = "REFORMER_FUSED=0 says so"
    assert machine("3.7.1") == (
        {False},
        [f"LSH attention runs in chunks instead of fused: {reason}"],
    )


def test_a_machine_without_cuda_lacks_nothing_worth_a_line(caplog):
    assert not fused.available(torch.device("cpu"))
    assert caplog.records == []


def test_everything_but_the_kernels_is_there_without_triton():
    python(
        "-c",
        "import sys; sys.modules['triton'] = None\n"
        "from jaxtyping import install_import_hook\n"
        "install_import_hook('reformer_core', 'beartype.beartype')\n"
        "import torch, reformer_core.attention.triton as fused\n"
        "assert fused._lack((8, 0)) == 'Triton is not installed'\n"
        "assert 'float64' in fused.objection(*torch.ones(2, 1, 1, 1, 4, dtype=torch.float64))",
    )
