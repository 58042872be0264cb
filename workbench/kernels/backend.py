"""Which implementation of a kernel runs: the one choice that every operation shares.

    triton      float32, bfloat16 and float16 on a CUDA device, where Triton can be imported
    cpu         float32 on a CPU: compiled loops
    reference   everything else: the definition in plain torch, any device, any float dtype

A backend is imported when it is first used, so neither Numba nor Triton is loaded by `import workbench`.
`using("reference")` or the environment variable WORKBENCH_KERNELS forces one: tests run the Triton kernels
on CPU tensors in the interpreter that way. A forced backend holds in every thread, because autograd may run
a backward in a thread of its own.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

NAMES = ("triton", "cpu", "reference")
VARIABLE = "WORKBENCH_KERNELS"
_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_forced: list[str] = []


def backend(operation: str, tensor: Tensor) -> ModuleType:
    """The module `workbench.kernels.<operation>.<backend>` for a tensor's device and dtype.

    Raises:
        ValueError: WORKBENCH_KERNELS names no backend.
    """
    return _module(operation, chosen(operation, tensor))


def chosen(operation: str, tensor: Tensor) -> str:
    """Name of the backend that `backend` returns."""
    forced = _forced[-1] if _forced else os.environ.get(VARIABLE)
    if forced:
        return _known(forced)
    if tensor.device.type == "cuda" and tensor.dtype in _TRITON_DTYPES and _has_triton(operation):
        return "triton"
    return "cpu" if tensor.device.type == "cpu" and tensor.dtype == torch.float32 else "reference"


@contextmanager
def using(name: str) -> Iterator[None]:
    """Within the block every operation takes this backend, in every thread.

    Raises:
        ValueError: no backend has that name.
    """
    _forced.append(_known(name))
    try:
        yield
    finally:
        _forced.pop()


def _known(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"backend {name!r} is not one of {', '.join(NAMES)}: choose one of them")
    return name


@cache
def _module(operation: str, name: str) -> ModuleType:
    return importlib.import_module(f"workbench.kernels.{operation}.{name}")


@cache
def _has_triton(operation: str) -> bool:
    return bool(find_spec("triton") and find_spec(f"workbench.kernels.{operation}.triton"))
