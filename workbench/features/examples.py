"""Which firings are shown as a feature's examples.

Quantile 0 holds the top examples: the `n_examples` blocks with the largest peaks (the earlier block among
equals), each shown at its peak. The other quantiles answer the objection that top examples make any feature
look clean (Bolukbasi et al. 2021, arXiv:2104.07143): the feature's firing values are cut into
`n_quantiles − 1` ranges of near-equal numbers of firings, 1 the highest, and each range shows a uniform
random sample of its firings, at most one firing a block, from the blocks that are not among the top. (Two
blocks may hold the same words where a corpus repeats itself; that is the corpus, and is shown.)

The cuts are edges of the histogram grid: cut j is the edge with the number of firings below it nearest to
the share j / (n_quantiles − 1). Membership is therefore exact (an example's value lies in the range of its
quantile) though the text is read once; the price is that the ranges hold equal numbers only to within a bin.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from workbench.features.firings import CANDIDATE, LOW_32, float_order
from workbench.features.sketch import BestPerGroup, rank_in_group
from workbench.features.statistics import N_BINS, histogram_bins, histogram_edges

EXAMPLE = np.dtype(
    [
        ("feature", np.int64),
        ("quantile", np.int8),
        ("rank", np.int16),
        ("block", np.int64),
        ("pos", np.int32),
        ("value", np.float32),
    ]
)
"""One example, before its context is looked up."""


class TopPeaks:
    """The `n_examples` candidates per feature with the largest peaks, the earlier block among equals."""

    def __init__(self, n_features: int, n_examples: int) -> None:
        self._best = BestPerGroup(n_features, n_examples, CANDIDATE)

    def offer(self, made: Shaped[np.ndarray, " candidate"]) -> Shaped[np.ndarray, " lost"]:
        """Offer candidates; returns those that are certainly not among the best."""
        key = (float_order(made["peak_value"]) << np.uint64(32)) | (LOW_32 - made["block"].astype(np.uint64))
        return self._best.offer(made["feature"], key, made)

    def settle(self) -> Shaped[np.ndarray, " lost"]:
        """End of the stream; returns the last losers."""
        return self._best.finish()

    def finish(self) -> Shaped[np.ndarray, " kept"]:
        """The best candidates, ordered by feature, largest peak first."""
        self._best.finish()
        return self._best.best()[1]


class ExampleSketch:
    """Collects candidates in one pass: the best peaks per feature, and draws per histogram bin of the rest."""

    def __init__(self, n_features: int, *, n_examples: int, n_quantile_examples: int) -> None:
        self.n_features, self.n_quantile_examples = n_features, n_quantile_examples
        self._top = TopPeaks(n_features, n_examples)
        self._draws = BestPerGroup(n_features * N_BINS, n_quantile_examples, CANDIDATE)

    def add(self, made: Shaped[np.ndarray, " candidate"]) -> None:
        """Offer the candidates of a batch; each (feature, block) pair may come once."""
        self._offer_draws(self._top.offer(made))

    def _offer_draws(self, lost: Shaped[np.ndarray, " candidate"]) -> None:
        group = lost["feature"] * N_BINS + histogram_bins(lost["draw_value"])
        self._draws.offer(group, lost["priority"], lost)

    def finish(self, cuts: Int64[np.ndarray, "feature cut"]) -> Shaped[np.ndarray, " example"]:
        """The examples as `EXAMPLE` records, ordered by feature, quantile, rank; `cuts` as of `quantile_cuts`."""
        self._offer_draws(self._top.settle())
        self._draws.finish()
        top = self._top.finish()
        shown = _examples(top, top["feature"], 0, top["peak_pos"], top["peak_value"])
        together = np.concatenate([shown, self._sampled(cuts)])
        return together[np.lexsort((together["rank"], together["quantile"], together["feature"]))]

    def _sampled(self, cuts: Int64[np.ndarray, "feature cut"]) -> Shaped[np.ndarray, " example"]:
        """Per (feature, range) the draws with the highest priorities among those of its bins."""
        _, draws = self._draws.best()
        n_ranges = cuts.shape[1] + 1
        quantile = range_of(cuts, draws["feature"], draws["draw_value"])
        merged = BestPerGroup(self.n_features * (n_ranges + 1), self.n_quantile_examples, CANDIDATE)
        merged.offer(draws["feature"] * (n_ranges + 1) + quantile, draws["priority"], draws)
        merged.finish()
        group, draws = merged.best()
        return _examples(draws, group, group % (n_ranges + 1), draws["draw_pos"], draws["draw_value"])


def _examples(
    records: np.ndarray, group: np.ndarray, quantile: np.ndarray | int, pos: np.ndarray, value: np.ndarray
) -> Shaped[np.ndarray, " example"]:
    made = np.empty(len(records), EXAMPLE)
    made["feature"], made["quantile"], made["rank"] = records["feature"], quantile, rank_in_group(group)
    made["block"], made["pos"], made["value"] = records["block"], pos, value
    return made


def quantile_cuts(
    histogram: Int64[np.ndarray, "feature bin"], *, n_quantiles: int
) -> Int64[np.ndarray, "feature cut"]:
    """The `n_quantiles − 2` inner cuts of each feature's firing values, ascending, as edge numbers of the grid."""
    n_ranges = n_quantiles - 1
    below = np.zeros((len(histogram), N_BINS + 1), np.int64)
    np.cumsum(histogram, axis=1, out=below[:, 1:])
    cuts = [np.abs(below * n_ranges - j * below[:, -1:]).argmin(1) for j in range(1, n_ranges)]
    return np.stack(cuts, axis=1) if cuts else np.zeros((len(histogram), 0), np.int64)


def range_of(
    cuts: Int64[np.ndarray, "feature cut"], feature: Int64[np.ndarray, " n"], value: np.ndarray
) -> Int64[np.ndarray, " n"]:
    """The quantile, 1 (highest) to n_quantiles − 1 (lowest), whose range holds each value."""
    return cuts.shape[1] + 1 - (histogram_bins(value)[:, None] >= cuts[feature]).sum(1)


def range_edges(
    cuts: Int64[np.ndarray, "feature cut"], maximum: np.ndarray
) -> Float64[np.ndarray, "feature edge"]:
    """Borders of the ranges in units of activation: 0, the cuts, the maximum; quantile q is [edge −q−1, edge −q).

    The highest range includes its upper border. A range between equal borders is empty. The last border is at
    least the last cut, which lies above the maximum where the highest range is empty.
    """
    inner = histogram_edges().astype(np.float64)[cuts]
    low = np.zeros((len(cuts), 1))
    last = np.concatenate([low, inner], axis=1)[:, -1]
    return np.concatenate([low, inner, np.maximum(maximum.astype(np.float64), last)[:, None]], axis=1)
