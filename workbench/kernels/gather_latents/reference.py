"""Definition: plain indexing, whose autograd adds the entries of a latent in no stated order."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def gather_latents(
    parameter: Float[Tensor, " d_sae"], indices: Int[Tensor, "row width"]
) -> Float[Tensor, "row width"]:
    """parameter[indices]. Status: exact; differentiable by autograd."""
    return parameter[indices.long()]
