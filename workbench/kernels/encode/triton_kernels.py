"""The device side of encode-and-select: one tiled product, and what happens to a tile before the next.

No kernel writes a (row, d_sae) matrix. A tile of scores (BM rows by BN latents) lives in registers and goes
either into a running selection of K keys a row (`running_kernel`, `group_kernel`) or, where few of its
entries can matter, into a list per row (`append_kernel`) that `merge_kernel` reduces afterwards.

Latents are visited as a stepped set: of every `stride` consecutive ones, `width` starting with `first`. A
sixteenth of the latents, evenly spread, tells nearly as much about the k-th largest as all of them.

The list of a row is filled through an integer counter, so its order is not fixed; its content is, and the keys
in it are sorted before they are used (`workbench.kernels.triton_support`). No float is added atomically.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from workbench.kernels.triton_support import INTERPRETED, LOWEST, keep_best, key_values, pack


@triton.jit
@no_type_check
def product(
    x_ptr, rows_ptr, o_rows, o_latents, d_in, PRECISION: tl.constexpr, EVEN: tl.constexpr, BD: tl.constexpr
):
    """x[o_rows] @ rows[o_latents].T, accumulated in float32: (BM, d_in) @ (d_in, BN)."""
    acc = tl.zeros((o_rows.shape[0], o_latents.shape[0]), tl.float32)
    o_d = tl.arange(0, BD)
    p_x = x_ptr + o_rows[:, None] * d_in + o_d[None, :]
    p_rows = rows_ptr + o_latents[None, :] * d_in + o_d[:, None]
    for start in range(0, d_in, BD):
        if EVEN:
            b_x, b_rows = tl.load(p_x), tl.load(p_rows)
        else:
            m_d = start + o_d < d_in
            b_x = tl.load(p_x, mask=m_d[None, :], other=0.0)
            b_rows = tl.load(p_rows, mask=m_d[:, None], other=0.0)
        if INTERPRETED:
            b_x, b_rows = b_x.to(tl.float32), b_rows.to(tl.float32)
        acc = tl.dot(b_x, b_rows, acc, input_precision=PRECISION)
        p_x += BD
        p_rows += BD
    return acc


@triton.jit
@no_type_check
def scores(x_ptr, rows_ptr, bias_ptr, x_slack_ptr, rows_slack_ptr, o_rows, o_latents, d_in,
           SLACK: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """Pre-activations (BM, BN); with SLACK what they are at most, given the rounding of their operands."""
    acc = product(x_ptr, rows_ptr, o_rows, o_latents, d_in, PRECISION, EVEN, BD)
    acc += tl.load(bias_ptr + o_latents)[None, :].to(tl.float32)
    if SLACK:
        acc += tl.load(x_slack_ptr + 2 * o_rows)[:, None] * tl.load(rows_slack_ptr + 2 * o_latents)[None, :]
        acc += (
            tl.load(x_slack_ptr + 2 * o_rows + 1)[:, None]
            * tl.load(rows_slack_ptr + 2 * o_latents + 1)[None, :]
        )
    return acc


@triton.jit
@no_type_check
def running_kernel(x_ptr, rows_ptr, bias_ptr, x_slack_ptr, rows_slack_ptr, out_ptr, list_ptr, listed_ptr, n_rows,
                   d_in, n_set, per_split, first, width, stride, LISTED: tl.constexpr, SLACK: tl.constexpr,
                   PRECISION: tl.constexpr, EVEN: tl.constexpr, K: tl.constexpr,
                   BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """The K largest keys of each row within one split of the set: out (row, split, K), descending."""
    i_m, i_split, n_splits = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.num_programs(1)
    o_m = i_m * BM + tl.arange(0, BM).to(tl.int64)
    n_todo = n_rows
    if LISTED:
        n_todo = tl.load(listed_ptr)
    if i_m * BM < n_todo:
        o_rows = tl.minimum(o_m, n_todo - 1)
        if LISTED:
            o_rows = tl.load(list_ptr + o_rows)
        best = tl.full((BM, K), LOWEST, tl.int64)
        end = tl.minimum((i_split + 1) * per_split, n_set)
        for start in range(i_split * per_split, end, BN):
            o_set = start + tl.arange(0, BN).to(tl.int64)
            o_kept = tl.minimum(o_set, end - 1)
            o_latents = (o_kept // width) * stride + first + o_kept % width
            acc = scores(x_ptr, rows_ptr, bias_ptr, x_slack_ptr, rows_slack_ptr, o_rows, o_latents, d_in,
                         SLACK, PRECISION, EVEN, BD)  # fmt: skip
            keys = tl.where((o_set < end)[None, :], pack(acc, o_latents[None, :]), LOWEST)
            best = keep_best(best, keys, K)
        p_out = out_ptr + ((o_m * n_splits + i_split) * K)[:, None] + tl.arange(0, K)[None, :]
        tl.store(p_out, best, mask=(o_m < n_todo)[:, None])


@triton.jit
@no_type_check
def append_kernel(x_ptr, rows_ptr, bias_ptr, x_slack_ptr, rows_slack_ptr, limit_ptr, counts_ptr, out_ptr, n_rows,
                  d_in, n_set, first, width, stride, pitch, capacity, limit_pitch, size, LIMITS: tl.constexpr,
                  SLACK: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, GROUP: tl.constexpr,
                  BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """Append to each row's list the keys of the set that reach their limit; `counts` goes on past the capacity.

    LIMITS says whose limit that is: "row", the value of the row's key, which may be equalled; "latent", a value
    to be above; "group", the value of a key for each row and group of `size` latents, which may be equalled.
    """
    n_m, n_n = tl.cdiv(n_rows, BM), tl.cdiv(n_set, BN)
    i_m, i_n = tl.swizzle2d(tl.program_id(0) // n_n, tl.program_id(0) % n_n, n_m, n_n, GROUP)
    o_m = i_m * BM + tl.arange(0, BM).to(tl.int64)
    o_set = i_n * BN + tl.arange(0, BN).to(tl.int64)
    o_rows, o_kept = tl.minimum(o_m, n_rows - 1), tl.minimum(o_set, n_set - 1)
    o_latents = (o_kept // width) * stride + first + o_kept % width
    acc = scores(x_ptr, rows_ptr, bias_ptr, x_slack_ptr, rows_slack_ptr, o_rows, o_latents, d_in,
                 SLACK, PRECISION, EVEN, BD)  # fmt: skip
    # Latents counted from -1 down stand for columns beyond the set. A quarter of the tile at a time goes
    # through the list, so that its addresses fit into registers.
    o_marked = tl.where(o_set < n_set, o_latents, -1 - o_latents)
    left, right = halves(acc, BM, BN)
    left_latents, right_latents = tl.split(tl.permute(tl.reshape(o_marked, (2, BN // 2)), (1, 0)))
    append_half(left, left_latents, o_m, limit_ptr, counts_ptr, out_ptr, n_rows, pitch, capacity, limit_pitch, size,
                LIMITS, BM, BN // 2)  # fmt: skip
    append_half(right, right_latents, o_m, limit_ptr, counts_ptr, out_ptr, n_rows, pitch, capacity, limit_pitch, size,
                LIMITS, BM, BN // 2)  # fmt: skip


@triton.jit
@no_type_check
def halves(tile, BM: tl.constexpr, BN: tl.constexpr):
    """The left and the right half of the columns."""
    return tl.split(tl.permute(tl.reshape(tile, (BM, 2, BN // 2)), (0, 2, 1)))


@triton.jit
@no_type_check
def append_half(tile, o_marked, o_m, limit_ptr, counts_ptr, out_ptr, n_rows, pitch, capacity, limit_pitch, size,
                LIMITS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):  # fmt: skip
    """`append_tile` of both halves of a tile."""
    left, right = halves(tile, BM, BN)
    left_latents, right_latents = tl.split(tl.permute(tl.reshape(o_marked, (2, BN // 2)), (1, 0)))
    append_tile(left, left_latents, o_m, limit_ptr, counts_ptr, out_ptr, n_rows, pitch, capacity, limit_pitch, size,
                LIMITS)  # fmt: skip
    append_tile(right, right_latents, o_m, limit_ptr, counts_ptr, out_ptr, n_rows, pitch, capacity, limit_pitch, size,
                LIMITS)  # fmt: skip


@triton.jit
@no_type_check
def append_tile(tile, o_marked, o_m, limit_ptr, counts_ptr, out_ptr, n_rows, pitch, capacity, limit_pitch, size,
                LIMITS: tl.constexpr):  # fmt: skip
    """Append the keys of a tile of scores (row, latent) that reach their limit."""
    o_rows, inside = tl.minimum(o_m, n_rows - 1), (o_m < n_rows)[:, None] & (o_marked >= 0)[None, :]
    o_latents = tl.maximum(o_marked, 0)
    if LIMITS == "latent":
        limits = tl.load(limit_ptr + o_latents).to(tl.float32)
        found = inside & (tile > limits[None, :])
    elif LIMITS == "row":
        limits = key_values(tl.load(limit_ptr + o_rows * limit_pitch))
        found = inside & ((tile < limits[:, None]) == 0)  # a NaN is found
    else:
        limits = key_values(tl.load(limit_ptr + o_rows[:, None] * limit_pitch + (o_latents // size)[None, :]))
        found = inside & ((tile < limits) == 0)
    if tl.max(tl.max(found.to(tl.int32), 1), 0) > 0:
        p_counts = counts_ptr + o_rows[:, None] + tl.zeros(tile.shape, tl.int64)
        slots = tl.atomic_add(p_counts, tl.full(tile.shape, 1, tl.int32), mask=found, sem="relaxed")
        p_out = out_ptr + o_rows[:, None] * pitch + slots
        tl.store(p_out, pack(tile, o_marked[None, :]), mask=found & (slots < capacity))


@triton.jit
@no_type_check
def merge_kernel(keys_ptr, counts_ptr, out_ptr, listed_ptr, n_rows, pitch, out_pitch, n_fixed, capacity,
                 COUNTED: tl.constexpr, LISTED: tl.constexpr, K: tl.constexpr, BM: tl.constexpr,
                 BC: tl.constexpr):  # fmt: skip
    """The K largest of each row's keys: `n_fixed` of them, and with COUNTED those that were appended."""
    i_m = tl.program_id(0)
    o_m = i_m * BM + tl.arange(0, BM).to(tl.int64)
    n_todo = n_rows
    if LISTED:
        n_todo = tl.load(listed_ptr)
    if i_m * BM < n_todo:
        n_keys = tl.full((BM,), n_fixed, tl.int32)
        if COUNTED:
            n_keys += tl.minimum(tl.load(counts_ptr + o_m, mask=o_m < n_rows, other=0), capacity)
        best = tl.full((BM, K), LOWEST, tl.int64)
        for start in range(0, tl.max(n_keys, 0), BC):
            o_c = start + tl.arange(0, BC)
            m_keys = (o_m < n_todo)[:, None] & (o_c[None, :] < n_keys[:, None])
            keys = tl.load(keys_ptr + o_m[:, None] * pitch + o_c[None, :], mask=m_keys, other=LOWEST)
            best = keep_best(best, keys, K)
        p_out = out_ptr + o_m[:, None] * out_pitch + tl.arange(0, K)[None, :]
        tl.store(p_out, best, mask=(o_m < n_todo)[:, None])


