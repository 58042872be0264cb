"""Low-precision copies of rows, and a proven bound on what a product with them is off by.

The proposal for latent j of row r is p = <x~, w~> in bfloat16 with float32 sums, rounded to bfloat16. The value
that decides is e = <x, w> + b, a float32 dot product in a fixed order. With u = 2^-24 and n = d_in:

    |<x, w> - <x~, w~>| <= |x - x~| |w| + |x~| |w - w~|                         Cauchy-Schwarz
    rounding of the two sums       <= (n + 16) u (|x~| |w~| + |x| |w|)          Higham 2002, section 3.1
    rounding of p to bfloat16      <= 2^-8 |p|,  of p + b and e:  <= 2 u (|p + b| + ...)
    numbers flushed to zero        <= n 2^-126 (2 + |x| + |w|)
    squares flushed in the norms   <= 4 sqrt(n) 2^-63 (|x| + |w|)

The norms of the residuals x - x~ are computed exactly as they are, not from their worst case 2^-8 |x|. With
kappa = max_j |w_j - w~_j| / |w_j| all of it is

    |e - (p + b)| <= slope |p| + 2^-21 |p + b| + c_r |w_j| + floor_r

so that one multiply-add per pre-activation gives a lower and an upper end of e (`loops.py`). In float32 the
proposal has no residuals, and slope is that of one rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.kernels.compiled import array
from workbench.kernels.encode import scoring
from workbench.kernels.threads import ranges, run

UNIT = 2.0**-24
SMALLEST = 2.0**-126
NORM_SLACK = np.float32(1 + 2.0**-9)
"""Covers the rounding of the norms themselves, for d_in up to 2**14 or so: each is a float32 sum in lanes."""
SLOPE = {torch.bfloat16: 2.0**-8 * (1 + 2.0**-7), torch.float32: 2.0**-22}
ROWS_A_PART = 256


@dataclass(frozen=True, eq=False)
class Rounded:
    """Rows in the proposal's precision with what rounding them lost.

    Attributes:
        low: The rows, rounded (row, d_in).
        norm: Norm of each row as given, rounded up; squares below 2^-126 may be missing (row).
        lost: Norm of each row's rounding residual, likewise (row).
    """

    low: Tensor
    norm: np.ndarray
    lost: np.ndarray


def rounded(rows: Tensor, dtype: torch.dtype) -> Rounded:
    """The rows in bfloat16 (round to nearest even) or as they are, with their norms. Status: exact bounds."""
    norm, lost = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    source, bits = array(rows), np.empty((0, 0), np.uint16)
    if dtype == torch.bfloat16:
        bits = np.empty(source.shape, np.uint16)
    run(scoring.round_rows, [(source, bits, norm, lost, *part) for part in ranges(len(rows), ROWS_A_PART)])
    low = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16) if dtype == torch.bfloat16 else rows
    return Rounded(low, norm * NORM_SLACK, lost * NORM_SLACK)


@dataclass(frozen=True, eq=False)
class Margin:
    """The bound slope |p| + 2^-21 |p + b| + row[r] * norm[j] + floor[r] on |e - (p + b)|.

    Attributes:
        slope: Share of the proposal that its own rounding may lose.
        norm: Norm of each latent's row (d_sae).
        row: c_r of each row.
        floor: Absolute part of each row, for numbers flushed to zero.
    """

    slope: float
    norm: np.ndarray
    row: np.ndarray
    floor: np.ndarray


def margin(x: Rounded, w: Rounded, bias: np.ndarray) -> Margin:
    """The bound for every pair of a row and a latent; NaN, which certifies nothing, if a factor is not finite.

    Status: exact bound.
    """
    n, largest = x.low.shape[1], np.max(w.norm, initial=0)
    kappa = np.max(np.divide(w.lost, w.norm, out=np.zeros_like(w.lost), where=w.norm > 0), initial=0)
    kappa = kappa if np.isfinite(largest) and not np.isnan(bias).any() else np.float32(np.nan)
    row = x.lost + (kappa + np.float32((n + 16) * 4 * UNIT)) * (x.norm + x.lost)
    unseen = np.float32(4 * n**0.5 * SMALLEST**0.5) * (x.norm + largest + np.float32(SMALLEST**0.5))
    floor = unseen + np.float32(n * SMALLEST) * (2 + x.norm + largest)
    return Margin(SLOPE[x.low.dtype], w.norm, row, floor)
