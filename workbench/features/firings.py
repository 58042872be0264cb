"""Firings of one batch, and what each block of text offers to a feature's examples.

A firing is a positive value of a latent at a position. The unit of an example is the pair (feature, block):
a block of text is offered to a feature once, with two of its firings, and appears among the feature's
examples at most once, so that a list of examples is never one passage repeated.

* the **peak**: the block's largest value, the earliest among equals;
* the **draw**: the block's firing with the highest priority, where the priority of a firing is a fixed
  pseudo-random 64-bit number of (seed, feature, block, position).

Going through all firings by falling priority is going through them in random order, so keeping one draw per
block is: shuffle the firings, keep the first of each block. Priorities depend on nothing but the firing
itself: not on batch sizes, not on the order of reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64, Num, Shaped, UInt64

CANDIDATE = np.dtype(
    [
        ("feature", np.int64),
        ("block", np.int64),
        ("peak_pos", np.int32),
        ("peak_value", np.float32),
        ("draw_pos", np.int32),
        ("draw_value", np.float32),
        ("priority", np.uint64),
    ]
)
"""One (feature, block) pair; blocks are numbered through the whole store."""

LOW_32 = np.uint64(0xFFFFFFFF)
SPARSE = 16
"""Cells per firing above which the cells are numbered anew."""


@dataclass(frozen=True)
class Firings:
    """Positive values of a batch of whole blocks, in the order of the text.

    Attributes:
        feature: Latent.
        block: Block, numbered through the whole store.
        pos: Position in the block.
        value: Activation, above zero.
    """

    feature: Int64[np.ndarray, " firing"]
    block: Int64[np.ndarray, " firing"]
    pos: Int32[np.ndarray, " firing"]
    value: Float32[np.ndarray, " firing"]


def firings_from_code(
    indices: Num[np.ndarray, "row k"],
    values: Float32[np.ndarray, "row k"],
    block: Int64[np.ndarray, " row"],
    pos: Int32[np.ndarray, " row"],
) -> Firings:
    """The firings of a sparse code: its entries above zero, row by row."""
    row, column = np.nonzero(values > 0)
    return Firings(indices[row, column].astype(np.int64), block[row], pos[row], values[row, column])


def float_order(values: Float32[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Unsigned integers in the order of non-negative floats: their bit patterns."""
    return np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)


def priorities(firings: Firings, *, n_features: int, n_ctx: int, seed: int) -> UInt64[np.ndarray, " firing"]:
    """A pseudo-random 64-bit number per firing; different firings have different numbers.

    SplitMix64's output function (Steele et al. 2014, doi:10.1145/2660193.2660195) of the firing's running
    number plus a seeded offset. The function is a bijection of 64-bit integers, hence no ties.
    """
    number = (firings.block * n_ctx + firings.pos).astype(np.uint64) * np.uint64(n_features)
    offset = np.uint64(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    with np.errstate(over="ignore"):
        z = number + firings.feature.astype(np.uint64) + offset
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def candidates(
    firings: Firings, *, n_features: int, n_ctx: int, seed: int
) -> Shaped[np.ndarray, " candidate"]:
    """Peak and draw of every (feature, block) pair that fires, as `CANDIDATE` records.

    A block must lie in one batch with all its rows. Two scatter-maxima over (block, feature) cells; where most
    cells are empty (short blocks) those that fire are numbered first, which takes a sort.
    """
    if not len(firings.value):
        return np.empty(0, CANDIDATE)
    cell = (firings.block - firings.block[0]) * n_features + firings.feature
    if int(cell.max()) > SPARSE * len(cell):
        cell = np.unique(cell, return_inverse=True)[1]
    n_cells = int(cell.max()) + 1
    peak = _peaks(cell, firings.value, n_cells)
    priority = priorities(firings, n_features=n_features, n_ctx=n_ctx, seed=seed)
    best = np.zeros(n_cells, np.uint64)
    np.maximum.at(best, cell, priority)
    draw = np.flatnonzero(priority == best[cell])
    draw = draw[np.argsort(cell[draw], kind="stable")]
    made = np.empty(len(peak), CANDIDATE)
    made["feature"], made["block"] = firings.feature[peak], firings.block[peak]
    made["peak_pos"], made["peak_value"] = firings.pos[peak], firings.value[peak]
    made["draw_pos"], made["draw_value"] = firings.pos[draw], firings.value[draw]
    made["priority"] = priority[draw]
    return made


def _peaks(
    cell: Int64[np.ndarray, " firing"], value: Float32[np.ndarray, " firing"], n_cells: int
) -> Int64[np.ndarray, " candidate"]:
    """Index of the largest firing of each cell that fires, earliest among equals, in the order of the cells."""
    number = np.arange(len(cell), dtype=np.uint64)
    best = np.zeros(n_cells, np.uint64)
    np.maximum.at(best, cell, (float_order(value) << np.uint64(32)) | (LOW_32 - number))
    best = best[best > 0]
    return (LOW_32 - (best & LOW_32)).astype(np.int64)
