"""Definition of decode and loss: one dense reconstruction per prefix, its squared error summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels.latent_sum.reference import latent_sum
from workbench.kernels.sparse_decode.reference import sparse_decode, value_gradients


def decode_loss(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    W_dec: Float[Tensor, "d_sae d_out"],
    b_dec: Float[Tensor, " d_out"],
    target: Float[Tensor, "row d_out"],
    prefixes: Sequence[int],
) -> tuple[Float[Tensor, " prefix"], Float[Tensor, "row d_out"], Float[Tensor, "prefix row d_out"]]:
    """Losses, full reconstruction, and errors (reconstruction - target) of each prefix.

    The reconstruction of prefix p is the decode of the latents < p, plus b_dec. Status: exact; differentiable
    by autograd.
    """
    parts = [sparse_decode(indices, values.where(indices < p, 0), W_dec) + b_dec for p in prefixes]
    errors = torch.stack([part - target for part in parts])
    return errors.square().sum((1, 2)), parts[-1], errors


def gradients(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    upstream: Float[Tensor, "prefix row d_out"],
    W_dec: Float[Tensor, "d_sae d_out"],
    prefixes: Sequence[int],
) -> tuple[Float[Tensor, "row width"], Float[Tensor, "d_sae d_out"]]:
    """Gradients of the values (0 where the value is 0) and of W_dec.

    `upstream[q]` is the gradient of what the latents prefixes[q - 1] .. prefixes[q] add to a row: the sum of
    the gradients of every reconstruction that holds them. Status: exact.
    """
    group = torch.bucketize(indices, torch.tensor(prefixes, device=indices.device), right=True)
    for_values, for_decoder = torch.zeros_like(values), torch.zeros_like(W_dec)
    for q, grad in enumerate(upstream):
        mine = values.where(group == q, 0)
        for_values += value_gradients(indices, grad, W_dec).where(mine != 0, 0)
        for_decoder += latent_sum(indices, mine, grad, len(W_dec))
    return for_values, for_decoder
