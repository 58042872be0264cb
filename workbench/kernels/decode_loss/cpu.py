"""Decode and loss on a CPU: one pass over the rows; the gradients are those of the sparse decode, per prefix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels import dense
from workbench.kernels.compiled import array
from workbench.kernels.decode_loss import loops
from workbench.kernels.latent_sum.order import check_indices
from workbench.kernels.sparse_decode.cpu import ROWS_A_PART
from workbench.kernels.sparse_decode.cpu import prefix_gradients as gradients
from workbench.kernels.threads import ranges, run

__all__ = ["decode_loss", "gradients"]


def decode_loss(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    W_dec: Float[Tensor, "d_sae d_out"],
    b_dec: Float[Tensor, " d_out"],
    target: Float[Tensor, "row d_out"],
    prefixes: Sequence[int],
) -> tuple[Float[Tensor, " prefix"], Float[Tensor, "row d_out"], Float[Tensor, "prefix row d_out"]]:
    """As `reference.decode_loss`; rows are summed in float64; bit-reproducible. Status: exact."""
    check_indices(indices, len(W_dec))
    if len(prefixes) == 1 and dense.is_dense(values, len(W_dec), dense.DECODE_FRAC):
        x_hat = dense.decode(indices, values, W_dec).add_(b_dec)
        errors = (x_hat - target)[None]
        return errors.square().sum(2).sum(1, dtype=torch.float64).to(target.dtype), x_hat, errors
    x_hat, errors = target.new_empty(target.shape), target.new_empty(len(prefixes), *target.shape)
    squares = errors.new_empty(errors.shape[:2])
    given = (array(indices), array(values), array(W_dec), array(b_dec), array(target))
    given = (*given, np.array(prefixes, dtype=np.int64), x_hat.numpy(), errors.numpy(), squares.numpy())
    run(loops.decode_loss, [(*given, *part) for part in ranges(len(target), ROWS_A_PART)])
    return squares.sum(1, dtype=torch.float64).to(target.dtype), x_hat, errors
