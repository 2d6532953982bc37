"""Compile the Triton kernels for chips that are not here, and read what they would use there."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from reformer_core.attention import kernels
from reformer_core.attention.triton import tiling

KERNELS = ("attend", "query_gradients", "key_gradients")
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

LAUNCH = ("num_warps", "num_stages")
INT64 = ("order", "run_at")
INT32 = ("first", "last", "slot_at")
FLOAT32 = ("inverse_norm", "log_total", "projected", "d_qk", "d_values", "out")
INPUTS = ("qk", "values", "d_out")


@dataclass(frozen=True)
class Resources:
    """What one thread, and one block of threads, of a kernel takes."""

    registers: int
    spilled: int
    shared: int


def signature(kernel, dtype: torch.dtype, constants: dict) -> dict[str, str]:
    """Spell out the type of every argument as a launch on tensors of that dtype would."""
    types = dict.fromkeys(INT64, "*i64") | dict.fromkeys(INT32, "*i32") | {"padding": "*i1"}
    types |= dict.fromkeys(FLOAT32, "*fp32") | dict.fromkeys(INPUTS, f"*{TYPES[dtype]}")
    types |= {"share": "fp32"} | dict.fromkeys(constants, "constexpr")
    return {name: types.get(name, "i32") for name in kernel.arg_names}


def aligned(kernel, types: dict[str, str]) -> dict:
    """Say of pointers and strides that 16 divides them, as it does for whole tensors."""
    strides = {n for n in types if n.endswith(("_batch", "_head", "_row"))}
    return {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(kernel.arg_names)
        if types[name].startswith("*") or name in strides
    }


def compiled(
    name: str, arch: int, width: int, dtype: torch.dtype, tiles: dict | None = None, **rules: bool
) -> CompiledKernel:
    """Compile a kernel for a chip as the launcher would launch it, with its costliest options."""
    kernel = getattr(kernels, name)
    chosen = tiles or tiling(divmod(arch, 10), width, width, dtype.itemsize)[name]
    constants = {"HIDDEN": "later", "DROPOUT": True, "ONCE": True, "IS_FIRST": False} | chosen | rules
    options = {key: constants.pop(key) for key in LAUNCH} | {"enable_fp_fusion": True}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    types = signature(kernel, dtype, constants)
    source = ASTSource(kernel, types, constants, aligned(kernel, types))
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def resources(kernel: CompiledKernel) -> Resources:
    """Read registers and stack out of the machine code; shared memory is asked for at launch."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [CUOBJDUMP, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    spilled = numbers["STACK"] + numbers["LOCAL"]
    return Resources(numbers["REG"], spilled, kernel.metadata.shared)
