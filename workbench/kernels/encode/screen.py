"""The passes of encode-and-select: propose a tile, list, compute the listed values, take; again for what is left.

Each pass proposes in a higher precision the rows that the one before could not settle; the last lists every
latent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.kernels.compiled import array
from workbench.kernels.dense import linear, packed
from workbench.kernels.encode import bounds, scoring
from workbench.kernels.threads import ranges, run

TILE_ROWS, TILE_ELEMENTS, BLOCK_LATENTS = 128, 1 << 20, 64
NO_BITS, NO_TILE = np.empty((0, 0), np.uint16), np.empty((0, 0), np.float32)

List = Callable[[tuple, np.ndarray, np.ndarray, np.ndarray], None]
Take = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


@cache
def fast_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it faster than float32, else float32."""
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast and torch.backends.mkldnn.is_available() else torch.float32


@dataclass(frozen=True, eq=False)
class Encoder:
    """What every pass computes with: centred rows, one encoder row per latent, biases."""

    x: Float[Tensor, "row d_in"]
    rows: Float[Tensor, "d_sae d_in"]
    bias: Float[Tensor, " d_sae"]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return len(self.rows)

    def tiles(self, n_rows: int) -> list[tuple[int, int]]:
        """Ranges of rows whose pre-activations stay in the cache."""
        return ranges(n_rows, max(TILE_ROWS, TILE_ELEMENTS // max(1, self.d_sae)))


class Proposal:
    """Approximate products of some rows with all latents, and the bound on what they are off by."""

    def __init__(self, encoder: Encoder, rows: np.ndarray, dtype: torch.dtype) -> None:
        x = encoder.x if len(rows) == len(encoder.x) else encoder.x[torch.from_numpy(rows)]
        self.encoder, self.tiles = encoder, encoder.tiles(len(rows))
        x_low, w_low = bounds.rounded(x, dtype), bounds.rounded(encoder.rows, dtype)
        self.x, self.margin = x_low.low, bounds.margin(x_low, w_low, array(encoder.bias))
        self.w = packed(w_low.low) if dtype == torch.bfloat16 else w_low.low

    def tile(self, start: int, stop: int, use: Callable[[tuple], None]) -> None:
        """Call `use` with the leading arguments of the proposal loops: products, biases and bound of a tile."""
        products, bits, m = linear(self.x[start:stop], self.w), NO_BITS, self.margin
        if products.dtype == torch.bfloat16:
            bits, products = products.view(torch.int16).numpy().view(np.uint16), NO_TILE
        rest = (array(self.encoder.bias), m.norm, np.float32(m.slope), m.row[start:stop], m.floor[start:stop])
        use((bits, np.asarray(products), *rest))


def screen(encoder: Encoder, room: int, list_latents: List, take: Take) -> None:
    """List, compute and take for every row, by the cheapest pass that can settle it.

    `list_latents(arguments, latents, lows, counts)` fills the lists of a tile, `take(rows, latents, values,
    counts)` chooses among them; a length of -1 leaves the row to the next pass. `room` is the longest list
    that pays in the first pass.
    """
    left = np.arange(len(encoder.x))
    if room < encoder.d_sae:
        for dtype in dict.fromkeys((fast_dtype(), torch.float32)):
            left = _proposed_pass(encoder, left, dtype, room, list_latents, take) if len(left) else left
            room = min(4 * room, encoder.d_sae)
    if len(left):
        whole_pass(encoder, left, take)


def _proposed_pass(
    encoder: Encoder, rows: np.ndarray, dtype: torch.dtype, room: int, list_latents: List, take: Take
) -> np.ndarray:
    """Propose these rows in a precision; return those that it did not settle."""
    proposal, settled = Proposal(encoder, rows, dtype), np.zeros(len(rows), bool)

    def work(start: int, stop: int) -> None:
        latents, lows = np.empty((stop - start, room), np.int32), np.empty((stop - start, room), np.float32)
        counts = np.empty(stop - start, np.int64)
        proposal.tile(start, stop, lambda arguments: list_latents(arguments, latents, lows, counts))
        score(encoder, rows[start:stop], latents, counts, lows)
        settled[start:stop] = counts >= 0
        take(rows[start:stop], latents, lows, counts)

    run(work, proposal.tiles)
    return rows[~settled]


def score(
    encoder: Encoder, rows: np.ndarray, latents: np.ndarray, counts: np.ndarray, values: np.ndarray
) -> None:
    """Write the float32 values of listed latents of these rows into `values`."""
    scoring.score(array(encoder.x), array(encoder.rows), array(encoder.bias), rows, latents, counts, values)


def whole_pass(encoder: Encoder, rows: np.ndarray, take: Take) -> None:
    """Compute every latent of these rows and take, tile by tile."""

    def work(start: int, stop: int) -> None:
        latents, values = whole(encoder, rows[start:stop])
        take(rows[start:stop], latents, values, np.full(stop - start, encoder.d_sae))

    run(work, encoder.tiles(len(rows)))


def whole(encoder: Encoder, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All latents and float32 values of these rows, block of latents by block so that encoder rows stay cached."""
    latents = np.empty((len(rows), encoder.d_sae), np.int32)
    latents[:] = np.arange(encoder.d_sae)
    values = np.empty(latents.shape, np.float32)
    for first in range(0, encoder.d_sae, BLOCK_LATENTS):
        last = min(first + BLOCK_LATENTS, encoder.d_sae)
        block = np.ascontiguousarray(latents[:, first:last])
        computed = np.empty(block.shape, np.float32)
        score(encoder, rows, block, np.full(len(rows), last - first), computed)
        values[:, first:last] = computed
    return latents, values
