"""Public sparse encoding of any number of tokens in pieces that fit a memory budget.

A piece holds its rows (only where they come from an iterator or need moving), its padded code and the code
without padding. The width of a code is known only afterwards, so the first piece is small and each piece is
sized by the widest code seen so far; a piece can exceed the budget only where its code is more than
`HEADROOM` times wider than any before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
FIRST_ROWS = 64
HEADROOM = 2
INDEX_BYTES = 8


@dataclass(frozen=True, eq=False)
class CSR:
    """Codes of many tokens without padding: row r has the entries row_offsets[r] .. row_offsets[r + 1].

    Attributes:
        row_offsets: Where each row's entries begin; the last is their number.
        indices: Latent of each entry, in the order in which the encoder gave them.
        values: Value of each entry, never 0.
    """

    row_offsets: Int64[Tensor, " row_plus_one"]
    indices: Int32[Tensor, " entry"]
    values: Float[Tensor, " entry"]

    def __len__(self) -> int:
        return len(self.row_offsets) - 1

    def row(self, r: int) -> tuple[Int32[Tensor, " entry"], Float[Tensor, " entry"]]:
        """Latents and values of one token."""
        inside = slice(int(self.row_offsets[r]), int(self.row_offsets[r + 1]))
        return self.indices[inside], self.values[inside]


@torch.no_grad()
def encode_csr(
    x: Float[Tensor, "row d_in"] | Iterable[Float[Tensor, "_ d_in"]], encode: Encode, *, memory_bytes: int
) -> CSR:
    """Sparse codes of any number of tokens, with temporary memory of at most about `memory_bytes`.

    The codes equal those of encoding every row alone, for an encoder that treats rows alone (TopK, GroupMax,
    a threshold; not BatchTopK, which chooses across its batch).

    Args:
        x: Rows, or an iterable of batches of rows of any size.
        encode: Rows to (indices, values), padded with value 0.
        memory_bytes: Bound on the code of a piece, padded and not; the result comes on top.

    Raises:
        ValueError: memory_bytes is too small for the code of one row; there is no batch.

    Status: exact.
    """
    pieces = list(_pieces([x] if isinstance(x, Tensor) else x, encode, memory_bytes))
    if not pieces:
        raise ValueError("there is no batch to encode: give at least one, which may be empty")
    counts = torch.cat([counts for counts, _, _ in pieces])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return CSR(offsets, torch.cat([piece[1] for piece in pieces]), torch.cat([piece[2] for piece in pieces]))


def _pieces(
    batches: Iterable[Tensor], encode: Encode, memory_bytes: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Entries per row, latents and values of one piece after another."""
    row_bytes = 0
    for batch in batches:
        start = 0
        while start < len(batch) or (start == 0 and not len(batch)):
            n_rows = max(1, memory_bytes // (HEADROOM * row_bytes)) if row_bytes else FIRST_ROWS
            indices, values = encode(batch[start : start + n_rows])
            row_bytes = max(row_bytes, _row_bytes(indices, values))
            if row_bytes > memory_bytes:
                raise ValueError(
                    f"memory_bytes {memory_bytes} is less than the {row_bytes} that one row's code takes"
                )
            kept = values != 0
            yield kept.sum(1), indices[kept].int(), values[kept]
            start += n_rows


def _row_bytes(indices: Tensor, values: Tensor) -> int:
    """Bytes that one row's code takes at most: padded, its mask, and without padding."""
    padded = INDEX_BYTES + values.element_size() + 1
    return indices.shape[1] * (padded + INDEX_BYTES + values.element_size())
