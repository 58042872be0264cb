"""The device side of deciding: rows in two precisions, and float32 dot products of the latents proposed.

These read a few rows of the encoder per row of the batch, so they are as fast as memory; the product over all
latents is in `workbench.kernels.encode.triton_kernels`.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from workbench.kernels.triton_support import LOWEST, key_latents, key_values, pack


@triton.jit
@no_type_check
def split_kernel(full_ptr, high_ptr, slack_ptr, n_rows, d, accumulation, inflation, FACTORS: tl.constexpr,
                 BM: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """Rows in bfloat16, and the two factors that the rounding of each puts into the bound of a product.

    For v = high + low the bound on a product of two such rows is
    (|low| + accumulation |v|) |w| + |high_v| |low_w|: FACTORS makes the left ones, otherwise the right ones.
    """
    o_m = tl.program_id(0) * BM + tl.arange(0, BM).to(tl.int64)
    all_of, high_of, low_of = (
        tl.zeros((BM, BD), tl.float32),
        tl.zeros((BM, BD), tl.float32),
        tl.zeros((BM, BD), tl.float32),
    )
    for start in range(0, d, BD):
        o_d = start + tl.arange(0, BD)
        places, mask = o_m[:, None] * d + o_d[None, :], (o_m < n_rows)[:, None] & (o_d < d)[None, :]
        full = tl.load(full_ptr + places, mask=mask, other=0.0)
        high = full.to(tl.bfloat16)
        tl.store(high_ptr + places, high, mask=mask)
        low = full - high.to(tl.float32)
        all_of += full * full
        high_of += high.to(tl.float32) * high.to(tl.float32)
        low_of += low * low
    norm, high_norm, low_norm = (
        tl.sqrt(tl.sum(all_of, 1)),
        tl.sqrt(tl.sum(high_of, 1)),
        tl.sqrt(tl.sum(low_of, 1)),
    )
    first, second = norm, low_norm
    if FACTORS:
        first, second = (low_norm + accumulation * norm) * inflation, high_norm * inflation
    tl.store(slack_ptr + 2 * o_m, first, mask=o_m < n_rows)
    tl.store(slack_ptr + 2 * o_m + 1, second, mask=o_m < n_rows)


@triton.jit
@no_type_check
def rescore_kernel(x_ptr, rows_ptr, bias_ptr, x_slack_ptr, rows_slack_ptr, keys_ptr, counts_ptr, out_ptr, failed_ptr,
                   d_in, pitch, k, capacity, KC: tl.constexpr, KO: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """Each row's KC candidates by float32 dot products: the KO largest, and whether the first k are proven.

    A latent outside the list is at most the smallest bound in it. So the row is proven where the k-th product
    is above that bound. A candidate whose bound is below the k-th largest of (bound - 2 slack) cannot be
    among the k: its row of the encoder is not read.
    """
    i_row = tl.program_id(0).to(tl.int64)
    keys = tl.load(keys_ptr + i_row * pitch + tl.arange(0, KC))
    o_latents = tl.where(keys == LOWEST, 0, key_latents(keys))
    bounds = key_values(keys)
    slack = tl.load(x_slack_ptr + 2 * i_row) * tl.load(rows_slack_ptr + 2 * o_latents)
    slack += tl.load(x_slack_ptr + 2 * i_row + 1) * tl.load(rows_slack_ptr + 2 * o_latents + 1)
    floors = tl.where(keys == LOWEST, LOWEST, pack(bounds - 2.002 * slack, o_latents))
    floors = tl.sort(floors, descending=True)
    floor = key_values(tl.max(tl.where(tl.arange(0, KC) == k - 1, floors, LOWEST), 0))
    alive = ((bounds < floor) == 0) & (keys != LOWEST)
    values = dots(x_ptr, rows_ptr, i_row, o_latents, alive, d_in, BD) + tl.load(bias_ptr + o_latents)
    best = tl.sort(tl.where(alive, pack(values, o_latents), LOWEST), descending=True)
    last = key_values(tl.max(tl.where(tl.arange(0, KC) == k - 1, best, LOWEST), 0))
    proven = (last > key_values(tl.min(keys, 0))) & (tl.load(counts_ptr + i_row) <= capacity)
    tl.store(failed_ptr + i_row, (proven == 0).to(tl.int32))
    tl.store(out_ptr + i_row * KO + tl.arange(0, KC), best, mask=tl.arange(0, KC) < KO)


@triton.jit
@no_type_check
def dots(x_ptr, rows_ptr, i_row, o_latents, alive, d_in, BD: tl.constexpr):
    """<x[i_row], rows[o_latents]> in float32, zero where not alive."""
    acc = tl.zeros((o_latents.shape[0], BD), tl.float32)
    for start in range(0, d_in, BD):
        o_d = start + tl.arange(0, BD)
        b_x = tl.load(x_ptr + i_row * d_in + o_d, mask=o_d < d_in, other=0.0)
        p_rows = rows_ptr + o_latents[:, None] * d_in + o_d[None, :]
        acc += tl.load(p_rows, mask=alive[:, None] & (o_d < d_in)[None, :], other=0.0) * b_x[None, :]
    return tl.sum(acc, 1)


@triton.jit
@no_type_check
def rescore_list_kernel(x_ptr, rows_ptr, bias_ptr, limit_ptr, counts_ptr, keys_ptr, kept_ptr, d_in, pitch,
                        RESCORE: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """A row's list in place: keys that sort by latent, value in the lower half; entries not above the limit last."""
    i_row = tl.program_id(0).to(tl.int64)
    kept = tl.zeros((BC,), tl.int32)
    n_listed = tl.load(counts_ptr + i_row)
    for start in range(0, pitch, BC):
        o_c = start + tl.arange(0, BC)
        listed = o_c < tl.minimum(n_listed, pitch)
        keys = tl.load(keys_ptr + i_row * pitch + o_c, mask=listed, other=LOWEST)
        o_latents, values = tl.where(listed, key_latents(keys), 0), key_values(keys)
        if RESCORE:
            values = dots(x_ptr, rows_ptr, i_row, o_latents, listed, d_in, BD) + tl.load(bias_ptr + o_latents)
        above = listed & (values > tl.load(limit_ptr + o_latents).to(tl.float32))
        bits = values.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
        turned = tl.where(above, (o_latents << 32) | bits, 0x7FFFFFFFFFFFFFFF)
        tl.store(keys_ptr + i_row * pitch + o_c, turned, mask=o_c < pitch)
        kept += above.to(tl.int32)
    tl.store(kept_ptr + i_row, tl.sum(kept))


@triton.jit
@no_type_check
def rescore_group_kernel(x_ptr, rows_ptr, bias_ptr, counts_ptr, keys_ptr, out_ptr, d_in, pitch, n_groups, size,
                         BC: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """The largest key of each group among a row's list, by float32 dot products, into out (row, group).

    Maxima of integers come out the same in any order, so they may be atomic. `out` begins as `LOWEST`.
    """
    i_row = tl.program_id(0).to(tl.int64)
    n_listed = tl.minimum(tl.load(counts_ptr + i_row), pitch)
    for start in range(0, n_listed, BC):
        o_c = start + tl.arange(0, BC)
        keys = tl.load(keys_ptr + i_row * pitch + o_c, mask=o_c < n_listed, other=LOWEST)
        o_latents = tl.where(o_c < n_listed, key_latents(keys), 0)
        values = dots(x_ptr, rows_ptr, i_row, o_latents, o_c < n_listed, d_in, BD) + tl.load(
            bias_ptr + o_latents
        )
        p_out = out_ptr + i_row * n_groups + o_latents // size
        tl.atomic_max(p_out, pack(values, o_latents), mask=o_c < n_listed, sem="relaxed")
