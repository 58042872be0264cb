"""Latent-major sums on a CUDA device: no atomics, no (row * width, d) intermediate, one order of additions.

The entries of a latent (`latent_major`) are cut into pieces of equal size, so that a latent that fires on
most rows, or the latent 0 that padding points to, keeps many programs busy instead of one. A program sums one
piece. Latents of one piece are finished then; a second kernel adds the pieces of the others in their order.
How many pieces there are is known on the device only: the grid is as large as it can be, and idle programs end.

`entry_kernel` also gives the gradients of the values on the way: the row that it has just read, times the
latent's decoder row. So the backward of a decode reads the upstream gradient once, not twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from workbench.kernels import triton_dense
from workbench.kernels.latent_sum.order import LatentMajor, latent_major
from workbench.kernels.triton_support import constant, launch, next_power_of_2

SMALLEST_PIECE = 128
WIDEST_BLOCK = 8192
BLOCK_ELEMENTS = 4096
TOTAL_BLOCK = 128


@dataclass(frozen=True, eq=False)
class Pieces:
    """Entries of a batch in pieces of `size`.

    Attributes:
        order: The entries by latent.
        size: Most entries in a piece.
        owner: Latent of each piece; d_sae for those beyond the last. Int64 (piece).
        ends: Pieces up to and with each latent. Int64 (d_sae).
        counts: Pieces of each latent, at least one. Int64 (d_sae).
        slots: Where the partial sums of a latent with several pieces begin. Int64 (d_sae).
        long: Latents with several pieces, then d_sae. Int64 (at most entries // size).
    """

    order: LatentMajor
    size: int
    owner: Int[Tensor, " piece"]
    ends: Int[Tensor, " d_sae"]
    counts: Int[Tensor, " d_sae"]
    slots: Int[Tensor, " d_sae"]
    long: Int[Tensor, " long"]

    @property
    def n_slots(self) -> int:
        """Partial sums there can be: a latent of n > size entries has less than 2 n / size pieces."""
        return 2 * len(self.long)


_cache: WeakIdKeyDictionary = WeakIdKeyDictionary()


def pieces_of(indices: Int[Tensor, "row width"], d_sae: int) -> Pieces:
    """The pieces of a batch; once per order, so once per `indices` tensor."""
    order = latent_major(indices, d_sae)
    if order not in _cache:
        _cache[order] = _cut(order)
    return _cache[order]


def _cut(order: LatentMajor) -> Pieces:
    n_entries, device = len(order.members), order.offsets.device
    size = max(SMALLEST_PIECE, next_power_of_2(isqrt(n_entries)) // 4)
    counts = ((order.offsets.diff() + size - 1) // size).clamp_min(1)
    ends, several = counts.cumsum(0), counts > 1
    owner = torch.searchsorted(ends, torch.arange(n_entries // size + order.d_sae, device=device), right=True)
    slots = (counts * several).cumsum(0) - counts * several
    long = torch.searchsorted(several.cumsum(0), torch.arange(1, n_entries // size + 1, device=device))
    return Pieces(order, size, owner, ends, counts, slots, long)


@triton.jit
@no_type_check
def entry_kernel(owner_ptr, offsets_ptr, ends_ptr, counts_ptr, slots_ptr, members_ptr, values_ptr, rows_ptr, W_ptr,
                 edges_ptr, out_ptr, partial_ptr, for_values_ptr, d_sae, size, width, d, edge_pitch,
                 EDGES: tl.constexpr, VALUES: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """One piece of a latent: sum of value * row into `out` or `partial`, and <row, W> of each entry.

    `rows` holds one matrix for each group of latents that `edges` bounds, `edge_pitch` elements apart.
    """
    i_piece = tl.program_id(0).to(tl.int64)
    i_latent = tl.load(owner_ptr + i_piece)
    if i_latent < d_sae:
        n_pieces = tl.load(counts_ptr + i_latent)
        nth = i_piece - tl.load(ends_ptr + i_latent) + n_pieces
        begin = tl.load(offsets_ptr + i_latent) + nth * size
        end = tl.minimum(begin + size, tl.load(offsets_ptr + i_latent + 1))
        o_d = tl.program_id(1) * BD + tl.arange(0, BD)
        m_d = o_d < d
        p_rows = rows_ptr + o_d[None, :]
        for i_edge in tl.static_range(EDGES - 1):
            p_rows += tl.where(i_latent >= tl.load(edges_ptr + i_edge), edge_pitch, 0)
        if VALUES:
            b_W = tl.load(W_ptr + i_latent * d + o_d, mask=m_d, other=0.0).to(tl.float32)
        acc = tl.zeros((BD,), tl.float32)
        for start in range(begin, end, BS):
            o_s = start + tl.arange(0, BS)
            members = tl.load(members_ptr + o_s, mask=o_s < end, other=0).to(tl.int64)
            values = tl.load(values_ptr + members, mask=o_s < end, other=0.0).to(tl.float32)
            m_rows = (values != 0.0)[:, None] & m_d[None, :]
            b_rows = tl.load(p_rows + (members // width)[:, None] * d, mask=m_rows, other=0.0).to(tl.float32)
            acc += tl.sum(values[:, None] * b_rows, 0)
            if VALUES:
                shares = tl.where(values != 0.0, tl.sum(b_rows * b_W[None, :], 1), 0.0)
                tl.store(for_values_ptr + members, shares, mask=o_s < end)
        if n_pieces == 1:
            tl.store(out_ptr + i_latent * d + o_d, acc, mask=m_d)
        else:
            tl.store(partial_ptr + (tl.load(slots_ptr + i_latent) + nth) * d + o_d, acc, mask=m_d)


@triton.jit
@no_type_check
def finish_kernel(
    long_ptr, counts_ptr, slots_ptr, partial_ptr, out_ptr, d_sae, d, BS: tl.constexpr, BD: tl.constexpr
):
    """Sum of the partial sums of a latent with several pieces."""
    i_latent = tl.load(long_ptr + tl.program_id(0))
    if i_latent < d_sae:
        n_pieces, first = tl.load(counts_ptr + i_latent), tl.load(slots_ptr + i_latent)
        o_d = tl.program_id(1) * BD + tl.arange(0, BD)
        acc = tl.zeros((BD,), tl.float32)
        for start in range(0, n_pieces, BS):
            o_s = start + tl.arange(0, BS)
            m_s = (o_s < n_pieces)[:, None] & (o_d < d)[None, :]
            acc += tl.sum(
                tl.load(partial_ptr + (first + o_s)[:, None] * d + o_d[None, :], mask=m_s, other=0.0), 0
            )
        tl.store(out_ptr + i_latent * d + o_d, acc, mask=o_d < d)


@triton.jit
@no_type_check
def total_kernel(owner_ptr, offsets_ptr, ends_ptr, counts_ptr, members_ptr, values_ptr, out_ptr, d_sae, size,
                 FIRINGS: tl.constexpr, BS: tl.constexpr):  # fmt: skip
    """Sum of a piece's values, or number of its positive ones, at the piece's place in `out`."""
    i_piece = tl.program_id(0).to(tl.int64)
    i_latent = tl.load(owner_ptr + i_piece)
    if i_latent < d_sae:
        nth = i_piece - tl.load(ends_ptr + i_latent) + tl.load(counts_ptr + i_latent)
        begin = tl.load(offsets_ptr + i_latent) + nth * size
        end = tl.minimum(begin + size, tl.load(offsets_ptr + i_latent + 1))
        acc = tl.zeros((BS,), tl.int32 if FIRINGS else tl.float32)
        for start in range(begin, end, BS):
            o_s = start + tl.arange(0, BS)
            members = tl.load(members_ptr + o_s, mask=o_s < end, other=0).to(tl.int64)
            values = tl.load(values_ptr + members, mask=o_s < end, other=0.0).to(tl.float32)
            if FIRINGS:
                acc += (values > 0.0).to(tl.int32)
            else:
                acc += values
        tl.store(out_ptr + i_piece, tl.sum(acc))


@triton.jit
@no_type_check
def piece_total_kernel(ends_ptr, counts_ptr, pieces_ptr, out_ptr, FIRINGS: tl.constexpr, BS: tl.constexpr):
    """Sum over a latent's pieces of what `total_kernel` left there."""
    i_latent = tl.program_id(0).to(tl.int64)
    n_pieces = tl.load(counts_ptr + i_latent)
    first = tl.load(ends_ptr + i_latent) - n_pieces
    acc = tl.zeros((BS,), tl.int32 if FIRINGS else tl.float32)
    for start in range(0, n_pieces, BS):
        o_s = start + tl.arange(0, BS)
        acc += tl.load(pieces_ptr + first + o_s, mask=o_s < n_pieces, other=0)
    tl.store(out_ptr + i_latent, tl.sum(acc))


def latent_sum(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    rows: Float[Tensor, "row d"],
    d_sae: int,
) -> Float[Tensor, "d_sae d"]:
    """As `reference.latent_sum`, summed in float32. Status: exact; bit-reproducible."""
    return entry_sums(indices, values, rows[None], d_sae, (d_sae,))


def entry_sums(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    rows: Float[Tensor, "group row d"],
    d_sae: int,
    edges: tuple[int, ...],
    W: Float[Tensor, "d_sae d"] | None = None,
    for_values: Float[Tensor, "row width"] | None = None,
) -> Float[Tensor, "d_sae d"]:
    """`latent_sum` of the rows of each latent's own group; latents of group q are below edges[q].

    With W, at most `WIDEST_BLOCK` wide, `for_values` gets <row, W[latent]> of every entry whose value is not 0,
    and 0 of the others. Status: exact; bit-reproducible.
    """
    if W is None and triton_dense.is_full(values, d_sae):
        return triton_dense.entry_sums(indices, values, rows.contiguous(), d_sae, edges)
    pieces, d = pieces_of(indices, d_sae), rows.shape[-1]
    values, rows, order = values.contiguous(), rows.contiguous(), pieces.order
    out, partial = rows.new_empty(d_sae, d), rows.new_empty(pieces.n_slots, d, dtype=torch.float32)
    bounds = constant(edges, rows.device) if len(edges) > 1 else None
    BD = min(next_power_of_2(d), WIDEST_BLOCK)
    options = {"BS": max(1, BLOCK_ELEMENTS // BD), "BD": BD, "num_warps": 4 if BD <= 2048 else 8}
    launch(
        entry_kernel, (len(pieces.owner), -(-d // BD)), pieces.owner, order.offsets, pieces.ends, pieces.counts,
        pieces.slots, order.members, values, rows, W, bounds, out, partial, for_values, d_sae, pieces.size,
        max(1, order.width), d, rows[0].numel(), EDGES=len(edges), VALUES=W is not None, **options,
    )  # fmt: skip
    launch(
        finish_kernel, (len(pieces.long), -(-d // BD)), pieces.long, pieces.counts, pieces.slots, partial, out,
        d_sae, d, **options,
    )  # fmt: skip
    return out


def latent_total(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Float[Tensor, " d_sae"]:
    """As `reference.latent_total`, summed in float32. Status: exact; bit-reproducible."""
    return _totals(indices, values, d_sae, values.new_empty(d_sae), firings=False)


def latent_counts(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Int[Tensor, " d_sae"]:
    """As `reference.latent_counts`. Status: exact."""
    return _totals(indices, values, d_sae, indices.new_empty(d_sae), firings=True)


def _totals(indices: Tensor, values: Tensor, d_sae: int, out: Tensor, *, firings: bool) -> Tensor:
    pieces = pieces_of(indices, d_sae)
    kind = torch.int32 if firings else torch.float32
    parts = torch.empty(len(pieces.owner), dtype=kind, device=values.device)
    options = {"FIRINGS": firings, "BS": TOTAL_BLOCK, "num_warps": 1}
    launch(
        total_kernel, (len(pieces.owner),), pieces.owner, pieces.order.offsets, pieces.ends, pieces.counts,
        pieces.order.members, values.contiguous(), parts, d_sae, pieces.size, **options,
    )  # fmt: skip
    launch(piece_total_kernel, (d_sae,), pieces.ends, pieces.counts, parts, out, **options)
    return out
