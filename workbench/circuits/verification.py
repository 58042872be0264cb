"""Predicted against intervened effects: how far first-order attribution can be trusted here.

Every exactly patched node gives one point. The correlation carries a bootstrap interval over prompts and
its control, the same correlation with the nodes' labels shuffled. The embedding is left out of it: its
patch is the whole counterfactual prompt, one point that would decide the correlation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.circuits.nodes import Node
from workbench.intervals import UNDEFINED, Counts, Estimate, Samples, estimate, percentile_interval


@dataclass(frozen=True)
class Agreement:
    """Predicted against intervened effects over nodes, each a mean over prompts.

    Attributes:
        n_nodes: Number of points.
        pearson: Correlation with its interval over prompts.
        spearman: Rank correlation with its interval over prompts.
        slope: Intervened over predicted, through the origin; 1 is unbiased.
        shuffled_pearson: Mean and central 95% of the correlation with shuffled node labels.
    """

    n_nodes: int
    pearson: Estimate
    spearman: Estimate
    slope: Estimate
    shuffled_pearson: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Flat JSON: `pearson`, `pearson_low`, `pearson_high`, ..."""
        flat: dict[str, Any] = {"n_nodes": self.n_nodes}
        for name in ("pearson", "spearman", "slope", "shuffled_pearson"):
            flat |= getattr(self, name).as_dict(name)
        return flat


def compare(
    predicted: np.ndarray, intervened: np.ndarray, *, n_resamples: int = 1000, seed: int = 0
) -> Agreement:
    """Agreement of two (node, prompt) matrices of effects in logits. Status: correlational.

    Intervals are NaN with fewer than 3 nodes, where a correlation says nothing.
    """
    predicted, intervened = predicted.astype(np.float64), intervened.astype(np.float64)

    def over_prompts(statistic: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimate:
        def of_sums(counts: Counts) -> Samples:  # none of the statistics sees that these are no means
            return statistic(counts @ predicted.T, counts @ intervened.T)

        few = len(predicted) < 3
        return UNDEFINED if few else estimate(of_sums, predicted.shape[1], n_resamples=n_resamples, seed=seed)

    shuffled = shuffled_correlations(predicted.mean(1), intervened.mean(1), n_shuffles=n_resamples, seed=seed)
    null = Estimate(float(shuffled.mean()), *percentile_interval(shuffled))
    return Agreement(len(predicted), over_prompts(pearson), over_prompts(spearman), over_prompts(slope), null)


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


def shuffled_correlations(
    predicted: np.ndarray, intervened: np.ndarray, *, n_shuffles: int, seed: int
) -> np.ndarray:
    """Pearson correlations with the nodes' labels permuted: what agreement by chance looks like."""
    if len(predicted) < 3:
        return np.full(n_shuffles, np.nan)
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(len(predicted)), (n_shuffles, 1)), axis=1)
    return pearson(np.broadcast_to(predicted, orders.shape), intervened[orders])


def rows_of(nodes: Sequence[Node], kinds: set[str]) -> list[int]:
    """Indices of the nodes of the given kinds."""
    return [i for i, node in enumerate(nodes) if node.kind in kinds]
