"""Moments and histogram of every latent's firing values, updated batch by batch.

Moments are merged in float64 by the pairwise formulas for central sums, which do not cancel as raw sums do
(Chan et al. 1983; Pébay 2008, SAND2008-6212). They agree with a two-pass computation to rounding.

The histogram has one fixed grid for every latent, dictionary and run: sixteen bins an octave from 2^-10 to
2^18, the first bin reaching down to 0 and the last up to infinity, so every firing is in exactly one bin,
counts add up to the number of firings, and histograms of different runs can be added and compared.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64

BINS_PER_OCTAVE = 16
FIRST_OCTAVE, LAST_OCTAVE = -10, 18
N_BINS = BINS_PER_OCTAVE * (LAST_OCTAVE - FIRST_OCTAVE)


def histogram_edges() -> Float32[np.ndarray, " edges"]:
    """Edges of the grid, `N_BINS + 1` of them: 0, then log-spaced, then infinity; bin i is [edge i, edge i+1)."""
    octaves = FIRST_OCTAVE + np.arange(N_BINS + 1) / BINS_PER_OCTAVE
    edges = np.exp2(octaves).astype(np.float32)
    edges[0], edges[-1] = 0, np.inf
    return edges


def histogram_bins(value: Float32[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The bin of each value."""
    return np.searchsorted(histogram_edges(), value, side="right") - 1


class FeatureStatistics:
    """Count, central sums, maximum and histogram of each latent; zeros are not firings and do not enter.

    Attributes:
        n_fired: Firings (feature).
        histogram: Firings per bin (feature, bin).
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.n_fired = np.zeros(n_features, np.int64)
        self.histogram = np.zeros((n_features, N_BINS), np.int64)
        self._max = np.zeros(n_features, np.float32)
        self._mean, self._m2, self._m3, self._m4 = np.zeros((4, n_features))

    def update(self, feature: Int64[np.ndarray, " firing"], value: Float32[np.ndarray, " firing"]) -> None:
        """Add firings."""
        np.maximum.at(self._max, feature, value)
        np.add.at(self.histogram.ravel(), feature * N_BINS + histogram_bins(value), 1)
        self._merge_moments(feature, value.astype(np.float64))

    def _merge_moments(
        self, feature: Int64[np.ndarray, " firing"], value: Float64[np.ndarray, " firing"]
    ) -> None:
        """Central sums of the batch, then the pairwise update (Pébay 2008, eqs. 1.5 to 2.1)."""

        def total(weights: np.ndarray) -> np.ndarray:
            return np.bincount(feature, weights, self.n_features)

        n_b = np.bincount(feature, minlength=self.n_features)
        mean_b = total(value) / np.maximum(n_b, 1)
        off = value - mean_b[feature]
        square = off * off
        b2, b3, b4 = total(square), total(square * off), total(square * square)
        n_a, n = self.n_fired, np.maximum(self.n_fired + n_b, 1)
        d, w_a, w_b = (mean_b - self._mean) * (n_b > 0), n_a / n, n_b / n
        a2, a3 = self._m2, self._m3
        cross = n_a * w_b
        self._m4 = self._m4 + b4 + d**4 * cross * (w_a**2 - w_a * w_b + w_b**2)
        self._m4 += 6 * d**2 * (w_a**2 * b2 + w_b**2 * a2) + 4 * d * (w_a * b3 - w_b * a3)
        self._m3 = a3 + b3 + d**3 * cross * (w_a - w_b) + 3 * d * (w_a * b2 - w_b * a2)
        self._m2 = a2 + b2 + d**2 * cross
        self._mean = self._mean + d * w_b
        self.n_fired = n_a + n_b

    @property
    def max(self) -> Float32[np.ndarray, " feature"]:
        """Largest firing value; 0 where the latent never fired."""
        return self._max

    @property
    def mean(self) -> Float64[np.ndarray, " feature"]:
        """Mean of the firing values; NaN where the latent never fired."""
        return np.where(self.n_fired > 0, self._mean, np.nan)

    @property
    def std(self) -> Float64[np.ndarray, " feature"]:
        """Population standard deviation of the firing values; NaN where the latent never fired."""
        return np.sqrt(self._per_firing(self._m2))

    @property
    def skew(self) -> Float64[np.ndarray, " feature"]:
        """Population skewness m3 / m2^1.5; NaN where all firing values are equal."""
        return self._standardised(self._m3, 1.5)

    @property
    def kurtosis(self) -> Float64[np.ndarray, " feature"]:
        """Population excess kurtosis m4 / m2² − 3; NaN where all firing values are equal."""
        return self._standardised(self._m4, 2.0) - 3

    def _per_firing(self, sums: np.ndarray) -> np.ndarray:
        return np.where(self.n_fired > 0, sums, np.nan) / np.maximum(self.n_fired, 1)

    def _standardised(self, sums: np.ndarray, power: float) -> np.ndarray:
        """Central moment over variance^power, NaN where the spread is rounding only."""
        variance = self._per_firing(self._m2)
        spread = variance > (1e-7 * self._mean) ** 2
        return np.where(spread, self._per_firing(sums), np.nan) / np.where(spread, variance, 1) ** power
