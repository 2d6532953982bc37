"""Compiled and exported models give eager's numbers; `compile_checks.py` runs apart."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.compile_checks import CHECKS

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX", "g++")


@pytest.mark.parametrize("name", CHECKS)
def test_a_graph_gives_the_numbers_of_eager_code(name, tmp_path):
    if "inductor" in name and shutil.which(COMPILER) is None:
        pytest.skip(f"inductor needs a C++ compiler, and {COMPILER} is not installed")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.core.compile_checks", name],
        cwd=ROOT,
        # A cache of its own: inductor's knows the graph, but not what the operations in it return.
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
