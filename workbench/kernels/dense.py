"""Matrix products, for codes so dense that they beat adding rows one by one.

A ReLU dictionary starts with about half of its latents active. From a share of non-zero entries on, the CPU
kernels write their entries into a dense matrix, a tile of rows at a time, and multiply. The share is measured
(`tests/benchmarks/bench_kernels.py`, README.md of each kernel) and compared with the batch at hand only.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

DECODE_FRAC, GRADIENT_FRAC, SUM_FRAC = 1 / 8, 1 / 5, 1 / 5
"""Shares of non-zero entries from which a product is faster than the loops."""
TILE_ELEMENTS = 1 << 22


def packed(rows: Float[Tensor, "d_sae d_in"]) -> Tensor:
    """The rows in oneDNN's layout, for several calls of `linear`: each would pack them anew (a tenth of its time)."""
    return torch.ops.mkldnn._reorder_linear_weight(rows) if rows.numel() else rows


def linear(x: Float[Tensor, "row d_in"], rows: Tensor) -> Float[Tensor, "row d_sae"]:
    """x @ rows.T by oneDNN where it is built in: on the processors measured twice as fast as the BLAS of `mm`."""
    onednn = torch.backends.mkldnn.is_available() and x.dtype in (torch.float32, torch.bfloat16)
    if onednn and x.numel() and rows.numel():
        return torch.ops.mkldnn._linear_pointwise(x, rows, None, "none", [], "")
    return x @ rows.T


def is_dense(values: Float[Tensor, "row width"], d_sae: int, frac: float) -> bool:
    """Whether more than that share of the (row, d_sae) matrix is not zero."""
    least = frac * len(values) * d_sae
    return values.numel() > least and int(values.count_nonzero()) > least


def tiles(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Iterator[tuple[slice, Float[Tensor, "tile d_sae"]]]:
    """The dense matrix of a code, some rows at a time; repeated latents are added."""
    n_rows = max(1, TILE_ELEMENTS // d_sae)
    for start in range(0, len(values), n_rows):
        rows = slice(start, start + n_rows)
        dense = values.new_zeros(len(values[rows]), d_sae)
        yield rows, dense.scatter_add_(1, indices[rows], values[rows])


def decode(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row d_out"]:
    """Z @ W_dec, tile by tile. Status: exact."""
    out, columns = values.new_empty(len(values), W_dec.shape[1]), W_dec.T.contiguous()
    for rows, dense in tiles(indices, values, len(W_dec)):
        out[rows] = linear(dense, columns)
    return out


def value_gradients(
    indices: Int[Tensor, "row width"], grad: Float[Tensor, "row d_out"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row width"]:
    """(grad @ W_dec.T) at the entries, tile by tile. Status: exact."""
    out, n_rows = grad.new_empty(indices.shape), max(1, TILE_ELEMENTS // len(W_dec))
    for start in range(0, len(grad), n_rows):
        rows = slice(start, start + n_rows)
        torch.gather(linear(grad[rows], W_dec), 1, indices[rows], out=out[rows])
    return out


def latent_sum(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    rows: Float[Tensor, "row d"],
    d_sae: int,
) -> Float[Tensor, "d_sae d"]:
    """Z.T @ rows, tile by tile. Status: exact."""
    out = rows.new_zeros(d_sae, rows.shape[1])
    for tile, dense in tiles(indices, values, d_sae):
        out += linear(dense.T.contiguous(), rows[tile].T.contiguous())
    return out
