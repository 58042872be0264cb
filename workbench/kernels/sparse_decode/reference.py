"""Definition of the sparse decode: write the latents into a dense matrix and multiply."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def sparse_decode(
    indices: Int[Tensor, "row k"], values: Float[Tensor, "row k"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row d_out"]:
    """Z @ W_dec with Z[r, indices[r, s]] += values[r, s]. Status: exact; differentiable by autograd."""
    dense = values.new_zeros(values.shape[0], W_dec.shape[0])
    return dense.scatter_add(1, indices.long(), values) @ W_dec


def value_gradients(
    indices: Int[Tensor, "row k"], grad: Float[Tensor, "row d_out"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row k"]:
    """<grad[r], W_dec[indices[r, s]]>: the gradient of the decode with respect to its values. Status: exact."""
    return (grad @ W_dec.T).gather(1, indices.long())
