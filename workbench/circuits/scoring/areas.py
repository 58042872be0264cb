"""CPR and CMD: faithfulness over circuit sizes as one number each, with the axis of sizes as data.

    f(k) = (m(C_k) - m(empty)) / (m(M) - m(empty))
    CPR  = integral of f(k) dk          higher is better; circuits ranked by signed scores
    CMD  = integral of |1 - f(k)| dk    lower is better, 0 ideal; circuits ranked by absolute scores

Both by trapezoids between the sizes given, over no other range and without normalisation, so that 10 sizes from
0.001 to 1 give a CPR of 0.999 when f is 1 throughout. The same f over another axis (edges, weighted edges, nodes)
gives another number; published figures differ for that reason. Every result therefore carries its axis.

Source: Mueller et al. 2025, "MIB: a mechanistic interpretability benchmark", arXiv:2504.13151.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.circuits.scoring.curves import RANKINGS, as_record
from workbench.errors import UserError, nearest
from workbench.intervals import UNDEFINED, Estimate, difference_estimate, estimate

AXES = {
    "edges_frac": "share of all edges",
    "weighted_edges_frac": "share of all edges, each weighted by the part of it that is kept",
    "nodes_frac": "share of all nodes",
}
MEASURES = ("CPR", "CMD")
MIB_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Metric = Float[np.ndarray, "size prompt"]
PerPrompt = Float[np.ndarray, " prompt"]


@dataclass(frozen=True)
class SizeAxis:
    """The sizes of the circuits and what they are shares of.

    Attributes:
        kind: One of `AXES`.
        sizes: Rising, in [0, 1], at least two.
    """

    kind: str
    sizes: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in AXES:
            raise UserError(f"axis kind {self.kind!r} is not known; {nearest(self.kind, AXES)}")
        rising = all(a < b for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        if len(self.sizes) < 2 or not rising or min(self.sizes) < 0 or max(self.sizes) > 1:
            raise UserError(f"sizes {self.sizes} are no axis: give at least 2 rising shares between 0 and 1")

    @property
    def statement(self) -> str:
        """What an integral over this axis is of."""
        return (
            f"trapezoids over {len(self.sizes)} sizes from {self.sizes[0]:g} to {self.sizes[-1]:g}, "
            f"size being the {AXES[self.kind]} ({self.kind}); nothing is added outside that range"
        )


@dataclass(frozen=True)
class SizeArea:
    """CPR or CMD with the axis it was computed over.

    Attributes:
        measure: `CPR` or `CMD`.
        area: Its value with the interval over prompts; NaN where the whole model is not above the empty circuit.
        faithfulness: f at each size.
        axis: The sizes.
        ranking: How the circuits were ranked: `signed` or `absolute`.
        n_prompts: Prompts.
    """

    measure: str
    area: Estimate
    faithfulness: tuple[float, ...]
    axis: SizeAxis
    ranking: str
    n_prompts: int

    def as_dict(self) -> dict[str, Any]:
        """Flat JSON, the statement of the axis included."""
        return as_record(**{self.measure.lower(): self.area}) | {
            "faithfulness": list(self.faithfulness),
            "axis": self.axis.kind,
            "sizes": list(self.axis.sizes),
            "axis_statement": self.axis.statement,
            "ranking": self.ranking,
            "n_prompts": self.n_prompts,
        }


def cpr(
    metric: Metric,
    *,
    full: PerPrompt,
    empty: PerPrompt,
    axis: SizeAxis,
    ranking: str = "signed",
    n_resamples: int = 1000,
    seed: int = 0,
) -> SizeArea:
    """Area under faithfulness over circuit sizes.

    Args:
        metric: m of the circuit of each size on each prompt, in logits.
        full: m of the whole model.
        empty: m with everything ablated.
        axis: The sizes, one a row of `metric`.
        ranking: How the circuits were ranked; MIB ranks by signed scores here.
        n_resamples: Bootstrap resamples over prompts.
        seed: Of the resampling.

    Raises:
        UserError: not one row a size, or not one number a prompt.

    Status: exact for these prompts, sizes and this ablation; the interval is over prompts.
    """
    given = {"full": full, "empty": empty, "axis": axis, "ranking": ranking}
    return _size_area("CPR", metric, **given, n_resamples=n_resamples, seed=seed)


def cmd(
    metric: Metric,
    *,
    full: PerPrompt,
    empty: PerPrompt,
    axis: SizeAxis,
    ranking: str = "absolute",
    n_resamples: int = 1000,
    seed: int = 0,
) -> SizeArea:
    """Area between faithfulness and 1 over circuit sizes; arguments, refusals and status as for `cpr`.

    MIB ranks by absolute scores here.
    """
    given = {"full": full, "empty": empty, "axis": axis, "ranking": ranking}
    return _size_area("CMD", metric, **given, n_resamples=n_resamples, seed=seed)


def area(faithfulness: Sequence[float], axis: SizeAxis, *, measure: str) -> float:
    """CPR or CMD of one curve. Status: exact for the sizes given.

    Raises:
        UserError: not one number a size, or an unknown measure.
    """
    if measure not in MEASURES:
        raise UserError(f"measure {measure!r} is not known; {nearest(measure, MEASURES)}")
    _check_count("faithfulness", len(faithfulness), "sizes", len(axis.sizes))
    return float(_areas(np.array(faithfulness, dtype=np.float64)[:, None], axis, measure)[0])


def _areas(curve: Float[np.ndarray, "size n"], axis: SizeAxis, measure: str) -> Float[np.ndarray, " n"]:
    height = curve if measure == "CPR" else np.abs(1 - curve)
    return np.trapezoid(height, np.array(axis.sizes), axis=0)


def _size_area(
    measure: str,
    metric: Metric,
    *,
    full: PerPrompt,
    empty: PerPrompt,
    axis: SizeAxis,
    ranking: str,
    n_resamples: int,
    seed: int,
) -> SizeArea:
    _check_count("metric", len(metric), "sizes", len(axis.sizes))
    _check_count("full", len(full), "prompts", metric.shape[1])
    _check_count("empty", len(empty), "prompts", metric.shape[1])
    if ranking not in RANKINGS:
        raise UserError(f"ranking {ranking!r} is not known; {nearest(ranking, RANKINGS)}")
    above, range_ = metric - empty, full - empty

    def curve(counts: np.ndarray) -> np.ndarray:
        bottom = (counts * range_).sum(1)
        top = np.stack([(counts * row).sum(1) for row in above])
        return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)

    resampling = {"n_resamples": n_resamples, "seed": seed}
    found = estimate(lambda counts: _areas(curve(counts), axis, measure), len(full), **resampling)
    drop = difference_estimate(full, empty, paired=True, **resampling)
    solved = drop.low > 0
    heights = curve(np.ones((1, len(full))))[:, 0] if solved else np.full(len(metric), np.nan)
    values = tuple(float(f) for f in heights)
    return SizeArea(measure, found if solved else UNDEFINED, values, axis, ranking, len(full))


def _check_count(name: str, n: int, what: str, expected: int) -> None:
    if n != expected:
        raise UserError(f"{name} has {n} rows for {expected} {what}: give one for each")
