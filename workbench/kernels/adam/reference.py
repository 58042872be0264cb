"""Definition of the Adam step in plain torch, and of the stochastic rounding to bfloat16.

All tensors come in as rows (row, d); every backend takes the same arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels.adam.equation import AdamStep

_MASK = 2**32 - 1


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
    """Update parameter, moments and master in place; see `op.adam_step`. Status: exact."""
    w = (parameter if master is None else master).to(exp_avg.dtype)
    g = grad.to(w.dtype) if scale is None else grad.to(w.dtype) * scale.to(w.dtype)
    if unit_rows:
        square = (w * w).sum(1, keepdim=True)
        g = g - w * torch.where(square > 0, (g * w).sum(1, keepdim=True) / square, 0)
    beta1, beta2 = at.betas
    exp_avg.mul_(beta1).add_(g, alpha=1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    w = w - at.alpha * exp_avg / (at.root * exp_avg_sq.sqrt() + at.epsilon)
    if unit_rows:
        length = w.norm(dim=1, keepdim=True)
        w = torch.where(length > 0, w / length, w)
    if master is not None:
        master.copy_(w)
    store(w, parameter, rounding_key)


def store(w: Float[Tensor, "row d"], parameter: Float[Tensor, "row d"], rounding_key: int | None) -> None:
    """Write w into the parameter: rounded to the nearest, or stochastically where there is a key."""
    if rounding_key is None:
        parameter.copy_(w)
        return
    bits = w.float().contiguous().view(torch.int32)
    up = random_bits(w.numel(), rounding_key, w.device).view(w.shape) & 0xFFFF
    rounded = ((bits + up.int()) & -0x10000).view(torch.float32)
    parameter.copy_(torch.where(w.isfinite(), rounded, w.float()))


def random_bits(n: int, key: int, device: torch.device) -> Int[Tensor, " n"]:
    """32 random bits of each of the counters 0 .. n - 1 under a key, as int64. Status: exact."""
    counter = torch.arange(n, device=device)
    return _mixed((_mixed(counter & _MASK) + (counter >> 32) + key) & _MASK)


def _mixed(x: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """A bijection of 32-bit integers that mixes all bits (two multiply-xorshift rounds)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def gradient_norm(gradients: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, ""]:
    """Length of all gradients as one vector, on their device. Status: exact."""
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)
    parts = [torch.linalg.vector_norm(grad, dtype=dtype) for grad in gradients]
    return torch.linalg.vector_norm(torch.stack(parts))
