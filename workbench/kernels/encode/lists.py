"""Codes whose rows differ in length: kept as lists per tile until the longest is known, then padded.

Which of several ways is cheapest is decided from a sample of the batch's rows, evenly spaced. The result does
not depend on the sample where the rule chooses by float32 dot products (`select_batch_topk`, sparse
`select_above`); a dense `select_above` takes its values from a float32 matrix product instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels.compiled import array
from workbench.kernels.dense import linear
from workbench.kernels.encode import loops, scoring
from workbench.kernels.encode.screen import Encoder, Proposal, fast_dtype, screen
from workbench.kernels.threads import run

Code = tuple[Int[Tensor, "row width"], Float[Tensor, "row width"]]
SAMPLE_ROWS = 128
DENSE_FRAC = 1 / 25
"""Share of latents above which a float32 product of everything costs less than dot products of the chosen."""


@dataclass
class Lists:
    """Entries of a batch, tile by tile: (rows, latents, values, counts)."""

    tiles: list[tuple[np.ndarray, ...]] = field(default_factory=list)

    def take(self, rows: np.ndarray, latents: np.ndarray, values: np.ndarray, counts: np.ndarray) -> None:
        """Add a tile's lists, trimmed to the longest."""
        width = max(0, int(counts.max(initial=0)))
        self.tiles.append((rows, latents[:, :width].copy(), values[:, :width].copy(), counts))

    def __len__(self) -> int:
        return sum(int(np.maximum(counts, 0).sum()) for *_, counts in self.tiles)

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, latent and value of every entry."""
        inside = [np.arange(t[1].shape[1]) < t[3][:, None] for t in self.tiles]
        row = np.concatenate([np.repeat(t[0], np.maximum(t[3], 0)) for t in self.tiles])
        latent, value = (
            np.concatenate([t[i][m] for t, m in zip(self.tiles, inside, strict=True)]) for i in (1, 2)
        )
        return row, latent, value

    def padded(self, n_rows: int, *, by_value: bool) -> Code:
        """The code of the batch; every row must have been taken once."""
        width = max([1, *(int(t[3].max(initial=0)) for t in self.tiles)])
        indices, values = torch.empty(n_rows, width, dtype=torch.int64), torch.empty(n_rows, width)
        out = (by_value, indices.numpy(), values.numpy())
        run(
            lambda rows, latents, computed, counts: scoring.write_lists(
                latents, computed, counts, rows, *out
            ),
            self.tiles,
        )
        return indices, values


def sample_rows(n_rows: int) -> np.ndarray:
    """Evenly spaced rows of a batch."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, SAMPLE_ROWS)).astype(np.int64))


def select_above(encoder: Encoder, threshold: Float[Tensor, " d_sae"]) -> Code:
    """All values above their threshold, by ascending latent. Status: exact."""
    lists, edges = Lists(), array(threshold)
    mean_count = _mean_count(encoder, edges)
    if mean_count > DENSE_FRAC * encoder.d_sae:
        _dense_above(encoder, edges, lists)
        return lists.padded(len(encoder.x), by_value=False)

    def list_latents(given: tuple, latents: np.ndarray, lows: np.ndarray, counts: np.ndarray) -> None:
        loops.propose_above(*given, edges, latents, counts)

    def take(rows: np.ndarray, latents: np.ndarray, values: np.ndarray, counts: np.ndarray) -> None:
        scoring.keep_above(latents, values, counts, edges)
        lists.take(rows, latents, values, counts)

    screen(encoder, min(encoder.d_sae, 256 + 4 * int(mean_count)), list_latents, take)
    return lists.padded(len(encoder.x), by_value=False)


def _mean_count(encoder: Encoder, threshold: np.ndarray) -> float:
    """Mean number of latents that a sampled row proposes."""
    rows = sample_rows(len(encoder.x))
    proposal, counts = Proposal(encoder, rows, fast_dtype()), np.zeros(len(rows), np.int64)
    latents = np.empty((len(rows), encoder.d_sae), np.int32)
    proposal.tile(0, len(rows), lambda given: loops.propose_above(*given, threshold, latents, counts))
    return float(counts.mean())


