"""Definitions of the sums over the rows of a latent: scatter every entry to its latent and add."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def latent_sum(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    rows: Float[Tensor, "row d"],
    d_sae: int,
) -> Float[Tensor, "d_sae d"]:
    """out[j] = sum over (r, s) with indices[r, s] = j of values[r, s] * rows[r].

    Status: exact; on CUDA the order of the additions, and with it the last bit, is not fixed.
    """
    weighted = (values.unsqueeze(-1) * rows.unsqueeze(1)).flatten(0, 1)
    return rows.new_zeros(d_sae, rows.shape[1]).index_add(0, indices.flatten().long(), weighted)


def latent_total(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Float[Tensor, " d_sae"]:
    """out[j] = sum over (r, s) with indices[r, s] = j of values[r, s]. Status: exact."""
    return values.new_zeros(d_sae).index_add(0, indices.flatten().long(), values.flatten())


def latent_counts(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Int[Tensor, " d_sae"]:
    """out[j] = number of (r, s) with indices[r, s] = j and values[r, s] > 0. Status: exact."""
    return indices.new_zeros(d_sae).index_add(0, indices.flatten(), (values > 0).flatten().to(indices.dtype))
