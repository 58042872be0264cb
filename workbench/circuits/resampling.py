"""Intervals, correlations and their control, all by resampling with a fixed seed.

Prompts are resampled with replacement as multinomial weights, so a bootstrap of any mean is one matrix
product. Intervals are percentile intervals (Efron and Tibshirani 1993).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; the unit is its field's name where it is stored."""

    value: float
    low: float
    high: float

    def as_dict(self, name: str) -> dict[str, float]:
        """`{name: value, name_low: low, name_high: high}`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def prompt_weights(n_prompts: int, *, n_resamples: int, seed: int) -> np.ndarray:
    """Bootstrap weights (resample, prompt), each row summing to 1."""
    counts = np.random.default_rng(seed).multinomial(
        n_prompts, np.full(n_prompts, 1 / n_prompts), n_resamples
    )
    return counts / n_prompts


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The central 95% of the samples; NaN when there is a NaN among them."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def estimate(
    statistic: Callable[[np.ndarray], np.ndarray], n_prompts: int, *, n_resamples: int, seed: int
) -> Estimate:
    """A statistic of prompt weights (row, prompt) -> (row,), at equal weights and with its interval."""
    whole = statistic(np.full((1, n_prompts), 1 / n_prompts))[0]
    weights = prompt_weights(n_prompts, n_resamples=n_resamples, seed=seed)
    return Estimate(float(whole), *interval(statistic(weights)))


def mean_estimate(values: np.ndarray, *, n_resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean over prompts with its interval."""
    return estimate(lambda w: w @ values, len(values), n_resamples=n_resamples, seed=seed)


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row of x with the same row of y; NaN where one is constant."""
    x, y = (a - a.mean(-1, keepdims=True) for a in (np.atleast_2d(x), np.atleast_2d(y)))
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.divide((x * y).sum(-1), size, out=np.full(len(x), np.nan), where=size > 0)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation by row, ties at their average rank."""
    x, y = (pd.DataFrame(np.atleast_2d(a)).rank(axis=1).to_numpy() for a in (x, y))
    return pearson(x, y)


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of y on x through the origin, by row; 1 when the prediction is unbiased."""
    x, y = np.atleast_2d(x), np.atleast_2d(y)
    size = (x**2).sum(-1)
    return np.divide((x * y).sum(-1), size, out=np.full(len(x), np.nan), where=size > 0)
