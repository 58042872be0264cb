"""The Triton kernels on whatever there is: a CUDA device, or the interpreter on CPU tensors.

The interpreter must be chosen before Triton is imported. `tests/conftest.py` does that for every process
before it collects a test; here it is checked, because Triton compiled for a device that is missing fails oddly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from tests.kernels.triton.interpreter import quicken
from workbench.kernels.backend import using

HAS_CUDA = torch.cuda.is_available()
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
if not HAS_CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")
if find_spec("triton") is None:  # a platform without Triton takes the other backends
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def triton_backend() -> Iterator[None]:
    """Every operation takes its Triton kernels."""
    if not HAS_CUDA:
        import triton

        assert triton.knobs.runtime.interpret, "triton was imported before TRITON_INTERPRET=1 was set"
        quicken()
    with using("triton"):
        yield


@pytest.fixture
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cuda" if HAS_CUDA else "cpu")


@pytest.fixture
def normal(device: torch.device) -> Callable[..., Tensor]:
    """Random normal tensors, made on the CPU so that they are the same on every device."""
    return lambda *shape: torch.randn(*shape).to(device)


@pytest.fixture
def latents(device: torch.device) -> Callable[..., Tensor]:
    """Random latents (row, width); at least as many as there are columns means no latent twice in a row."""

    def make(n_rows: int, width: int, d_sae: int) -> Tensor:
        if d_sae < width:
            return torch.randint(d_sae, (n_rows, width)).to(device)
        rows = [torch.randperm(d_sae)[:width] for _ in range(n_rows)]
        return (torch.stack(rows) if rows else torch.empty(0, width, dtype=torch.int64)).to(device)

    return make
