"""Percentile bootstrap intervals of ratios of sums, resampled over blocks of text.

Tokens of one block are not independent, so the block is what is drawn. Both sums of a ratio are resampled
with the same draw, as are all statistics of one seed: their intervals are of paired differences.

Reference: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

N_RESAMPLES = 2_000
TAIL = 0.025


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% bootstrap interval; all three are NaN where the ratio is not defined."""

    value: float
    low: float
    high: float


def ratio_interval(
    numerator: Float[Tensor, " block"], denominator: Float[Tensor, " block"], *, seed: int = 0
) -> Interval:
    """sum(numerator) / sum(denominator) with its 95% percentile interval over resampled blocks.

    Args:
        numerator: One sum per block.
        denominator: One sum per block; a total of exactly 0 gives NaN.
        seed: Decides the resamples.

    Status: exact given the resamples; the interval covers sampling of text, not of training seeds.
    """
    generator = torch.Generator().manual_seed(seed)
    n_blocks = len(numerator)
    drawn = torch.randint(n_blocks, (N_RESAMPLES, n_blocks), generator=generator)
    top, bottom = numerator.double(), denominator.double()
    if float(bottom.sum()) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    ratios = top[drawn].sum(1) / bottom[drawn].sum(1)
    low, high = torch.quantile(ratios, torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64)).tolist()
    return Interval(float(top.sum() / bottom.sum()), low, high)
