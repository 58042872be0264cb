"""Public gather of a per-latent parameter, with a deterministic backward on the batch's latent-major order."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.kernels.latent_sum.op import latent_total
from workbench.kernels.rows import gather


class _GatherLatents(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.d_sae = len(parameter)
        return gather(parameter, indices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        return latent_total(indices, grad, ctx.d_sae), None


def gather_latents(
    parameter: Float[Tensor, " d_sae"], indices: Int64[Tensor, "row width"]
) -> Float[Tensor, "row width"]:
    """parameter[indices]: each entry's copy of its latent's parameter (a threshold, a gain, a bias).

    Backward is `latent_total`: per latent the sum of its entries' gradients, bit-reproducible on a CPU.
    Padding is index 0, so give padded entries no gradient: multiply by the values or mask with values != 0.

    Status: exact; differentiable once.
    """
    return _GatherLatents.apply(parameter, indices)
