"""The Adam step on a GPU: a block of rows stays in registers for projection, update and renormalisation.

Rows wider than a block cannot be: with unit rows a block is as wide as a row. Where rows need not be unit,
the parameter is cut into pieces of 1,024 entries, whatever its shape.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from workbench.kernels.adam.equation import AdamStep
from workbench.kernels.adam.reference import gradient_norm
from workbench.kernels.triton_support import launch, next_power_of_2

__all__ = ["adam_step", "gradient_norm"]

PIECE = 1024
BLOCK = 4096


def adam_step(
    parameter: Float[Tensor, "row d"],
    grad: Float[Tensor, "row d"],
    exp_avg: Float[Tensor, "row d"],
    exp_avg_sq: Float[Tensor, "row d"],
    at: AdamStep,
    *,
    scale: Float[Tensor, ""] | None,
    unit_rows: bool,
    master: Float[Tensor, "row d"] | None,
    rounding_key: int | None,
) -> None:
    """As `reference.adam_step`, for bfloat16 parameters with a master; bit-reproducible. Status: exact."""
    n = parameter.numel()
    d = parameter.shape[1] if unit_rows else min(n, PIECE)
    if n == 0:
        return
    width = next_power_of_2(d)
    rows = max(1, BLOCK // width)
    factor = torch.ones((), device=parameter.device) if scale is None else scale.float()
    tensors = (parameter, grad, exp_avg, exp_avg_sq, parameter if master is None else master, factor)
    numbers = (at.alpha, at.root, at.epsilon, at.betas[0], 1 - at.betas[0], at.betas[1], 1 - at.betas[1])
    launch(
        _step, (triton.cdiv(triton.cdiv(n, d), rows),), *tensors, n, d, *numbers, rounding_key or 0,
        UNIT=unit_rows, MASTER=master is not None, RANDOM=rounding_key is not None, ROWS=rows, WIDTH=width,
        num_warps=8,
    )  # fmt: skip


@triton.jit
@no_type_check
def _step(
    parameter, grad, exp_avg, exp_avg_sq, master, factor, n, d,
    alpha, root, epsilon, beta1, new1, beta2, new2, key,
    UNIT: tl.constexpr, MASTER: tl.constexpr, RANDOM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    place = row[:, None] * d + column[None, :]
    inside = (column[None, :] < d) & (place < n)
    if MASTER:
        w = tl.load(master + place, mask=inside, other=0.0)
    else:
        w = tl.load(parameter + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32) * tl.load(factor)
    if UNIT:
        square = tl.sum(w * w, 1)
        along = tl.where(square > 0, tl.sum(g * w, 1) / tl.where(square > 0, square, 1.0), 0.0)
        g = g - along[:, None] * w
    m = beta1 * tl.load(exp_avg + place, mask=inside, other=0.0) + new1 * g
    v = beta2 * tl.load(exp_avg_sq + place, mask=inside, other=0.0) + new2 * g * g
    tl.store(exp_avg + place, m, mask=inside)
    tl.store(exp_avg_sq + place, v, mask=inside)
    w = w - alpha * m / (root * tl.sqrt(v) + epsilon)
    if UNIT:
        w = tl.where(inside, w, 0.0)
        length = tl.sqrt(tl.sum(w * w, 1))
        w = w / tl.where(length > 0, length, 1.0)[:, None]
    if MASTER:
        tl.store(master + place, w, mask=inside)
    if RANDOM:
        w = _rounded(w, _mixed(_mixed(place & 0xFFFFFFFF) + (place >> 32) + key & 0xFFFFFFFF) & 0xFFFF)
    elif MASTER:  # to the nearest, halves to the even one; Triton's interpreter would cut off
        w = _rounded(w, 0x7FFF + ((w.to(tl.int32, bitcast=True) >> 16) & 1))
    tl.store(parameter + place, w.to(parameter.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _rounded(w, up):
    """Float32 that bfloat16 holds exactly: w with `up` added below the bits that bfloat16 keeps, and cut off."""
    bits = w.to(tl.int32, bitcast=True)
    finite = (bits & 0x7F800000) != 0x7F800000
    return tl.where(finite, ((bits + up.to(tl.int32)) & -0x10000).to(tl.float32, bitcast=True), w)


@triton.jit
@no_type_check
def _mixed(x):
    """As `reference._mixed`, on int64 that hold 32 bits."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)
