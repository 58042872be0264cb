"""Public encode-and-select, four rules with one sparse backward.

Only the selected entries carry a gradient, so with the latent-major order of the selected indices the
encoder's gradient is a `latent_sum`, the bias gradient a `latent_total`, and the gradient of the pre-bias
one matrix-vector product with it. The order is the one that the decoder's gradient has built already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.kernels.backend import backend
from workbench.kernels.latent_sum.op import latent_sum, latent_total
from workbench.kernels.rows import centre, relu, weighted_sum, where_nonzero

Code = tuple[Int64[Tensor, "row width"], Float[Tensor, "row width"]]
Selection = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_pre: Tensor, select: Selection
    ) -> tuple[Tensor, Tensor]:
        centred, rows = centre(x, b_pre), W_enc.T.contiguous()
        indices, values = select(centred, rows, b_enc.contiguous())
        ctx.save_for_backward(centred, rows, indices, values)
        ctx.mark_non_differentiable(indices)
        ctx.set_materialize_grads(False)
        return indices, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        centred, rows, indices, values = ctx.saved_tensors
        grad = where_nonzero(grad, values)
        for_x = for_weight = for_bias = for_pre = None
        if ctx.needs_input_grad[0]:
            for_x = backend("sparse_decode", grad).sparse_decode(indices, grad, rows)
        if ctx.needs_input_grad[1]:
            for_weight = latent_sum(indices, grad, centred, len(rows)).T
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            for_bias = latent_total(indices, grad, len(rows))
        if for_bias is not None and ctx.needs_input_grad[3]:
            for_pre = -weighted_sum(for_bias, rows)
        return for_x, for_weight, for_bias if ctx.needs_input_grad[2] else None, for_pre, None


def topk_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    k: int,
    among: Int64[Tensor, " candidate"] | None = None,
) -> Code:
    """The k largest latents of each row: top-k of a = (x - b_pre) @ W_enc + b_enc, then ReLU.

    Indices equal those of the definition with a in float32 dot products; values and all four gradients
    agree with it in float64 (tests/kernels/encode). Differentiable once. Fastest when `W_enc.T` is contiguous.

    Args:
        x: Rows to encode.
        W_enc: Encoder.
        b_enc: Encoder bias.
        b_pre: Subtracted from x first; for an autoencoder its decoder bias.
        k: Latents per row.
        among: Ascending latents to choose from; by default all. (AuxK chooses among the dead ones.)

    Returns:
        Indices and values (row, k) in descending order of a; of equal a the lower index wins. A selected
        negative a has the value 0 and passes no gradient.

    Raises:
        ValueError: k is not between 1 and the number of latents to choose from.

    Status: exact; bit-reproducible on a CPU.
    """
    n = W_enc.shape[1] if among is None else len(among)
    if not 1 <= k <= n:
        raise ValueError(f"k {k} is not between 1 and the {n} latents to choose from")

    def select(centred: Tensor, rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        if among is not None:
            rows, bias = rows[among], bias[among]
        indices, values = backend("encode", centred).select_topk(centred, rows, bias, k)
        return indices if among is None else among[indices], relu(values)

    return _Encode.apply(x, W_enc, b_enc, b_pre, select)


def batch_topk_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    k: float | int,
) -> Code:
    """The rows * k largest positive a = (x - b_pre) @ W_enc + b_enc of the whole batch.

    n_keep = round(rows * k), so k may be a fraction; fewer where fewer are positive. Equal a: the lower row
    wins, then the lower latent.

    Args:
        x: Rows to encode.
        W_enc: Encoder.
        b_enc: Encoder bias.
        b_pre: Subtracted from x first.
        k: Mean number of latents per row.

    Returns:
        Indices and values (row, width) in descending order within a row, padded with (0, 0.0) to the
        largest number of latents that a row kept (at least 1).

    Raises:
        ValueError: k is not between 0 (exclusive) and d_sae.

    Status: exact; bit-reproducible on a CPU. Source: Bussmann et al. 2024, arXiv:2412.06410.
    """
    if not 0 < k <= W_enc.shape[1]:
        raise ValueError(f"k {k} is not above 0 and at most the {W_enc.shape[1]} latents")
    n_keep = round(len(x) * k)
    return _Encode.apply(
        x,
        W_enc,
        b_enc,
        b_pre,
        lambda c, rows, bias: backend("encode", c).select_batch_topk(c, rows, bias, n_keep),
    )


def threshold_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    threshold: Float[Tensor, " d_sae"],
) -> Code:
    """All latents whose a = (x - b_pre) @ W_enc + b_enc is above their threshold, with a as value (no ReLU).

    With threshold 0 this is a ReLU encoder, with a learned one JumpReLU. The threshold gets no gradient here.

    Args:
        x: Rows to encode.
        W_enc: Encoder.
        b_enc: Encoder bias.
        b_pre: Subtracted from x first.
        threshold: Per latent.

    Returns:
        Indices and values (row, width) by ascending latent within a row, padded with (0, 0.0) to the
        largest number of latents that a row kept (at least 1).

    Status: exact; bit-reproducible on a CPU. Source: Rajamanoharan et al. 2024, arXiv:2407.14435.
    """
    fixed = threshold.detach().contiguous()
    return _Encode.apply(
        x, W_enc, b_enc, b_pre, lambda c, rows, bias: backend("encode", c).select_above(c, rows, bias, fixed)
    )


def group_max_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    k: int,
) -> Code:
    """The largest a = (x - b_pre) @ W_enc + b_enc of each of k groups of d_sae / k consecutive latents, then ReLU.

    Args:
        x: Rows to encode.
        W_enc: Encoder.
        b_enc: Encoder bias.
        b_pre: Subtracted from x first.
        k: Groups, so latents per row.

    Returns:
        Indices and values (row, k) in group order; of equal a the lower index wins.

    Raises:
        ValueError: k does not divide d_sae.

    Status: exact; bit-reproducible on a CPU.
    """
    d_sae = W_enc.shape[1]
    if k < 1 or d_sae % k:
        raise ValueError(f"k {k} does not divide the {d_sae} latents into groups of one size")

    def select(centred: Tensor, rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        indices, values = backend("encode", centred).select_group_max(centred, rows, bias, k)
        return indices, relu(values)

    return _Encode.apply(x, W_enc, b_enc, b_pre, select)
