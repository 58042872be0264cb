"""Sparse decode on a CPU: k of d_sae decoder rows are added per token, zero values skipped.

The backward goes through the latent-major order: the decoder row stays in the nearest cache while the rows of
the gradient pass by, and each gives its share of the decoder's gradient and the gradient of its value.
Dense codes are multiplied as matrices instead (`kernels/dense.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels import dense
from workbench.kernels.compiled import array
from workbench.kernels.latent_sum.cpu import parts
from workbench.kernels.latent_sum.order import check_indices, latent_major
from workbench.kernels.sparse_decode import loops
from workbench.kernels.threads import ranges, run

ROWS_A_PART = 128


def sparse_decode(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row d_out"]:
    """As `reference.sparse_decode`; bit-reproducible. Status: exact."""
    check_indices(indices, len(W_dec))
    if dense.is_dense(values, len(W_dec), dense.DECODE_FRAC):
        return dense.decode(indices, values, W_dec)
    out = W_dec.new_empty(len(indices), W_dec.shape[1])
    given = (array(indices), array(values), array(W_dec), out.numpy())
    run(loops.decode, [(*given, *part) for part in ranges(len(indices), ROWS_A_PART)])
    return out


def value_gradients(
    indices: Int[Tensor, "row width"], grad: Float[Tensor, "row d_out"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row width"]:
    """As `reference.value_gradients`; bit-reproducible. Status: exact."""
    check_indices(indices, len(W_dec))
    if indices.shape[1] > dense.GRADIENT_FRAC * len(W_dec):
        return dense.value_gradients(indices, grad, W_dec)
    out = grad.new_empty(indices.shape)
    given = (array(indices), array(grad), array(W_dec), out.numpy())
    run(loops.value_gradients, [(*given, *part) for part in ranges(len(indices), ROWS_A_PART)])
    return out


def gradients(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    grad: Float[Tensor, "row d_out"],
    W_dec: Float[Tensor, "d_sae d_out"],
) -> tuple[Float[Tensor, "row width"], Float[Tensor, "d_sae d_out"]]:
    """As `reference.gradients`; bit-reproducible. Status: exact."""
    return prefix_gradients(indices, values, grad[None], W_dec, (len(W_dec),))


def prefix_gradients(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    upstream: Float[Tensor, "prefix row d_out"],
    W_dec: Float[Tensor, "d_sae d_out"],
    prefixes: Sequence[int],
) -> tuple[Float[Tensor, "row width"], Float[Tensor, "d_sae d_out"]]:
    """As `decode_loss.reference.gradients`; bit-reproducible. Status: exact."""
    if len(prefixes) == 1 and dense.is_dense(values, len(W_dec), dense.GRADIENT_FRAC):
        for_values = dense.value_gradients(indices, upstream[0], W_dec).where(values != 0, 0)
        return for_values, dense.latent_sum(indices, values, upstream[0], len(W_dec))
    order = latent_major(indices, len(W_dec))
    for_values, for_decoder = values.new_empty(indices.shape), W_dec.new_empty(W_dec.shape)
    given = (
        array(order.offsets),
        array(order.members),
        max(1, order.width),
        np.array(prefixes, dtype=np.int64),
    )
    given = (*given, array(values).reshape(-1), array(upstream), array(W_dec))
    given = (*given, for_values.view(-1).numpy(), for_decoder.numpy())
    run(loops.gradients, [(*given, *part) for part in parts(order)])
    return for_values, for_decoder
