"""Public sparse decode with its sparse backward; the backend follows the device."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.kernels.backend import backend
from workbench.kernels.latent_sum.op import latent_sum
from workbench.kernels.rows import where_nonzero


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indices: Tensor, values: Tensor, W_dec: Tensor) -> Tensor:
        ctx.save_for_backward(indices, values, W_dec)
        return backend("sparse_decode", values).sparse_decode(indices, values, W_dec)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        indices, values, W_dec = ctx.saved_tensors
        grad, module = grad.contiguous(), backend("sparse_decode", grad)
        _, values_wanted, decoder_wanted = ctx.needs_input_grad
        if values_wanted and decoder_wanted:
            return None, *module.gradients(indices, values, grad, W_dec)
        if values_wanted:
            return None, where_nonzero(module.value_gradients(indices, grad, W_dec), values), None
        return None, None, latent_sum(indices, values, grad, len(W_dec)) if decoder_wanted else None


def sparse_decode(
    indices: Int64[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    W_dec: Float[Tensor, "d_sae d_out"],
) -> Float[Tensor, "row d_out"]:
    """Z @ W_dec for sparse latents Z: out[r] = sum over s of values[r, s] * W_dec[indices[r, s]].

    Value and both gradients equal the dense expression (tests/kernels/sparse_decode, against float64).
    Differentiable once, in `values` and `W_dec`.

    Args:
        indices: Latents of each row; one may appear twice, its values then add.
        values: Their values; a value of 0 contributes nothing and gets no gradient.
        W_dec: Decoder, one row per latent.

    Raises:
        ValueError: an index is not a latent (checked on a CPU).

    Status: exact; bit-reproducible on a CPU.
    """
    return _SparseDecode.apply(indices.contiguous(), values.contiguous(), W_dec.contiguous())
