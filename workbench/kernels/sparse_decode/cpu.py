"""Sparse decode on a CPU: weighted bags of decoder rows, forward and backward.

At k of d_sae latents this reads k decoder rows per token instead of d_sae, and the decoder (4 MB at
256 x 4096) stays in the cache.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

SUM_MODE = 0


def sparse_decode(
    indices: Int[Tensor, "row k"], values: Float[Tensor, "row k"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row d_out"]:
    """As `reference.sparse_decode`; bit-reproducible. Status: exact."""
    return functional.embedding_bag(indices, W_dec, mode="sum", per_sample_weights=values)


def value_gradients(
    indices: Int[Tensor, "row k"], grad: Float[Tensor, "row d_out"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row k"]:
    """As `reference.value_gradients`, by torch's own backward of the weighted bag. Status: exact."""
    n_rows, k = indices.shape
    offsets = torch.arange(0, n_rows * k, k)
    row_of = torch.arange(n_rows).repeat_interleave(k)
    backward = torch.ops.aten._embedding_bag_per_sample_weights_backward
    return backward(grad, W_dec, indices.reshape(-1), offsets, row_of, SUM_MODE).view(n_rows, k)
