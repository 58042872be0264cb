"""Steps with a gradient: value and firing of a latent at a threshold, smoothed over a window for the backward.

    z = a * 1[a > theta]     dz/da = 1[a > theta]     dz/dtheta = -(theta / eps) K((a - theta) / eps)
    H = 1[a > theta]         dH/da = 0                dH/dtheta = -(1 / eps) K((a - theta) / eps)
    K(u) = 1[|u| < 1/2]

With `reaches_pre` what theta gets is also taken from a (minus it is added to the gradient of a): the smoothed step
is a function of a - theta alone. Entries of exactly 0 are padding and pass nothing.

Status: biased estimates by design; the kernel gradient of theta is the derivative of the expected loss smoothed over
the window (tests: within 2% of its finite difference).
Reference: Rajamanoharan et al. 2024, arXiv:2407.14435.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BELOW = -1e-30  # value of an entry inside the window and below its threshold: gets a gradient, adds nothing


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, eps: float, reaches_pre: bool) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.eps, ctx.reaches_pre = eps, reaches_pre
        return torch.where(pre > theta, pre, BELOW).masked_fill(pre == 0, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        pre, theta = ctx.saved_tensors
        through = grad * theta * kernel(pre, theta, ctx.eps)
        direct = grad * (pre > theta) * (pre != 0)
        return direct + through if ctx.reaches_pre else direct, -through, None, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, eps: float, reaches_pre: bool) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.eps, ctx.reaches_pre = eps, reaches_pre
        return ((pre > theta) & (pre != 0)).to(pre)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        pre, theta = ctx.saved_tensors
        through = grad * kernel(pre, theta, ctx.eps)
        return through if ctx.reaches_pre else None, -through, None, None


def kernel(
    pre: Float[Tensor, "row width"], theta: Float[Tensor, "row width"], eps: float
) -> Float[Tensor, "row width"]:
    """K((pre - theta) / eps) / eps; 0 in padding."""
    inside = ((pre - theta).abs() < eps / 2) & (pre != 0)
    return inside.to(pre) / eps


def jump(
    pre: Float[Tensor, "row width"],
    theta: Float[Tensor, "row width"],
    eps: float,
    *,
    reaches_pre: bool = False,
) -> Float[Tensor, "row width"]:
    """pre where it is above theta, else BELOW; 0 in padding.

    Args:
        pre: Pre-activations of the entries.
        theta: Threshold of each entry's latent.
        eps: Width of the window.
        reaches_pre: Whether the window's gradient reaches pre too.
    """
    return _Jump.apply(pre, theta, eps, reaches_pre)


def step(
    pre: Float[Tensor, "row width"],
    theta: Float[Tensor, "row width"],
    eps: float,
    *,
    reaches_pre: bool = False,
) -> Float[Tensor, "row width"]:
    """1 where pre is above theta, else 0; arguments as of `jump`."""
    return _Step.apply(pre, theta, eps, reaches_pre)
