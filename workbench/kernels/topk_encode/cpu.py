"""Encode-and-select on a CPU: tiles of rows, so that pre-activations never leave the cache.

A tile of 512 rows x 4096 latents is 8 MB. The product uses oneDNN where torch has it: at this shape it is
twice as fast as the BLAS behind `addmm` on the processors measured (README.md).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE_ELEMENTS = 1 << 21


def linear(
    x: Float[Tensor, "row d_in"], rows: Float[Tensor, "latent d_in"], bias: Float[Tensor, " latent"]
) -> Float[Tensor, "row latent"]:
    """x @ rows.T + bias, by oneDNN in float32 where it is built in."""
    if x.dtype == torch.float32 and torch.backends.mkldnn.is_available() and x.numel() and rows.numel():
        return torch.ops.mkldnn._linear_pointwise(x, rows, bias, "none", [], "")
    return torch.addmm(bias, x, rows.T)


def select(pre: Float[Tensor, "row latent"], k: int) -> tuple[Int[Tensor, "row k"], Float[Tensor, "row k"]]:
    """The k largest entries per row in descending order; equal values: the lower index first.

    One entry more than asked for is selected: a tie inside or at the edge then shows as equal neighbours,
    and only those rows are sorted whole.
    """
    values, indices = pre.topk(min(k + 1, pre.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().squeeze(1)
    if len(tied):
        whole_values, whole_indices = pre[tied].sort(dim=1, descending=True, stable=True)
        width = values.shape[1]
        values[tied], indices[tied] = whole_values[:, :width], whole_indices[:, :width]
    return indices[:, :k], values[:, :k]


def topk_linear(
    x: Float[Tensor, "row d_in"], rows: Float[Tensor, "latent d_in"], bias: Float[Tensor, " latent"], k: int
) -> tuple[Int[Tensor, "row k"], Float[Tensor, "row k"]]:
    """The k largest of x @ rows.T + bias per row, before ReLU, tile by tile. Status: exact."""
    tile = max(1, TILE_ELEMENTS // max(1, len(rows)))
    parts = [select(linear(part, rows, bias), k) for part in x.split(tile)]
    return torch.cat([indices for indices, _ in parts]), torch.cat([values for _, values in parts])