def _dense_above(encoder: Encoder, threshold: np.ndarray, lists: Lists) -> None:
    """Values by a float32 product of everything, then the entries above."""

    def work(start: int, stop: int) -> None:
        products = linear(encoder.x[start:stop], encoder.rows).numpy()
        latents = np.empty((stop - start, encoder.d_sae + 1), np.int32)
        values, counts = np.empty(latents.shape, np.float32), np.empty(stop - start, np.int64)
        scoring.list_above(products, array(encoder.bias), threshold, latents, values, counts)
        lists.take(np.arange(start, stop), latents, values, counts)

    run(work, encoder.tiles(len(encoder.x)))


def select_batch_topk(encoder: Encoder, n_keep: int) -> Code:
    """The n_keep largest positive values of the batch. Status: exact.

    A guess of the smallest value kept, from a sample, says which latents are worth computing. It is right if
    n_keep values reach it, because a latent that was not listed has a smaller value; else a lower one follows.
    """
    n_rows = len(encoder.x)
    if not n_rows or not n_keep:
        return torch.zeros(n_rows, 1, dtype=torch.int64), torch.zeros(n_rows, 1)
    lists = Lists()
    for guess in _guesses(encoder, n_keep):
        lists = _at_least(encoder, guess, 256 + 16 * -(-n_keep // n_rows))
        if len(lists) >= n_keep:
            break
    _keep_best(lists, n_keep)
    return lists.padded(n_rows, by_value=True)


def _guesses(encoder: Encoder, n_keep: int) -> list[float]:
    """Falling guesses of the smallest value kept; the last is 0."""
    rows = sample_rows(len(encoder.x))
    latents = np.empty((len(rows), encoder.d_sae), np.int32)
    lows, counts = np.empty(latents.shape, np.float32), np.zeros(len(rows), np.int64)
    proposal = Proposal(encoder, rows, fast_dtype())
    given = (0, np.float32(0), min(256, encoder.d_sae), latents, lows, counts)
    proposal.tile(0, len(rows), lambda leading: loops.propose_largest(*leading, *given))
    found = np.sort(lows[np.arange(encoder.d_sae) < counts[:, None]])[::-1]
    expected = n_keep * len(rows) / len(encoder.x)
    ranks = [int(share * expected + 4 * expected**0.5 + 4) for share in (1.1, 2, 8)]
    return [*(float(max(found[rank], 0)) for rank in ranks if rank < len(found)), 0.0]


def _at_least(encoder: Encoder, guess: float, room: int) -> Lists:
    """Lists of all positive values that reach the guess."""
    lists, at_least = Lists(), np.float32(guess)
    below = np.full(encoder.d_sae, max(np.nextafter(at_least, np.float32(-1)), np.float32(0)), np.float32)

    def list_latents(given: tuple, latents: np.ndarray, lows: np.ndarray, counts: np.ndarray) -> None:
        loops.propose_largest(*given, 0, at_least, min(256, encoder.d_sae), latents, lows, counts)

    def take(rows: np.ndarray, latents: np.ndarray, values: np.ndarray, counts: np.ndarray) -> None:
        scoring.keep_above(latents, values, counts, below)
        lists.take(rows, latents, values, counts)

    screen(encoder, min(encoder.d_sae, room), list_latents, take)
    return lists


def _keep_best(lists: Lists, n_keep: int) -> None:
    """Cut the lists to the n_keep largest values; of equal ones the lower row, then the lower latent stays."""
    row, latent, value = lists.entries()
    if len(value) <= n_keep:
        return
    edge = np.partition(value, len(value) - n_keep)[len(value) - n_keep]
    tied = np.flatnonzero(value == edge)
    n_tied = n_keep - int((value > edge).sum())
    last = tied[np.lexsort((latent[tied], row[tied]))[n_tied - 1]]
    for rows, latents, values, counts in lists.tiles:
        scoring.keep_best(latents, values, counts, rows, edge, row[last], latent[last])
