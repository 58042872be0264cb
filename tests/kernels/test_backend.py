"""The choice of backend, what loading one costs, and compiled loops where nothing can be written."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from workbench.kernels import backend as backends
from workbench.kernels import sparse_decode

ROOT = Path(__file__).resolve().parents[2]


def test_device_and_dtype_choose():
    assert backends.chosen("encode", torch.zeros(1)) == "cpu"
    assert backends.chosen("encode", torch.zeros(1, dtype=torch.float64)) == "reference"
    assert backends.chosen("encode", torch.zeros(1, dtype=torch.bfloat16)) == "reference"
    assert backends.chosen("encode", torch.zeros(1, device="meta")) == "reference"


def test_a_backend_can_be_forced_in_every_thread(monkeypatch):
    seen = []
    with backends.using("reference"):
        thread = threading.Thread(target=lambda: seen.append(backends.chosen("encode", torch.zeros(1))))
        thread.start()
        thread.join()
        with backends.using("cpu"):
            seen.append(backends.chosen("encode", torch.zeros(1)))
    monkeypatch.setenv(backends.VARIABLE, "reference")
    seen.append(backends.backend("sparse_decode", torch.zeros(1)).__name__)
    assert seen == ["reference", "cpu", "workbench.kernels.sparse_decode.reference"]


def test_an_unknown_backend_is_refused(monkeypatch):
    with (
        pytest.raises(ValueError, match="backend 'gpu' is not one of triton, cpu, reference"),
        backends.using("gpu"),
    ):
        pass
    monkeypatch.setenv(backends.VARIABLE, "fast")
    with pytest.raises(ValueError, match="backend 'fast' is not one of"):
        backends.chosen("encode", torch.zeros(1))


def test_reference_and_cpu_agree():
    given = torch.randint(30, (9, 2)), torch.randn(9, 2), torch.randn(30, 5)
    ours = sparse_decode(*given)
    with backends.using("reference"):
        assert torch.allclose(ours, sparse_decode(*given), atol=1e-6)


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_kernels_loads_neither_numba_nor_triton():
    code = "import sys, workbench.kernels; print({'numba', 'triton'} & set(sys.modules))"
    assert run_python(code) == "set()"


def test_loops_compile_where_no_cache_can_be_written():
    code = """
import numba.core.caching as caching
for locator in caching.CacheImpl._locator_classes:
    locator.from_function = classmethod(lambda cls, function, path: None)
import torch
from workbench.kernels import latent_total
print(latent_total(torch.tensor([[1, 0, 1]]), torch.tensor([[2.0, 3.0, 4.0]]), 3).tolist())
"""
    assert run_python(code) == "[3.0, 6.0, 0.0]"
