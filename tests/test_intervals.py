"""Intervals against a plain loop, against data whose truth is known, and against their own defects."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from workbench import intervals
from workbench.errors import UserError
from workbench.intervals import (
    Estimate,
    difference_estimate,
    estimate,
    mean_estimate,
    percentile_interval,
    ratio_estimate,
)

N_UNITS = 60
N_RESAMPLES = 201  # the 2.5th percentile is the sixth smallest, the 97.5th the sixth largest
N_DATA_SETS = 400


def dyadic(seed: int, n: int = 37) -> np.ndarray:
    """Multiples of 1/64, whose sums are exact in any order."""
    return np.random.default_rng(seed).integers(-500, 900, n) / 64


def looped(statistic: Callable[[list[int]], float], n_units: int, rng: np.random.Generator) -> list[float]:
    """The reference: draw the units of one resample, compute, and so on."""
    return [statistic([int(i) for i in rng.integers(n_units, size=n_units)]) for _ in range(N_RESAMPLES)]


def ends(samples: list[float]) -> tuple[float, float]:
    ordered = sorted(samples)
    return ordered[5], ordered[195]


def mean_of(values: np.ndarray) -> Callable[[list[int]], float]:
    return lambda drawn: sum(float(values[i]) for i in drawn) / len(drawn)


@pytest.fixture(params=[2**20, 100, 1], ids=["whole", "parts", "single rows"])
def in_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few resamples are made at a time."""
    monkeypatch.setattr(intervals, "CHUNK_COUNTS", request.param)


@pytest.mark.usefixtures("in_parts")
def test_a_mean_is_that_of_the_loop() -> None:
    x = dyadic(0)
    wanted = ends(looped(mean_of(x), len(x), np.random.default_rng(5)))
    found = mean_estimate(x, n_resamples=N_RESAMPLES, seed=5)
    assert found == Estimate(sum(x.tolist()) / len(x), *wanted)


@pytest.mark.usefixtures("in_parts")
def test_a_ratio_is_that_of_the_loop() -> None:
    top, bottom = dyadic(1), np.abs(dyadic(2)) + 1

    def ratio(drawn: list[int]) -> float:
        return sum(float(top[i]) for i in drawn) / sum(float(bottom[i]) for i in drawn)

    wanted = ends(looped(ratio, len(top), np.random.default_rng(6)))
    found = ratio_estimate(top, bottom, n_resamples=N_RESAMPLES, seed=6)
    assert found == Estimate(ratio(list(range(len(top)))), *wanted)


@pytest.mark.usefixtures("in_parts")
def test_a_difference_is_that_of_the_loop() -> None:
    a, b, c = dyadic(3), dyadic(4), dyadic(5, n=20)
    rng = np.random.default_rng(7)
    samples = [looped(mean_of(x), len(x), rng) for x in (a, c)]
    wanted = ends([x - y for x, y in zip(*samples, strict=True)])
    found = difference_estimate(a, c, paired=False, n_resamples=N_RESAMPLES, seed=7)
    assert found == Estimate(sum(a.tolist()) / len(a) - sum(c.tolist()) / len(c), *wanted)
    paired = difference_estimate(a, b, paired=True, n_resamples=N_RESAMPLES, seed=7)
    assert (paired.low, paired.high) == ends(looped(mean_of(a - b), len(a), np.random.default_rng(7)))


def test_the_same_on_both_sides_varies_unless_it_is_paired() -> None:
    x = dyadic(8)
    assert difference_estimate(x, x, paired=True) == Estimate(0.0, 0.0, 0.0)
    found = difference_estimate(x, x, paired=False)
    one = mean_estimate(x)
    assert found.high - found.low == pytest.approx(math.sqrt(2) * (one.high - one.low), rel=0.1)


def test_any_statistic_has_an_interval() -> None:
    x = dyadic(9)
    largest = estimate(lambda counts: np.where(counts > 0, x, -np.inf).max(1), len(x), n_resamples=50)
    assert largest.value == largest.high == x.max() > largest.low


