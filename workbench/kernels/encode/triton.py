"""Encode-and-select on a CUDA device: exact float32 selection at bfloat16 speed.

A float32 product on a GPU's tensor cores does not exist, and without them the encoder would take five times
the time of everything else. So, for float32 inputs, `select_topk` works in four steps, none of which waits
for the host:

1. split     x = x_h + x_l and w = w_h + w_l with x_h, w_h in bfloat16. Then
             |x.w - x_h.w_h| <= |x_l| |w| + |x_h| |w_l|, plus the rounding of the sums: the slack of a pair.
2. propose   scores s + slack, so upper bounds u of the pre-activations, from bfloat16 products. A running
             selection over every sixteenth latent gives a limit per row; the others append what reaches it,
             first three sixteenths, then, with a new limit, the remaining twelve.
3. decide    the KC >= 2 k largest u a row, by float32 dot products. The row is proven when its k-th value
             is above the smallest u of the list: everything outside the list is below that.
4. repeat    rows that are not proven, or whose list was too short, by float32 products of all latents.

bfloat16 and float16 inputs have exact products, so they need steps 2 and 4 only; their selection and tie rule
hold for the float32 sums, before a value is rounded to the input's dtype. `select_above` needs no proof: all
with u above the threshold are decided by float32 dot products. Nor does `select_group_max`: a first product gives
each group its largest lower bound, a second proposes what reaches that.

Wide selections (k above 128), for which a running selection has too few registers, go through row tiles of a dense
float32 product; dictionaries of less than 16 KC latents through a running selection in float32. Memory, apart
from the tiles, is 9 KC entries of 8 bytes a row.

Only `select_batch_topk` and `select_above` wait for the host, for the width of their result.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.kernels.encode import reference, triton_steps
from workbench.kernels.encode.triton_steps import ALL, SHARES, Operands
from workbench.kernels.triton_support import next_power_of_2, packed, unpacked

Code = tuple[Int64[Tensor, "row width"], Float[Tensor, "row width"]]
WIDEST_K = 128
SMALLEST_GROUP = 16
DENSE_ELEMENTS = 1 << 26
LIST_CAPACITY = 256
LISTED_PER_CANDIDATE = 8


def select_topk(
    x: Float[Tensor, "row d_in"], rows: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"], k: int
) -> Code:
    """As `reference.select_topk`. Status: exact; bit-reproducible."""
    if x.dtype == torch.float64:
        return reference.select_topk(x, rows, bias, k)
    indices, values = unpacked(_topk_keys(_operands(x, rows, bias), k))
    return indices, values.to(x.dtype)


def select_batch_topk(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n_keep: int,
) -> Code:
    """As `reference.select_batch_topk`, from the largest of each row.

    A row whose candidates are all kept may have had more: then all rows are asked for twice as many.
    Status: exact; bit-reproducible; waits for the host.
    """
    if x.dtype == torch.float64:
        return reference.select_batch_topk(x, rows, bias, n_keep)
    operands, d_sae = _operands(x, rows, bias), len(rows)
    n_candidates = min(d_sae, 4 * next_power_of_2(-(-n_keep // max(len(x), 1))))
    while True:
        keys = _topk_keys(operands, n_candidates)
        kept = _largest(unpacked(keys)[1], n_keep)
        width, full = _widest(kept)
        if not full or n_candidates == d_sae:
            return _prefix(keys, kept, max(1, width), x.dtype)
        n_candidates = min(d_sae, 2 * n_candidates)


def select_above(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, " d_sae"],
) -> Code:
    """As `reference.select_above`, in lists that are made again, long enough, where one was too short.

    Status: exact; bit-reproducible; waits for the host.
    """
    if x.dtype == torch.float64:
        return reference.select_above(x, rows, bias, threshold)
    exact, threshold = _operands(x, rows, bias), threshold.contiguous()
    bounds = triton_steps.screened(exact) if x.dtype == torch.float32 else exact
    capacity = min(len(rows), LIST_CAPACITY)
    while True:
        lists = torch.empty(len(x), capacity, dtype=torch.int64, device=x.device)
        counts = triton_steps.append(bounds, threshold, lists, ALL, "latent")
        most = int(counts.max()) if len(x) else 0
        if most <= capacity:
            break
        capacity = most
    lists, kept = triton_steps.list_decided(exact, lists, counts, threshold, rescore=bounds is not exact)
    width = max(1, int(kept.max())) if len(x) else 1
    return _by_latent(lists[:, :width], kept, x.dtype)


def select_group_max(
    x: Float[Tensor, "row d_in"], rows: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"], k: int
) -> Code:
    """As `reference.select_group_max`. Status: exact; bit-reproducible."""
    if x.dtype == torch.float64:
        return reference.select_group_max(x, rows, bias, k)
    operands, size = _operands(x, rows, bias), len(rows) // k
    if size >= SMALLEST_GROUP and len(x) and x.dtype == torch.float32:
        keys = triton_steps.proposed_group_maxima(operands, k, max(LIST_CAPACITY, LISTED_PER_CANDIDATE * k))
    elif size >= SMALLEST_GROUP:
        keys = triton_steps.group_maxima(operands, k)
    else:
        keys = torch.cat([tile.unflatten(1, (k, size)).amax(2) for tile in _dense_tiles(operands)])
    indices, values = unpacked(keys)
    return indices, values.to(x.dtype)


def _operands(x: Tensor, rows: Tensor, bias: Tensor) -> Operands:
    return Operands(x.contiguous(), rows.contiguous(), bias.contiguous())


def _topk_keys(exact: Operands, k: int) -> Tensor:
    """Keys (row, k) of the k largest pre-activations of each row, descending."""
    screen = exact.x.dtype == torch.float32
    K = next_power_of_2(max(2 * k, 32) if screen else max(k, 16))
    if k > WIDEST_K or not len(exact.x):
        return torch.cat([tile.topk(k, dim=1).values for tile in _dense_tiles(exact)])
    if len(exact.rows) < SHARES * K:
        return triton_steps.running(exact, max(16, next_power_of_2(k)), ALL)[:, :k]
    bounds, capacity = (
        triton_steps.screened(exact) if screen else exact,
        LISTED_PER_CANDIDATE * K,
    )
    lists, most = triton_steps.propose(bounds, K, capacity)
    keys, failed = lists[:, :k], most > capacity
    if screen:
        keys, failed = triton_steps.decide(exact, bounds, lists, most, k, K)
    return triton_steps.repeat_failed(exact, keys, failed, k)


def _dense_tiles(operands: Operands) -> Iterator[Tensor]:
    """Keys (tile, d_sae) from dense products of one tile of rows after the other."""
    latents = torch.arange(len(operands.rows), device=operands.x.device)
    rows, bias = operands.rows.float(), operands.bias.float()
    tiles = operands.x.split(max(1, DENSE_ELEMENTS // len(rows)))
    return (packed(torch.addmm(bias, tile.float(), rows.T), latents) for tile in tiles)


def _largest(values: Tensor, n_keep: int) -> Tensor:
    """Which of the values are among the n_keep largest and positive; ties: row-major order."""
    kept = torch.zeros_like(values, dtype=torch.bool)
    flat, order = values.flatten().sort(descending=True, stable=True)
    kept.view(-1)[order[:n_keep]] = flat[:n_keep] > 0
    return kept


def _widest(kept: Tensor) -> tuple[int, bool]:
    """Most entries that a row kept, and whether a row kept all its candidates."""
    most = int(kept.sum(1).max()) if len(kept) else 0
    return most, most == kept.shape[1]


def _prefix(keys: Tensor, kept: Tensor, width: int, dtype: torch.dtype) -> Code:
    indices, values = unpacked(keys[:, :width])
    return indices.where(kept[:, :width], 0), values.to(dtype).where(kept[:, :width], 0)


def _by_latent(lists: Tensor, kept: Tensor, dtype: torch.dtype) -> Code:
    """Code from keys with the latent in the upper half."""
    inside = torch.arange(lists.shape[1], device=lists.device) < kept[:, None]
    values = lists.int().view(torch.float32).to(dtype)
    return (lists >> 32).where(inside, 0), values.where(inside, 0)
