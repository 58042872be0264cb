"""Definition of the latent sum: scatter every weighted row to its latent and add."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def latent_sum(
    indices: Int[Tensor, "row k"], values: Float[Tensor, "row k"], rows: Float[Tensor, "row d"], d_sae: int
) -> Float[Tensor, "d_sae d"]:
    """out[j] = sum over (r, s) with indices[r, s] = j of values[r, s] * rows[r].

    Status: exact; on CUDA the order of the additions, and with it the last bit, is not fixed.
    """
    weighted = (values.unsqueeze(-1) * rows.unsqueeze(1)).flatten(0, 1)
    return rows.new_zeros(d_sae, rows.shape[1]).index_add(0, indices.flatten().long(), weighted)
