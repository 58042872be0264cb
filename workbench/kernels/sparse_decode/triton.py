"""Sparse decode on a CUDA device: k of d_sae decoder rows are read per token, zero values are not.

A program makes one block of columns of one row and adds the decoder rows in the order of the entries, in
float32. The backward goes through the latent-major order (`workbench.kernels.latent_sum.triton`).
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels import triton_dense
from workbench.kernels.latent_sum.triton import WIDEST_BLOCK, entry_sums
from workbench.kernels.triton_support import constant, launch, next_power_of_2

BLOCK_ELEMENTS = 4096
WIDEST_FORWARD_BLOCK = 1024


@triton.jit
@no_type_check
def decoded(indices_ptr, values_ptr, W_ptr, i_row, o_d, low, high, width, d, BS: tl.constexpr):
    """Sum of value * W[latent] over a row's entries with low <= latent < high: (BD,)."""
    acc = tl.zeros((o_d.shape[0],), tl.float32)
    for start in range(0, width, BS):
        o_s = start + tl.arange(0, BS)
        latents = tl.load(indices_ptr + i_row * width + o_s, mask=o_s < width, other=0).to(tl.int64)
        values = tl.load(values_ptr + i_row * width + o_s, mask=o_s < width, other=0.0).to(tl.float32)
        mine = (values != 0.0) & (latents >= low) & (latents < high)
        p_W = W_ptr + latents[:, None] * d + o_d[None, :]
        b_W = tl.load(p_W, mask=mine[:, None] & (o_d < d)[None, :], other=0.0).to(tl.float32)
        acc += tl.sum(values[:, None] * b_W, 0)
    return acc


@triton.jit
@no_type_check
def decode_kernel(
    indices_ptr, values_ptr, W_ptr, out_ptr, d_sae, width, d, BS: tl.constexpr, BD: tl.constexpr
):
    """A block of columns of a row of Z @ W_dec."""
    i_row = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    acc = decoded(indices_ptr, values_ptr, W_ptr, i_row, o_d, 0, d_sae, width, d, BS)
    tl.store(out_ptr + i_row * d + o_d, acc, mask=o_d < d)


@triton.jit
@no_type_check
def value_kernel(indices_ptr, grad_ptr, W_ptr, out_ptr, width, d, BS: tl.constexpr, BD: tl.constexpr):
    """<grad[row], W_dec[latent]> of BS entries of a row."""
    i_row = tl.program_id(0).to(tl.int64)
    o_s = tl.program_id(1) * BS + tl.arange(0, BS)
    latents = tl.load(indices_ptr + i_row * width + o_s, mask=o_s < width, other=0).to(tl.int64)
    acc = tl.zeros((BS, BD), tl.float32)
    for start in range(0, d, BD):
        o_d = start + tl.arange(0, BD)
        b_grad = tl.load(grad_ptr + i_row * d + o_d, mask=o_d < d, other=0.0).to(tl.float32)
        m_W = (o_s < width)[:, None] & (o_d < d)[None, :]
        b_W = tl.load(W_ptr + latents[:, None] * d + o_d[None, :], mask=m_W, other=0.0).to(tl.float32)
        acc += b_W * b_grad[None, :]
    tl.store(out_ptr + i_row * width + o_s, tl.sum(acc, 1), mask=o_s < width)


def sparse_decode(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row d_out"]:
    """As `reference.sparse_decode`, summed in float32. Status: exact; bit-reproducible."""
    indices, values, W_dec = indices.contiguous(), values.contiguous(), W_dec.contiguous()
    (n_rows, width), (d_sae, d) = indices.shape, W_dec.shape
    if triton_dense.is_full(values, d_sae):
        return triton_dense.decode(indices, values, W_dec)
    out = W_dec.new_empty(n_rows, d)
    BD = min(next_power_of_2(d), WIDEST_FORWARD_BLOCK)
    options = {"BS": BLOCK_ELEMENTS // BD, "BD": BD, "num_warps": 4}
    launch(decode_kernel, (n_rows, -(-d // BD)), indices, values, W_dec, out, d_sae, width, d, **options)
    return out


def value_gradients(
    indices: Int[Tensor, "row width"], grad: Float[Tensor, "row d_out"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "row width"]:
    """As `reference.value_gradients`, summed in float32. Status: exact; bit-reproducible."""
    indices, grad, W_dec = indices.contiguous(), grad.contiguous(), W_dec.contiguous()
    (n_rows, width), (d_sae, d) = indices.shape, W_dec.shape
    if width > triton_dense.WIDE_FRAC * d_sae:
        return triton_dense.value_gradients(indices, grad[None], W_dec, (d_sae,))
    out = grad.new_empty(n_rows, width)
    options = {"BS": 16, "BD": 256, "num_warps": 4}
    launch(value_kernel, (n_rows, -(-width // 16)), indices, grad, W_dec, out, width, d, **options)
    return out


def gradients(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    grad: Float[Tensor, "row d_out"],
    W_dec: Float[Tensor, "d_sae d_out"],
) -> tuple[Float[Tensor, "row width"], Float[Tensor, "d_sae d_out"]]:
    """As `reference.gradients`, summed in float32. Status: exact; bit-reproducible."""
    return prefix_gradients(indices, values, grad[None], W_dec, (len(W_dec),))


def prefix_gradients(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    upstream: Float[Tensor, "prefix row d_out"],
    W_dec: Float[Tensor, "d_sae d_out"],
    prefixes: tuple[int, ...],
) -> tuple[Float[Tensor, "row width"], Float[Tensor, "d_sae d_out"]]:
    """As `decode_loss.reference.gradients`, in one pass over the entries. Status: exact; bit-reproducible."""
    indices, values, upstream, W_dec = (t.contiguous() for t in (indices, values, upstream, W_dec))
    d_sae, edges = len(W_dec), tuple(prefixes)
    if triton_dense.is_full(values, d_sae):
        for_values = triton_dense.value_gradients(indices, upstream, W_dec, edges).to(values.dtype)
        for_decoder = triton_dense.entry_sums(indices, values, upstream, d_sae, edges)
        return for_values.where(values != 0, 0), for_decoder
    if W_dec.shape[1] <= WIDEST_BLOCK:
        for_values = values.new_empty(values.shape)
        return for_values, entry_sums(indices, values, upstream, d_sae, edges, W_dec, for_values)
    group = torch.bucketize(indices, constant(edges, indices.device), right=True)
    for_values = torch.zeros_like(values)
    for q, grad in enumerate(upstream):
        mine = (group == q) & (values != 0)
        for_values = torch.where(mine, value_gradients(indices, grad, W_dec).to(values.dtype), for_values)
    return for_values, entry_sums(indices, values, upstream, d_sae, edges)
