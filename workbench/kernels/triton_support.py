"""What the Triton kernels share: sortable keys, a running selection, and the launch.

A selected entry travels as one int64 key. The upper half holds the float32 value's bits in an order that
integers keep, the lower half the latent counted down from 2**32 - 1. Keys therefore have no ties: of two equal
values the lower latent has the larger key, and however keys were collected, sorting them gives one result. No
latent has the key `LOWEST`, which stands for "nothing here".

In Triton's interpreter (environment variable TRITON_INTERPRET=1) the kernels run on CPU tensors. It has no
bfloat16 product, so operands are widened first there; the products are exact in float32 either way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

LOWEST = tl.constexpr(-(2**63))
INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))
_LATENTS = 2**32 - 1


@triton.jit
@no_type_check
def pack(values, latents):
    """Keys of float32 values and their latents; the two zeros are one value."""
    bits = tl.where(values == 0.0, 0.0, values).to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0xFFFFFFFF - latents.to(tl.int64))


@triton.jit
@no_type_check
def key_latents(keys):
    """Latents of keys, as int64."""
    return 0xFFFFFFFF - (keys & 0xFFFFFFFF)


@triton.jit
@no_type_check
def key_values(keys):
    """Float32 values of keys; of `LOWEST` a NaN, which no comparison finds larger or smaller."""
    ordered = (keys >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def keep_best(best, keys, K: tl.constexpr):
    """The K largest keys per row of `best` (row, K), descending, and `keys` (row, more than K or K)."""
    if tl.max(tl.max((keys > tl.min(best, 1)[:, None]).to(tl.int32), 1), 0) > 0:
        newest = tl.topk(keys, K)
        best = tl.sort(tl.maximum(best, tl.flip(newest, 1)), descending=True)
    return best


def packed(values: Tensor, latents: Tensor) -> Tensor:
    """`pack` in torch."""
    bits = torch.where(values == 0, 0.0, values.float()).contiguous().view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (_LATENTS - latents)


def unpacked(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (int64) and float32 values of keys."""
    ordered = (keys >> 32).int()
    values = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return _LATENTS - (keys & _LATENTS), values


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n and at least 1."""
    return 1 << max(n - 1, 0).bit_length()


@lru_cache(maxsize=64)
def constant(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """These numbers on the device (Int64); copied there once, because a copy waits for the device."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=torch.int64, device=device)


def launch(kernel: Any, grid: tuple[int, ...], first: Tensor, *arguments: Any, **options: Any) -> None:
    """Start a kernel on the device of its first argument; nothing where the grid is empty.

    Multiplications and additions may be fused, whatever Triton's default is: bounds and tests allow for it.
    """
    if 0 in grid:
        return
    options["enable_fp_fusion"] = True
    if first.device.type == "cpu":
        kernel[grid](first, *arguments, **options)
        return
    with torch.cuda.device(first.device):
        kernel[grid](first, *arguments, **options)