@triton.jit
@no_type_check
def group_kernel(x_ptr, rows_ptr, bias_ptr, x_slack_ptr, rows_slack_ptr, out_ptr, list_ptr, listed_ptr, n_rows, d_in,
                 size, LISTED: tl.constexpr, SLACK: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr,
                 BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """The largest key of each row in each group of `size` consecutive latents: out (row, group)."""
    i_group, n_groups = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    i_m = tl.program_id(1)
    o_m = i_m * BM + tl.arange(0, BM).to(tl.int64)
    n_todo = n_rows
    if LISTED:
        n_todo = tl.load(listed_ptr)
    if i_m * BM < n_todo:
        o_rows = tl.minimum(o_m, n_todo - 1)
        if LISTED:
            o_rows = tl.load(list_ptr + o_rows)
        best = tl.full((BM,), LOWEST, tl.int64)
        for start in range(0, size, BN):
            o_latents = i_group * size + tl.minimum(start + tl.arange(0, BN).to(tl.int64), size - 1)
            acc = scores(x_ptr, rows_ptr, bias_ptr, x_slack_ptr, rows_slack_ptr, o_rows, o_latents, d_in,
                         SLACK, PRECISION, EVEN, BD)  # fmt: skip
            best = tl.maximum(best, tl.max(pack(acc, o_latents[None, :]), 1))
        tl.store(out_ptr + o_m * n_groups + i_group, best, mask=o_m < n_todo)