def test_percentiles_lie_between_samples() -> None:
    """Hand-worked: of 0, 1, ..., 10 the 2.5th percentile is a quarter of the way from 0 to 1."""
    assert percentile_interval(np.arange(11.0)) == pytest.approx((0.25, 9.75), abs=1e-12)
    assert np.isnan(percentile_interval(np.array([1.0, np.inf]))).all()


def test_seeds_decide_the_draws() -> None:
    x = dyadic(10)
    assert mean_estimate(x, seed=1) == mean_estimate(x, seed=1) != mean_estimate(x, seed=2)


def test_thirty_two_bits_and_truth_values_are_summed_in_double() -> None:
    x = np.full(1000, 0.1, np.float32)
    assert mean_estimate(x, n_resamples=5).value == pytest.approx(float(np.float32(0.1)), abs=1e-15)
    assert mean_estimate(np.array([True, False, True, True])).value == 0.75


def test_memory_does_not_grow_with_the_resamples() -> None:
    """All counts at once would be 160 MB."""
    x = np.random.default_rng(0).normal(size=10_000)
    tracemalloc.start()
    try:
        mean_estimate(x, n_resamples=2000)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()


def exponential(rng: np.random.Generator) -> np.ndarray:
    return rng.exponential(size=N_UNITS)


def covers_mean(rng: np.random.Generator, seed: int) -> bool:
    found = mean_estimate(rng.normal(3, 2, size=N_UNITS), n_resamples=300, seed=seed)
    return found.low <= 3 <= found.high


def covers_ratio(rng: np.random.Generator, seed: int) -> bool:
    size = rng.uniform(0.5, 1.5, size=N_UNITS)
    found = ratio_estimate(0.3 * size + rng.normal(0, 0.2, N_UNITS), size, n_resamples=300, seed=seed)
    return found.low <= 0.3 <= found.high


def covers_difference(rng: np.random.Generator, seed: int) -> bool:
    a, b = exponential(rng) + 1, exponential(rng)[:40]
    found = difference_estimate(a, b, paired=False, n_resamples=300, seed=seed)
    return found.low <= 1 <= found.high


def covers_paired(rng: np.random.Generator, seed: int) -> bool:
    unit = 5 * exponential(rng)
    a, b = unit + 1 + rng.normal(size=N_UNITS), unit + rng.normal(size=N_UNITS)
    found = difference_estimate(a, b, paired=True, n_resamples=300, seed=seed)
    return found.low <= 1 <= found.high


COVERS = [covers_mean, covers_ratio, covers_difference, covers_paired]


def coverage_frac(covers: Callable[[np.random.Generator, int], bool]) -> float:
    """Share of simulated data sets whose interval holds the truth."""
    rng = np.random.default_rng(11)
    return sum(covers(rng, seed) for seed in range(N_DATA_SETS)) / N_DATA_SETS


@pytest.mark.parametrize("covers", COVERS)
def test_intervals_hold_the_truth_95_times_in_100(covers) -> None:
    assert 0.90 <= coverage_frac(covers) <= 0.98


@pytest.mark.parametrize("covers", COVERS)
@pytest.mark.parametrize("tail", [0.1, 0.0005])
def test_other_percentiles_are_seen_to_fail(covers, tail: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "TAIL", tail)
    assert not 0.90 <= coverage_frac(covers) <= 0.98


def test_a_ratio_without_a_denominator_is_nan() -> None:
    nothing = ratio_estimate(np.ones(3), np.zeros(3))
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    sometimes = ratio_estimate(np.ones(3), np.array([0.0, 0.0, 1.0]))
    assert sometimes.value == 3
    assert np.isnan([sometimes.low, sometimes.high]).all()


def test_what_is_not_finite_has_no_interval() -> None:
    found = mean_estimate(np.array([1.0, np.nan, 2.0]))
    assert np.isnan([found.value, found.low, found.high]).all()


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="n_units 0 leaves nothing to resample"):
        mean_estimate(np.zeros(0))
    with pytest.raises(UserError, match="n_resamples 0 gives no interval"):
        mean_estimate(np.ones(3), n_resamples=0)
    with pytest.raises(UserError, match="first has 3 numbers and second 4, which makes no pairs"):
        difference_estimate(np.ones(3), np.ones(4), paired=True)
