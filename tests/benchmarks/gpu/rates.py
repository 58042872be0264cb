"""What a card can do, measured: rate of a bfloat16 product and of a copy; and a clock for both kinds of device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Size:
    """A dictionary and a batch.

    Attributes:
        d: Width of a row.
        d_sae: Latents.
        k: Latents per row.
        batch: Rows of a step.
    """

    d: int
    d_sae: int
    k: int
    batch: int

    @property
    def n_weights(self) -> int:
        """Weights of encoder and decoder."""
        return 2 * self.d * self.d_sae

    def __str__(self) -> str:
        return f"d {self.d:,}, d_sae {self.d_sae:,}, k {self.k}, batch {self.batch:,}"


@dataclass(frozen=True)
class Rates:
    """Measured rates.

    Attributes:
        product_flops: Floating-point operations per second of a bfloat16 product of the encoder's shape.
        copy_bytes: Bytes per second, read and written, of a large copy.
    """

    product_flops: float
    copy_bytes: float

    def ms(self, *, flops: float = 0.0, n_bytes: float = 0.0) -> float:
        """Least time of so much arithmetic and, one after the other, so much traffic."""
        return 1e3 * (flops / self.product_flops + n_bytes / self.copy_bytes)


def time_ms(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median milliseconds of a call after two that are not counted."""
    for _ in range(2):
        function()
    return median(_once_cuda(function) if device.type == "cuda" else _once(function) for _ in range(repeats))


def _once(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _once_cuda(function: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def measured(size: Size, device: torch.device, repeats: int) -> Rates:
    """The rates of this device: the product at the encoder's shape, the copy of the encoder."""
    x = torch.randn(size.batch, size.d, device=device, dtype=torch.bfloat16)
    W = torch.randn(size.d_sae, size.d, device=device, dtype=torch.bfloat16)
    out = torch.empty(size.batch, size.d_sae, device=device, dtype=torch.bfloat16)
    product = time_ms(lambda: torch.mm(x, W.T, out=out), device, repeats)
    source = torch.zeros(size.d_sae, size.d, device=device)
    copied = torch.empty_like(source)
    copy = time_ms(lambda: copied.copy_(source), device, repeats)
    flops = 2.0 * size.batch * size.d * size.d_sae
    return Rates(1e3 * flops / product, 1e3 * 2 * source.numel() * 4 / copy)
