"""Public decode-and-loss: reconstructions and squared errors in one pass, both decoder gradients in another.

With e_p the error of prefix p and G_p the gradient of its loss, d loss / d reconstruction is 2 G_p e_p. A
latent takes part in every prefix that holds it, so the gradient of its contribution is the sum of those
from its own group on: sums from the last prefix backward, computed once per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.kernels.backend import backend
from workbench.kernels.rows import add_scaled, column_sum


class _DecodeLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        indices: Tensor,
        values: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        target: Tensor,
        prefixes: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        module = backend("decode_loss", values)
        losses, x_hat, errors = module.decode_loss(indices, values, W_dec, b_dec, target, prefixes)
        ctx.save_for_backward(indices, values, W_dec, errors)
        ctx.prefixes = prefixes
        ctx.mark_non_differentiable(x_hat)
        ctx.set_materialize_grads(False)
        return losses, x_hat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        indices, values, W_dec, errors = ctx.saved_tensors
        upstream = torch.empty_like(errors)
        for q in reversed(range(len(errors))):
            behind = None if q + 1 == len(errors) else upstream[q + 1]
            add_scaled(errors[q], 2 * grad[q], behind, upstream[q])
        for_values = for_decoder = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            module = backend("decode_loss", values)
            for_values, for_decoder = module.gradients(indices, values, upstream, W_dec, ctx.prefixes)
        for_bias = column_sum(upstream[0]) if ctx.needs_input_grad[3] else None
        return None, for_values, for_decoder, for_bias, None, None


def decode_loss(
    indices: Int64[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    W_dec: Float[Tensor, "d_sae d_out"],
    b_dec: Float[Tensor, " d_out"],
    target: Float[Tensor, "row d_out"],
    *,
    prefixes: Sequence[int] | None = None,
) -> tuple[Float[Tensor, " prefix"], Float[Tensor, "row d_out"]]:
    """Summed squared error of the reconstruction Z @ W_dec + b_dec, for each prefix of the latents.

    losses[p] = sum over rows and columns of (decode of the latents < prefixes[p] + b_dec - target)^2.
    Losses and the three gradients equal the dense expression (tests/kernels/decode_loss, against float64).
    Differentiable once through `losses`, in `values`, `W_dec` and `b_dec`.

    Args:
        indices: Latents of each row.
        values: Their values; a value of 0 contributes nothing and gets no gradient.
        W_dec: Decoder, one row per latent.
        b_dec: Added to every reconstruction.
        target: What is reconstructed; gets no gradient.
        prefixes: Ascending numbers of latents, the last d_sae (Matryoshka); by default d_sae alone.

    Returns:
        The losses, and the reconstruction by all latents, which is not differentiable.

    Raises:
        ValueError: prefixes are not ascending or do not end with d_sae; an index is not a latent (on a CPU).

    Status: exact; bit-reproducible on a CPU. Source for prefixes: Bussmann et al. 2025, arXiv:2503.17547.
    """
    edges = tuple(prefixes) if prefixes is not None else (len(W_dec),)
    if not edges or list(edges) != sorted(set(edges)) or edges[0] < 1 or edges[-1] != len(W_dec):
        raise ValueError(f"prefixes {list(edges)} are not ascending from at least 1 to d_sae {len(W_dec)}")
    given = (t.contiguous() for t in (indices, values, W_dec, b_dec, target.detach()))
    return _DecodeLoss.apply(*given, edges)
