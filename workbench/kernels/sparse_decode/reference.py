"""Definition of the sparse decode: write the latents into a dense matrix and multiply."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels.latent_sum.reference import latent_sum


def sparse_decode(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row d_out"]:
    """Z @ W_dec with Z[r, indices[r, s]] += values[r, s]; a value of 0 gets no gradient.

    Status: exact; differentiable by autograd.
    """
    dense = values.new_zeros(values.shape[0], W_dec.shape[0])
    return dense.scatter_add(1, indices.long(), values.where(values != 0, 0)) @ W_dec


def value_gradients(
    indices: Int[Tensor, "row width"], grad: Float[Tensor, "row d_out"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row width"]:
    """<grad[r], W_dec[indices[r, s]]> for every entry, padding too. Status: exact."""
    return (grad @ W_dec.T).gather(1, indices.long())


def gradients(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    grad: Float[Tensor, "row d_out"],
    W_dec: Float[Tensor, "d_sae d_out"],
) -> tuple[Float[Tensor, "row width"], Float[Tensor, "d_sae d_out"]]:
    """Gradients of the values (0 where the value is 0) and of W_dec, from that of the output. Status: exact."""
    for_values = value_gradients(indices, grad, W_dec).where(values != 0, 0)
    return for_values, latent_sum(indices, values, grad, len(W_dec))
