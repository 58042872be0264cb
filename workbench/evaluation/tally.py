"""What is added up over the text: one tally for each dictionary, and one of what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.errors import UserError
from workbench.evaluation.ends import Ends
from workbench.evaluation.fidelity import (
    BlockSum,
    Ratio,
    SiteSums,
    Spread,
    complement,
    fidelity_figures,
    mean_of,
)
from workbench.evaluation.quality import L0_SHARES, Quality, SiteQuality
from workbench.intervals import UNDEFINED, ratio_estimate

LOSSES = ("ce", "kl")


@dataclass(frozen=True)
class Shared:
    """What all dictionaries of a measurement have in common: the targets, and the runs without a dictionary.

    Attributes:
        ends: Their hook points.
        n_blocks: Blocks of the measurement.
        n_rows: Rows per block.
        spread: Of each target.
        n_predicted: Predictions per block that count; all 0 where no model was run.
        clean: Loss of the clean model per block.
        zero: Loss and divergence per block with a target set to zero.
    """

    ends: Ends
    n_blocks: int
    n_rows: BlockSum
    spread: Mapping[str, Spread]
    n_predicted: BlockSum
    clean: BlockSum
    zero: Mapping[str, Mapping[str, BlockSum]]

    @classmethod
    def start(cls, ends: Ends, n_blocks: int) -> Shared:
        """Nothing counted yet."""
        return cls(
            ends, n_blocks, BlockSum(n_blocks),
            {site.name: Spread(n_blocks, site.width) for site in ends.targets},
            BlockSum(n_blocks), BlockSum(n_blocks), loss_sums(ends, n_blocks),
        )  # fmt: skip

    def add(self, y: Float[Tensor, "row d_out"], block: Int64[Tensor, " row"]) -> None:
        """Take in the targets of some rows."""
        self.n_rows.add(torch.ones(len(y), dtype=torch.float64), block)
        for name, part in self.ends.split(y).items():
            self.spread[name].add(part.double(), block)


def loss_sums(ends: Ends, n_blocks: int) -> dict[str, dict[str, BlockSum]]:
    """Loss and divergence per block, by target."""
    return {site.name: {what: BlockSum(n_blocks) for what in LOSSES} for site in ends.targets}


def counted(
    values: Float[Tensor, "block predicted"], kept: Bool[Tensor, "block pos"]
) -> Float64[Tensor, " block"]:
    """Sum per block over the predictions that are made at judged positions."""
    return values.cpu().double().masked_fill(~kept[:, :-1], 0).sum(1)


class Tally:
    """The sums of one dictionary."""

    def __init__(self, dictionary: Dictionary, shared: Shared) -> None:
        self.dictionary, self.shared = dictionary, shared
        n = shared.n_blocks
        self.sites = {s.name: SiteSums(n, s.width, shared.spread[s.name]) for s in shared.ends.targets}
        self.losses = loss_sums(shared.ends, n)
        self.firings, self._l0 = BlockSum(n), []

    def add(
        self, x: Float[Tensor, "row d_in"], y: Float[Tensor, "row d_out"], block: Int64[Tensor, " row"]
    ) -> dict[str, Tensor]:
        """Take in some rows; returns their reconstruction by target."""
        indices, values = self.dictionary.encode(x)
        n_firings = (values > 0).sum(1).double()
        self.firings.add(n_firings, block)
        self._l0.append(n_firings)
        rebuilt = self.shared.ends.split(self.dictionary.rebuild(x, (indices, values)))
        for name, target in self.shared.ends.split(y).items():
            self.sites[name].add(target, rebuilt[name], block)
        return rebuilt

    def quality(self, seed: int) -> Quality:
        """The figures.

        Raises:
            UserError: there is no row.
        """
        n_rows = self.shared.n_rows.total
        if not float(n_rows.sum()):
            raise UserError(
                "no position of the text passes the filters of the capture (positions, roles, norm limit), so there "
                "is nothing to evaluate: evaluate more blocks"
            )
        names = list(self.sites)
        l0 = ratio_estimate(self.firings.total.numpy(), n_rows.numpy(), seed=seed)
        several = names if len(names) > 1 else []
        return Quality(
            **self._figures(names, seed), **l0.as_dict("l0"), l0_quantiles=self._quantiles(),
            n_tokens=int(n_rows.sum()), n_blocks=self.shared.n_blocks,
            sites={name: SiteQuality(**self._figures([name], seed)) for name in several},
        )  # fmt: skip

    def _quantiles(self) -> tuple[float, ...]:
        shares = torch.tensor(L0_SHARES, dtype=torch.float64)
        return tuple(torch.cat(self._l0).quantile(shares, interpolation="nearest").tolist())

    def _figures(self, names: list[str], seed: int) -> dict[str, float]:
        """Fidelity and losses over some targets."""
        ratios = [self.sites[name].ratios() for name in names]
        merged = {key: mean_of([one[key] for one in ratios]) for key in ratios[0]}
        fidelity = fidelity_figures(merged, seed=seed)
        return {**fidelity, **self._losses(names, seed)} if self.shared.n_predicted.total.any() else fidelity

    def _losses(self, names: list[str], seed: int) -> dict[str, float]:
        """Losses over some targets: the mean of their nats, and the recovered share of their sums."""
        n, clean = float(self.shared.n_predicted.total.sum()), self.shared.clean.total
        zero = {what: sum_of(self.shared.zero, names, what) for what in LOSSES}
        spliced = {what: sum_of(self.losses, names, what) for what in LOSSES}
        worst = {"ce": zero["ce"] - len(names) * clean, "kl": zero["kl"]}
        left = {"ce": spliced["ce"] - len(names) * clean, "kl": spliced["kl"]}
        found = {"ce_nats": float(clean.sum()) / n}
        for what in LOSSES:
            found[f"{what}_zero_nats"] = float(zero[what].sum()) / n / len(names)
            found[f"{what}_spliced_nats"] = float(spliced[what].sum()) / n / len(names)
            defined = (
                float(worst[what].sum()) > 0
            )  # else zeroing does no harm, and there is nothing to recover
            recovered = complement(Ratio(left[what], worst[what]).estimate(seed)) if defined else UNDEFINED
            found |= recovered.as_dict(f"{what}_recovered_frac")
        return found


def sum_of(
    sums: Mapping[str, Mapping[str, BlockSum]], names: list[str], what: str
) -> Float64[Tensor, " block"]:
    """A loss per block, summed over some targets."""
    return torch.stack([sums[name][what].total for name in names]).sum(0)
