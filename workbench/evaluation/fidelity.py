"""How near a reconstruction is to its target, as sums per block of rows from which ratios and intervals are made.

With y the target, y_hat the reconstruction, e = y - y_hat, and a bar for the mean over all rows:

    fvu                  sum |e|^2 / sum |y - y_bar|^2              fraction of variance unexplained
    explained variance   1 - sum |e - e_bar|^2 / sum |y - y_bar|^2  does not count a constant offset as an error
    nmse                 sum |e|^2 / sum |y|^2                      not the same as fvu where y_bar is not 0
    cosine               mean of <y, y_hat> / (|y| |y_hat|)         direction alone; 0 where one of them is 0
    gamma                sum |y_hat|^2 / sum <y_hat, y>             below 1: the reconstruction is too short

gamma is 1 / alpha of the factor alpha by which y_hat must be multiplied to fit y best. A dictionary of several
sites has each figure at each site, and the mean over its sites as its own: sites differ in scale, and a sum
over their columns would be about the largest.

Sums are float64. Distances from a mean that is known only at the end are taken about the mean of the first
rows, so that nothing is lost by cancellation and no row is kept.

Sources: gamma, Rajamanoharan et al. 2024, arXiv:2404.16014; NMSE, Gao et al. 2024, arXiv:2406.04093.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from workbench.intervals import Estimate, ratio_estimate

Sums = Float64[Tensor, " block"]


@dataclass(frozen=True)
class Ratio:
    """A figure as two sums per block; its value is the one's total over the other's."""

    top: Sums
    bottom: Sums

    def estimate(self, seed: int) -> Estimate:
        """The value with its interval, the blocks resampled."""
        return ratio_estimate(self.top.numpy(), self.bottom.numpy(), seed=seed)


def mean_of(ratios: Sequence[Ratio]) -> Ratio:
    """The mean of several ratios over the same blocks, as one ratio."""
    if len(ratios) == 1:
        return ratios[0]
    scales = [ratio.bottom.sum() for ratio in ratios]
    top = torch.stack([ratio.top / scale for ratio, scale in zip(ratios, scales, strict=True)])
    bottom = torch.stack([ratio.bottom / scale for ratio, scale in zip(ratios, scales, strict=True)])
    return Ratio(top.sum(0), bottom.sum(0))


def complement(estimate: Estimate) -> Estimate:
    """1 minus it."""
    return Estimate(1 - estimate.value, 1 - estimate.high, 1 - estimate.low)


class BlockSum:
    """A sum of numbers (or rows of them) per block."""

    def __init__(self, n_blocks: int, *width: int) -> None:
        self.total = torch.zeros(n_blocks, *width, dtype=torch.float64)

    def add(self, values: Float64[Tensor, "row ..."], block: Int64[Tensor, " row"]) -> None:
        """Add the values of some rows to their blocks."""
        self.total.index_add_(0, block, values)


class Spread:
    """Squared distance of rows from the mean of all rows, per block, without keeping the rows."""

    def __init__(self, n_blocks: int, d: int) -> None:
        self._sum, self._square = BlockSum(n_blocks, d), BlockSum(n_blocks)
        self._n, self._near = BlockSum(n_blocks), torch.zeros(0, dtype=torch.float64)

    def add(self, rows: Float64[Tensor, "row d"], block: Int64[Tensor, " row"]) -> None:
        """Take in some rows."""
        if not len(rows):
            return
        if not len(self._near):
            self._near = rows.mean(0)
        moved = rows - self._near
        self._sum.add(moved, block)
        self._square.add(moved.square().sum(1), block)
        self._n.add(torch.ones(len(rows), dtype=torch.float64), block)

    def about_mean(self) -> Sums:
        """The sums per block."""
        mean = self._sum.total.sum(0) / self._n.total.sum()
        return self._square.total - 2 * self._sum.total @ mean + self._n.total * mean.square().sum()


class SiteSums:
    """The sums of one dictionary at one site; `spread` is the target's, shared by the dictionaries."""

    def __init__(self, n_blocks: int, d: int, spread: Spread) -> None:
        names = ("error", "target", "reconstruction", "dot", "cosine", "n")
        self._sums = {name: BlockSum(n_blocks) for name in names}
        self._residual, self._spread = Spread(n_blocks, d), spread

    def add(
        self, y: Float[Tensor, "row d"], y_hat: Float[Tensor, "row d"], block: Int64[Tensor, " row"]
    ) -> None:
        """Take in some rows."""
        y, y_hat = y.double(), y_hat.double()
        dot, lengths = (y * y_hat).sum(1), y.norm(dim=1) * y_hat.norm(dim=1)
        added = {
            "error": (y - y_hat).square().sum(1),
            "target": y.square().sum(1),
            "reconstruction": y_hat.square().sum(1),
            "dot": dot,
            "cosine": torch.where(lengths > 0, dot / lengths, 0.0),
            "n": torch.ones_like(dot),
        }
        for name, values in added.items():
            self._sums[name].add(values, block)
        self._residual.add(y - y_hat, block)

    def ratios(self) -> dict[str, Ratio]:
        """The figures of the module; `unexplained` is 1 minus the explained variance."""
        total = {name: kept.total for name, kept in self._sums.items()}
        spread = self._spread.about_mean()
        return {
            "fvu": Ratio(total["error"], spread),
            "unexplained": Ratio(self._residual.about_mean(), spread),
            "nmse": Ratio(total["error"], total["target"]),
            "cosine": Ratio(total["cosine"], total["n"]),
            "gamma": Ratio(total["reconstruction"], total["dot"]),
        }


def fidelity_figures(ratios: Mapping[str, Ratio], *, seed: int) -> dict[str, float]:
    """Values and intervals by the names of `quality.Fidelity`."""
    found = {name: ratio.estimate(seed) for name, ratio in ratios.items()}
    found["explained_variance_frac"] = complement(found.pop("unexplained"))
    return {key: value for name, one in found.items() for key, value in one.as_dict(name).items()}
