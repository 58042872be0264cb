"""Decode and loss on a CUDA device: the decoder rows of a token are read once for all prefixes.

A program makes one block of columns of one row. It adds the latents of the first prefix, takes the error,
adds those of the next, and so on, so that a Matryoshka loss costs one decode. Each leaves its share of the
squared errors; they are summed in a fixed order, in float64. The gradients are those of the sparse decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels import triton_dense
from workbench.kernels.sparse_decode.triton import BLOCK_ELEMENTS, WIDEST_FORWARD_BLOCK, decoded
from workbench.kernels.sparse_decode.triton import prefix_gradients as gradients
from workbench.kernels.triton_support import constant, launch, next_power_of_2

__all__ = ["decode_loss", "gradients"]


@triton.jit
@no_type_check
def loss_kernel(indices_ptr, values_ptr, W_ptr, bias_ptr, target_ptr, edges_ptr, x_hat_ptr, errors_ptr, squares_ptr,
                width, d, n_edges, BS: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """A block of columns of a row: error of each prefix, its sum of squares, and the full reconstruction."""
    i_row, n_rows = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    i_block, n_blocks = tl.program_id(1), tl.num_programs(1)
    o_d = i_block * BD + tl.arange(0, BD)
    m_d = o_d < d
    acc = tl.load(bias_ptr + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_target = tl.load(target_ptr + i_row * d + o_d, mask=m_d, other=0.0).to(tl.float32)
    low = tl.load(edges_ptr) * 0
    for i_edge in range(n_edges):
        high = tl.load(edges_ptr + i_edge)
        acc += decoded(indices_ptr, values_ptr, W_ptr, i_row, o_d, low, high, width, d, BS)
        error = acc - b_target
        place = i_edge * n_rows + i_row
        tl.store(errors_ptr + place * d + o_d, error, mask=m_d)
        tl.store(squares_ptr + place * n_blocks + i_block, tl.sum(error * error))
        low = high
    tl.store(x_hat_ptr + i_row * d + o_d, acc, mask=m_d)


def decode_loss(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    W_dec: Float[Tensor, "d_sae d_out"],
    b_dec: Float[Tensor, " d_out"],
    target: Float[Tensor, "row d_out"],
    prefixes: Sequence[int],
) -> tuple[Float[Tensor, " prefix"], Float[Tensor, "row d_out"], Float[Tensor, "prefix row d_out"]]:
    """As `reference.decode_loss`; bit-reproducible. Status: exact."""
    (n_rows, width), d = indices.shape, W_dec.shape[1]
    if triton_dense.is_full(values, len(W_dec)):
        return _by_products(indices, values, W_dec, b_dec, target, tuple(prefixes))
    BD = min(next_power_of_2(d), WIDEST_FORWARD_BLOCK)
    n_blocks, edges = -(-d // BD), constant(tuple(prefixes), target.device)
    x_hat, errors = target.new_empty(target.shape), target.new_empty(len(edges), *target.shape)
    squares = target.new_empty(len(edges), n_rows, n_blocks, dtype=torch.float32)
    given = [t.contiguous() for t in (indices, values, W_dec, b_dec, target)]
    options = {"BS": BLOCK_ELEMENTS // BD, "BD": BD, "num_warps": 4}
    sizes = (width, d, len(edges))
    launch(loss_kernel, (n_rows, n_blocks), *given, edges, x_hat, errors, squares, *sizes, **options)
    return squares.sum((1, 2), dtype=torch.float64).to(target.dtype), x_hat, errors


def _by_products(
    indices: Tensor, values: Tensor, W_dec: Tensor, b_dec: Tensor, target: Tensor, edges: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """`decode_loss` of a full code."""
    parts = triton_dense.decode_parts(indices, values, W_dec, edges).add_(b_dec)
    errors = parts - target
    return errors.double().square().sum((1, 2)).to(target.dtype), parts[-1].clone(), errors
