"""95% bootstrap intervals of means, ratios, differences and any other statistic of independent units.

The unit is what was drawn independently: a prompt, a block of text, a feature, a file. Rows of one unit (the
tokens of a block) depend on each other, so a unit is drawn whole, as often as chance has it. A statistic sees
a resample as counts, how often each unit was drawn:

    mean = sum(count * value) / n        ratio = sum(count * top) / sum(count * bottom)

The interval runs from the 2.5th to the 97.5th percentile of the statistic over resamples (the percentile
method: Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1); Efron and
Tibshirani 1993, An Introduction to the Bootstrap, chapter 13). Everything is float64. Equal seeds and equal
numbers of units give equal draws, so intervals of one seed are comparable; resamples are made a part at a
time, so memory does not grow with their number.

Limits: an interval covers the drawing of units and nothing else, not training seeds for instance. It is too
narrow with few units: of normal samples of 5, 10, 20 and 60 it holds the mean in about 83, 90, 92 and 94
of 100. It corrects no bias and little skew. Units that are all equal give an interval of width 0, however few
they are: 100 hits in 100 leave room for misses in 3 of 100.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from workbench.errors import UserError

TAIL = 0.025
N_RESAMPLES = 2_000
CHUNK_COUNTS = 2**20

Counts = Float64[np.ndarray, "resample unit"]
Samples = Float64[np.ndarray, " resample"]
Statistic = Callable[[Counts], Samples]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, NaN where it is not defined; the unit is its field's name where it is stored."""

    value: float
    low: float
    high: float

    def as_dict(self, name: str) -> dict[str, float]:
        """`{name: value, name_low: low, name_high: high}`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


UNDEFINED = Estimate(float("nan"), float("nan"), float("nan"))


def mean_estimate(
    values: Shaped[np.ndarray, " unit"], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean over units, in the unit of the values, with its interval.

    Args:
        values: One number (or truth value) per unit; one that is not finite makes the interval NaN.
        n_resamples: Bootstrap resamples.
        seed: Decides the resamples.

    Raises:
        UserError: no unit, or no resample.

    Status: exact value; the interval is the percentile bootstrap over units.
    """
    return estimate(_mean_of(_floats(values)), len(values), n_resamples=n_resamples, seed=seed)


def ratio_estimate(
    numerator: Shaped[np.ndarray, " unit"],
    denominator: Shaped[np.ndarray, " unit"],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """sum(numerator) / sum(denominator) with its interval; both sums are of the same draw of units.

    Args:
        numerator: One sum per unit.
        denominator: One sum per unit. A total of exactly 0 gives NaN; so does one resample of sum 0 for the interval.
        n_resamples: Bootstrap resamples.
        seed: Decides the resamples.

    Raises:
        UserError: no unit, no resample, or not as many numerators as denominators.

    Status: exact value; the interval is the percentile bootstrap over units.
    """
    _check_pairs(numerator=len(numerator), denominator=len(denominator))
    top, bottom = _floats(numerator), _floats(denominator)

    def ratio(counts: Counts) -> Samples:
        below = _sums(counts, bottom)
        return np.divide(_sums(counts, top), below, out=np.full(len(below), np.nan), where=below != 0)

    found = estimate(ratio, len(top), n_resamples=n_resamples, seed=seed)
    return UNDEFINED if np.isnan(found.value) else found


def difference_estimate(
    first: Shaped[np.ndarray, " first"],
    second: Shaped[np.ndarray, " second"],
    *,
    paired: bool,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """mean(first) - mean(second), in the unit of the values, with its interval.

    Args:
        first: One number per unit.
        second: One number per unit.
        paired: Whether the two numbers at one place are of one unit, which is then drawn whole; otherwise the
            two sides are drawn independently and may differ in number.
        n_resamples: Bootstrap resamples.
        seed: Decides the resamples.

    Raises:
        UserError: no unit, no resample, or pairs that are none because one side is longer.

    Status: exact value; the interval is the percentile bootstrap over units.
    """
    a, b = _floats(first), _floats(second)
    if paired:
        _check_pairs(first=len(a), second=len(b))
        return mean_estimate(a - b, n_resamples=n_resamples, seed=seed)
    rng = np.random.default_rng(seed)
    samples = [resampled(_mean_of(x), len(x), n_resamples=n_resamples, rng=rng) for x in (a, b)]
    return Estimate(float(a.mean() - b.mean()), *percentile_interval(samples[0] - samples[1]))


def estimate(
    statistic: Statistic, n_units: int, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """Any statistic of the units with its interval: what it makes of every unit once, and of resamples.

    Args:
        statistic: From counts, a row a resample, to one number a row. It may not depend on other rows.
        n_units: Number of units.
        n_resamples: Bootstrap resamples.
        seed: Decides the resamples.

    Raises:
        UserError: no unit, or no resample.
    """
    rng = np.random.default_rng(seed)
    samples = resampled(statistic, n_units, n_resamples=n_resamples, rng=rng)
    return Estimate(float(statistic(np.ones((1, n_units)))[0]), *percentile_interval(samples))


def resampled(statistic: Statistic, n_units: int, *, n_resamples: int, rng: np.random.Generator) -> Samples:
    """A statistic of each bootstrap resample.

    Raises:
        UserError: no unit, or no resample.
    """
    if n_units < 1:
        raise UserError("n_units 0 leaves nothing to resample: give at least 1, and 20 for a fair interval")
    if n_resamples < 1:
        raise UserError(f"n_resamples {n_resamples} gives no interval: give at least 1, better 1,000")
    return np.concatenate([statistic(counts) for counts in _draws(n_units, n_resamples, rng)])


def percentile_interval(samples: Samples) -> tuple[float, float]:
    """The central 95% of the samples; NaN when there is a NaN or an infinity among them."""
    if not np.isfinite(samples).all():
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [TAIL, 1 - TAIL])
    return float(low), float(high)


def _draws(n_units: int, n_resamples: int, rng: np.random.Generator) -> Iterator[Counts]:
    """How often each unit was drawn, a few resamples at a time; the parts do not change the draws."""
    rows_per_chunk = max(1, CHUNK_COUNTS // n_units)
    for start in range(0, n_resamples, rows_per_chunk):
        rows = min(rows_per_chunk, n_resamples - start)
        drawn = rng.integers(n_units, size=(rows, n_units))
        drawn += n_units * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_units)
        yield counts.reshape(rows, n_units).astype(np.float64)


def _sums(counts: Counts, values: Float64[np.ndarray, " unit"]) -> Samples:
    """sum(count * value) by resample, in an order that (unlike a matrix product's) threads do not change."""
    return (counts * values).sum(1)


def _mean_of(values: Float64[np.ndarray, " unit"]) -> Statistic:
    return lambda counts: _sums(counts, values) / len(values)


def _floats(values: Shaped[np.ndarray, " unit"]) -> Float64[np.ndarray, " unit"]:
    return np.asarray(values, dtype=np.float64)


def _check_pairs(**n_units: int) -> None:
    (one, n_one), (other, n_other) = n_units.items()
    if n_one != n_other:
        raise UserError(
            f"{one} has {n_one} numbers and {other} {n_other}, which makes no pairs: give one of each for every unit"
        )
