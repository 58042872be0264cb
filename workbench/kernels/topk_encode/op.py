"""Public encode-and-select with its sparse backward.

Only the selected entries carry a gradient, so each weight gradient is a `latent_sum`, and the gradient of
the pre-bias is one matrix-vector product with the summed latent gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.kernels.latent_sum.op import latent_sum
from workbench.kernels.sparse_decode.op import backend as bag_backend
from workbench.kernels.topk_encode import cpu


class _TopKEncode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_pre: Tensor, k: int, among: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        centred, rows = x - b_pre, W_enc.T.contiguous()
        if among is None:
            indices, values = cpu.topk_linear(centred, rows, b_enc, k)
        else:
            order, values = cpu.topk_linear(centred, rows[among], b_enc[among], k)
            indices = among[order]
        values = values.relu()
        ctx.save_for_backward(centred, rows, indices, values)
        ctx.mark_non_differentiable(indices)
        ctx.set_materialize_grads(False)
        return indices, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, rows, indices, values = ctx.saved_tensors
        grad = grad * (values > 0)
        for_bias = grad.new_zeros(len(rows)).index_add_(0, indices.flatten(), grad.flatten())
        for_x = bag_backend(grad).sparse_decode(indices, grad, rows) if ctx.needs_input_grad[0] else None
        for_weight = latent_sum(indices, grad, centred, len(rows)).T if ctx.needs_input_grad[1] else None
        for_pre = -(for_bias @ rows) if ctx.needs_input_grad[3] else None
        return for_x, for_weight, for_bias, for_pre, None, None


def topk_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    k: int,
    among: Int64[Tensor, " candidate"] | None = None,
) -> tuple[Int64[Tensor, "row k"], Float[Tensor, "row k"]]:
    """The k largest latents of each row: top-k of (x - b_pre) @ W_enc + b_enc, then ReLU.

    Indices equal those of the definition exactly; values and all four gradients agree with it in float64
    (tests/kernels/test_topk_encode.py). Differentiable once. Fastest when `W_enc.T` is contiguous.

    Args:
        x: Rows to encode.
        W_enc: Encoder.
        b_enc: Encoder bias.
        b_pre: Subtracted from x first; for an autoencoder its decoder bias.
        k: Latents per row.
        among: Ascending latents to choose from; by default all. (AuxK chooses among the dead ones.)

    Returns:
        Indices and values in descending order of the pre-activation; of equal pre-activations the lower
        index wins. A selected negative pre-activation has the value 0 and passes no gradient.

    Raises:
        ValueError: k is not between 1 and the number of latents to choose from.

    Status: exact; bit-reproducible on a CPU.
    """
    n = W_enc.shape[1] if among is None else len(among)
    if not 1 <= k <= n:
        raise ValueError(f"k {k} is not between 1 and the {n} latents to choose from")
    return _TopKEncode.apply(x, W_enc, b_enc, b_pre, k, among)
