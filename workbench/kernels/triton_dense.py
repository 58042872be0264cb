"""Codes so full that products beat adding rows one by one: the sums of the Triton kernels as dense products.

A ReLU dictionary starts with about half of its latents active. Reading rows costs 4 * d bytes per entry, a dense
product 2 * d operations per latent, and a card does some ten float32 operations in the time of a byte; so from a
sixteenth of the latents on the product is faster. (That is arithmetic from data sheets, not yet measured.)
Tiles of rows bound the memory; their order is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

WIDE_FRAC = 1 / 16
TILE_ELEMENTS = 1 << 27


def is_full(values: Float[Tensor, "row width"], d_sae: int) -> bool:
    """Whether more than that share of the (row, d_sae) matrix is not zero; waits for the host if it may be."""
    least = WIDE_FRAC * len(values) * d_sae
    return values.numel() > least and int(values.count_nonzero()) > least


def decode(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], W: Float[Tensor, "d_sae d"]
) -> Float[Tensor, "row d"]:
    """Z @ W. Status: exact."""
    return torch.cat([code @ W for _, code in _tiles(indices, values.to(W.dtype), len(W))])


def decode_parts(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    W: Float[Tensor, "d_sae d"],
    edges: tuple[int, ...],
) -> Float[Tensor, "prefix row d"]:
    """Z @ W of each prefix of the latents. Status: exact."""
    out = W.new_empty(len(edges), len(values), W.shape[1])
    for rows, code in _tiles(indices, values.to(W.dtype), len(W)):
        for q, (low, high) in enumerate(pairwise((0, *edges))):
            out[q, rows] = code[:, low:high] @ W[low:high] + (out[q - 1, rows] if q else 0)
    return out


def entry_sums(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    rows: Float[Tensor, "group row d"],
    d_sae: int,
    edges: tuple[int, ...],
) -> Float[Tensor, "d_sae d"]:
    """Z.T @ rows, each latent with the rows of its group. Status: exact."""
    out = rows.new_zeros(d_sae, rows.shape[2])
    for tile, code in _tiles(indices, values.to(rows.dtype), d_sae):
        for group, (low, high) in zip(rows, pairwise((0, *edges)), strict=True):
            out[low:high].addmm_(code[:, low:high].T, group[tile])
    return out


def value_gradients(
    indices: Int[Tensor, "row width"],
    rows: Float[Tensor, "group row d"],
    W: Float[Tensor, "d_sae d"],
    edges: tuple[int, ...],
) -> Float[Tensor, "row width"]:
    """<row, W[latent]> of every entry, with the row of its latent's group. Status: exact."""
    out, step = rows.new_empty(indices.shape), max(1, TILE_ELEMENTS // len(W))
    for start in range(0, len(indices), step):
        tile, groups = slice(start, start + step), zip(rows, pairwise((0, *edges)), strict=True)
        products = torch.cat([group[tile] @ W[low:high].T for group, (low, high) in groups], dim=1)
        out[tile] = products.gather(1, indices[tile].long())
    return out


def _tiles(indices: Tensor, values: Tensor, d_sae: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their dense code; repeated latents are added."""
    step = max(1, TILE_ELEMENTS // d_sae)
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        code = values.new_zeros(len(values[rows]), d_sae)
        yield rows, code.scatter_add_(1, indices[rows].long(), values[rows])
