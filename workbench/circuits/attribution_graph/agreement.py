"""How well predicted effects agree with intervened ones, over the edges (or nodes) of one graph.

Intervals are bootstrap intervals over edges. The control is the same correlation with the edges' labels shuffled:
what agreement by chance looks like. Edges of one graph share nodes, so the intervals are too narrow as statements
about other prompts; over prompts `many.py` gives intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.circuits.verification import shuffled_correlations
from workbench.intervals import UNDEFINED, Counts, Estimate, Samples, estimate, percentile_interval

LEAST_FRAC = 1e-3


@dataclass(frozen=True)
class EdgeAgreement:
    """Predicted against intervened effects.

    Attributes:
        n_effects: Number of pairs.
        pearson: Correlation with its interval over effects.
        shuffled_pearson: Mean and central 95% with shuffled labels.
        median_error_frac: Median of |predicted - intervened| / |intervened| with its interval, over effects of at
            least `LEAST_FRAC` of the largest.
        worst_error_frac: Largest |predicted - intervened| as a share of the largest effect.
    """

    n_effects: int
    pearson: Estimate
    shuffled_pearson: Estimate
    median_error_frac: Estimate
    worst_error_frac: float

    def as_dict(self) -> dict[str, Any]:
        """Flat JSON."""
        flat: dict[str, Any] = {"n_effects": self.n_effects, "worst_error_frac": self.worst_error_frac}
        for name in ("pearson", "shuffled_pearson", "median_error_frac"):
            flat |= getattr(self, name).as_dict(name)
        return flat


def agreement(
    predicted: Float[np.ndarray, " effect"],
    intervened: Float[np.ndarray, " effect"],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> EdgeAgreement:
    """Agreement of two lists of effects. Status: correlational; intervals are NaN below 3 effects."""
    size = float(np.abs(intervened).max(initial=0.0))
    worst = float(np.abs(predicted - intervened).max(initial=0.0)) / size if size > 0 else float("nan")
    if len(predicted) < 3:
        return EdgeAgreement(len(predicted), UNDEFINED, UNDEFINED, UNDEFINED, worst)
    shuffled = shuffled_correlations(predicted, intervened, n_shuffles=n_resamples, seed=seed)
    null = Estimate(float(shuffled.mean()), *percentile_interval(shuffled))
    large = np.abs(intervened) >= LEAST_FRAC * size
    errors = np.abs(predicted - intervened)[large] / np.maximum(
        np.abs(intervened)[large], np.finfo(float).tiny
    )
    given = {"n_resamples": n_resamples, "seed": seed}
    correlation = estimate(_correlation(predicted, intervened), len(predicted), **given)
    return EdgeAgreement(
        len(predicted), correlation, null, estimate(_median(errors), len(errors), **given), worst
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> Any:
    """Pearson's r of effects drawn as often as `counts` says."""

    def statistic(counts: Counts) -> Samples:
        n = counts.sum(1, keepdims=True)
        dx, dy = x - counts @ x[:, None] / n, y - counts @ y[:, None] / n
        top = (counts * dx * dy).sum(1)
        below = np.sqrt((counts * dx**2).sum(1) * (counts * dy**2).sum(1))
        return np.divide(top, below, out=np.full(len(counts), np.nan), where=below > 0)

    return statistic


def _median(values: np.ndarray) -> Any:
    """The lower median of values drawn as often as `counts` says."""
    order = np.argsort(values)

    def statistic(counts: Counts) -> Samples:
        reached = counts[:, order].cumsum(1)
        return values[order][(reached >= reached[:, -1:] / 2).argmax(1)]

    return statistic
