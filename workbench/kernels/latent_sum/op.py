"""Public sums over the rows of a latent, all on one latent-major order per batch.

They are themselves the backward of the other operations, so they have no backward of their own. The order
belongs to the `indices` tensor object: pass the same object to every operation of a step and it is built once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from workbench.kernels.backend import backend
from workbench.kernels.latent_sum.order import LatentMajor, latent_major

__all__ = ["LatentMajor", "latent_counts", "latent_major", "latent_sum", "latent_total"]


@torch.no_grad()
def latent_sum(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    rows: Float[Tensor, "row d"],
    d_sae: int,
) -> Float[Tensor, "d_sae d"]:
    """Z^T rows for sparse latents Z: per latent the sum of the rows that it fired on, weighted by its value.

    out[j] = sum over (r, s) with indices[r, s] = j of values[r, s] * rows[r]
    (tests/kernels/latent_sum, against float64).

    Args:
        indices: Latents of each row, in 0 .. d_sae - 1.
        values: Their values; a zero contributes nothing.
        rows: What is summed: the batch for encoder gradients, the output gradient for decoder gradients.
        d_sae: Number of latents, so of output rows.

    Raises:
        ValueError: an index is not a latent (checked on a CPU).

    Status: exact; bit-reproducible.
    """
    return backend("latent_sum", rows).latent_sum(indices, values, rows, d_sae)


@torch.no_grad()
def latent_total(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Float[Tensor, " d_sae"]:
    """Sum of a latent's values over the batch: the gradient of a per-latent bias.

    out[j] = sum over (r, s) with indices[r, s] = j of values[r, s].

    Raises:
        ValueError: an index is not a latent (checked on a CPU).

    Status: exact; bit-reproducible.
    """
    return backend("latent_sum", values).latent_total(indices, values, d_sae)


@torch.no_grad()
def latent_counts(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Int64[Tensor, " d_sae"]:
    """Number of positive values of each latent in the batch: how often it fired.

    Raises:
        ValueError: an index is not a latent (checked on a CPU).

    Status: exact.
    """
    return backend("latent_sum", values).latent_counts(indices, values, d_sae)
