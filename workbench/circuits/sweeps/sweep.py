"""The result of a sweep: one effect a cell and prompt, with the names of the cells and how they were computed.

    noising      effect = m(clean) - m(clean with the cell's counterfactual value)
    denoising    effect = m(counterfactual with the cell's clean value) - m(counterfactual)

In both directions a positive effect says that the cell's clean value helps the answer. `first-order` and
`integrated` are estimates of the same quantity; `beside` puts them next to each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.metric import METRIC
from workbench.errors import UserError, nearest
from workbench.intervals import N_RESAMPLES, TAIL

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = ("noising", "denoising")
METHODS = ("exact", "first-order", "integrated")
ROWS_PER_CHUNK = 4096


@dataclass(frozen=True)
class Sweep:
    """Effects of cells on the logit difference, in logits; positive helps the answer.

    Attributes:
        effects: Effect by cell, one axis per name in `axes`, then the prompts.
        axes: Names of the cells' axes ("layer", "pos", "head", "neuron", "feature").
        labels: Names along each axis.
        kind: What was replaced.
        method: One of `METHODS`.
        direction: One of `DIRECTIONS`.
        positions: "single" for one position a cell, "all" for every position at once.
        clean_logits: m of the clean prompts.
        counterfactual_logits: m of the counterfactual prompts, with the clean answers.
        quadrature: Rule of the integrated gradients, "" for other methods.
        gap_logits: Integrated gradients: what the cells of one layer (or dictionary) sum to, minus the exact effect
            of replacing them together (layer, prompt).
    """

    effects: Float[Tensor, "*cells prompt"]
    axes: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    kind: str
    method: str
    direction: str
    positions: str
    clean_logits: Float[Tensor, " prompt"]
    counterfactual_logits: Float[Tensor, " prompt"]
    quadrature: str = ""
    gap_logits: Float[Tensor, "layer prompt"] | None = None

    unit = "logits"
    metric = METRIC

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return math.prod(len(values) for values in self.labels)

    @property
    def protocol(self) -> str:
        """How a cell was replaced, in words."""
        how = f"{self.method}, {self.direction} from the paired prompt, {self.positions} positions"
        return f"{how}, {self.quadrature}" if self.quadrature else how

    @property
    def mean_logits(self) -> Float[Tensor, "*cells"]:
        """Mean effect of each cell over prompts."""
        return self.effects.mean(-1)

    @property
    def completeness_gap_logits(self) -> float:
        """Mean absolute completeness gap over layers and prompts; NaN where the method has none."""
        return float("nan") if self.gap_logits is None else float(self.gap_logits.abs().mean())

    def share_frac(self) -> Float[Tensor, "*cells"]:
        """Mean effect over the mean difference m(clean) - m(counterfactual) of the pairs; 1 moves all of it.

        Raises:
            UserError: the pairs do not differ in m.
        """
        whole = float((self.clean_logits - self.counterfactual_logits).mean())
        if whole == 0:
            raise UserError(
                "the pairs have a mean m(clean) - m(counterfactual) of 0: there is no share of it"
            )
        return self.mean_logits / whole

    def table(self, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> pd.DataFrame:
        """One row a cell: its labels, `effect_logits` with a 95% bootstrap interval over prompts, `n_prompts`.

        Args:
            n_resamples: Bootstrap resamples.
            seed: Decides the resamples; cells share them.
        """
        import pandas as pd

        rows = self.effects.reshape(self.n_cells, -1).double().cpu().numpy()
        cells = itertools.product(*self.labels)
        table = pd.DataFrame(list(cells), columns=list(self.axes))
        low, high = _intervals(rows, n_resamples=n_resamples, seed=seed)
        found = table.assign(
            effect_logits=rows.mean(1),
            effect_logits_low=low,
            effect_logits_high=high,
            n_prompts=rows.shape[1],
        )
        found.attrs = {"kind": self.kind, "protocol": self.protocol, "metric": self.metric, "unit": self.unit}
        if self.gap_logits is not None:
            found.attrs["completeness_gap_logits"] = self.completeness_gap_logits
        return found

    def grid(self) -> pd.DataFrame:
        """Mean effects as a matrix for a heat map: first axis down, last axis across, those between in the rows.

        Raises:
            UserError: the sweep has one axis only.
        """
        import pandas as pd

        if len(self.axes) < 2:
            raise UserError(f"a sweep over {', '.join(self.axes)!r} alone is no grid: use table()")
        rows = pd.MultiIndex.from_product(self.labels[:-1], names=self.axes[:-1])
        rows = rows if len(self.axes) > 2 else rows.get_level_values(0)
        values = self.mean_logits.reshape(len(rows), -1).cpu().numpy()
        return pd.DataFrame(values, index=rows, columns=pd.Index(self.labels[-1], name=self.axes[-1]))

    def largest(self, n: int) -> list[tuple[int, ...]]:
        """Labels of the `n` cells of largest absolute mean effect, largest first."""
        order = self.mean_logits.flatten().abs().argsort(descending=True, stable=True)[:n]
        cells = list(itertools.product(*self.labels))
        return [cells[i] for i in order.tolist()]


def beside(sweeps: Mapping[str, Sweep]) -> pd.DataFrame:
    """Mean effects of several sweeps of the same cells, one column each, in logits.

    Raises:
        UserError: none, or sweeps whose cells differ.
    """
    import pandas as pd

    if not sweeps:
        raise UserError("no sweep was given to be put beside others: give at least one")
    first = next(iter(sweeps.values()))
    for name, sweep in sweeps.items():
        if (sweep.axes, sweep.labels) != (first.axes, first.labels):
            raise UserError(
                f"sweep {name!r} has other cells than {next(iter(sweeps))!r}: sweep the same units"
            )
    table = pd.DataFrame(list(itertools.product(*first.labels)), columns=list(first.axes))
    return table.assign(**{name: s.mean_logits.flatten().cpu().numpy() for name, s in sweeps.items()})


def check_option(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is not among the known ones.

    Raises:
        UserError: it is not.
    """
    if value not in known:
        raise UserError(f"{name} {value!r} is not known; {nearest(value, known)}")


def _intervals(
    rows: Float[np.ndarray, "cell prompt"], *, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of every row's mean, all rows on the same resamples of prompts."""
    n_prompts = rows.shape[1]
    if n_resamples < 1:
        raise UserError(f"n_resamples {n_resamples} gives no interval: give at least 1, better 1,000")
    share = np.full(n_prompts, 1 / n_prompts)
    counts = np.random.default_rng(seed).multinomial(n_prompts, share, size=n_resamples).astype(np.float64)
    chunks = [rows[start : start + ROWS_PER_CHUNK] for start in range(0, len(rows), ROWS_PER_CHUNK)]
    found = [np.quantile(chunk @ counts.T / n_prompts, [TAIL, 1 - TAIL], axis=1) for chunk in chunks]
    low, high = np.concatenate(found, axis=1)
    return low, high
