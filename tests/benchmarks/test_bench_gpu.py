"""The GPU benchmark runs to its end on tiny sizes, and says so where there is nothing to measure."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("bench_gpu.py")
QUICKLY = """
import runpy, sys
from tests.kernels.triton.interpreter import quicken
quicken()
script = sys.argv[1]
sys.argv[:] = [script, "--smoke"]
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
"""


def run(*arguments: str, **environment: str) -> list[str]:
    """Lines that a Python process prints."""
    process = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        cwd=SCRIPT.parents[2],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout.splitlines()


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_smoke_run_prints_every_line_of_both_tables():
    lines = run("-c", QUICKLY, str(SCRIPT), TRITON_INTERPRET="1")
    assert lines[0] == "smoke run, the numbers mean nothing"
    names = ("ours", "dense, compiled", "dense forward, sparse backward", "floor")
    kernels = (
        "select_topk float32",
        "select_above",
        "select_group_max",
        "sparse_decode",
        "decoder and value",
        "latent_sum",
    )
    for name in (*names, *kernels):
        assert sum(line.startswith(name) for line in lines) == 1, name


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_it_says_that_there_is_nothing_to_measure():
    assert run(str(SCRIPT)) == [
        "no CUDA device: nothing to measure (--smoke runs tiny sizes in Triton's interpreter)"
    ]
