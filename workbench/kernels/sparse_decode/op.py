"""Public sparse decode with its sparse backward; the backend follows the device."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.kernels.latent_sum.op import latent_sum
from workbench.kernels.sparse_decode import cpu, reference


def backend(tensor: Tensor) -> ModuleType:
    """The implementation for a tensor's device; devices without their own use the definition."""
    return cpu if tensor.device.type == "cpu" else reference


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indices: Tensor, values: Tensor, W_dec: Tensor) -> Tensor:
        ctx.save_for_backward(indices, values, W_dec)
        return backend(values).sparse_decode(indices, values, W_dec)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        indices, values, W_dec = ctx.saved_tensors
        grad = grad.contiguous()
        for_values = backend(grad).value_gradients(indices, grad, W_dec) if ctx.needs_input_grad[1] else None
        for_decoder = latent_sum(indices, values, grad, W_dec.shape[0]) if ctx.needs_input_grad[2] else None
        return None, for_values, for_decoder


def sparse_decode(
    indices: Int64[Tensor, "row k"], values: Float[Tensor, "row k"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row d_out"]:
    """Z @ W_dec for sparse latents Z: out[r] = sum over s of values[r, s] * W_dec[indices[r, s]].

    Value and both gradients equal the dense expression (tests/kernels/test_sparse_decode.py, against
    float64). Differentiable once, in `values` and `W_dec`.

    Args:
        indices: Latents of each row; one may appear twice, its values then add.
        values: Their values.
        W_dec: Decoder, one row per latent.

    Status: exact; bit-reproducible on a CPU.
    """
    return _SparseDecode.apply(indices.contiguous(), values.contiguous(), W_dec.contiguous())
