"""Correlations against closed forms, their intervals against loops, the shuffled control against truth."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.circuits.nodes import covering
from workbench.circuits.verification import compare, pearson, slope, spearman
from workbench.errors import UserError


def test_pearson_is_numpys() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert pearson(x, y)[0] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    assert np.isnan(pearson(np.ones(5), y[:5])[0])


def test_spearman_averages_ties() -> None:
    """Hand-worked: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4 give 4.5 / sqrt(4.5 * 5)."""
    found = spearman(np.array([0.0, 1.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0, 3.0]))[0]
    assert found == pytest.approx(4.5 / np.sqrt(4.5 * 5), abs=1e-12)


def test_slope_is_intervened_over_predicted() -> None:
    assert slope(np.array([1.0, 2.0]), np.array([3.0, 6.0]))[0] == pytest.approx(3)


def effects(noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(30, 1)) + 0.2 * rng.normal(size=(30, 16))
    return truth, truth + noise * rng.normal(size=truth.shape)


def test_agreement_is_above_its_shuffled_control() -> None:
    found = compare(*effects(0.1), n_resamples=300)
    assert found.pearson.low > found.shuffled_pearson.high
    assert found.slope.value == pytest.approx(1, abs=0.05)


def test_shuffled_labels_fail_the_same_check() -> None:
    predicted, intervened = effects(0.1)
    found = compare(predicted, np.random.default_rng(3).permutation(intervened), n_resamples=300)
    assert not found.pearson.low > found.shuffled_pearson.high


def test_the_interval_of_a_correlation_is_that_of_a_loop_over_prompts() -> None:
    """Prompts are drawn, and the correlation is over the nodes' means of each draw."""
    predicted, intervened = effects(0.3)
    found = compare(predicted, intervened, n_resamples=201, seed=4)
    rng, samples = np.random.default_rng(4), []
    for _ in range(201):
        drawn = rng.integers(16, size=16)
        samples.append(np.corrcoef(predicted[:, drawn].mean(1), intervened[:, drawn].mean(1))[0, 1])
    ordered = sorted(samples)
    assert (found.pearson.low, found.pearson.high) == pytest.approx((ordered[5], ordered[195]), abs=1e-12)
    whole = np.corrcoef(predicted.mean(1), intervened.mean(1))[0, 1]
    assert found.pearson.value == pytest.approx(whole, abs=1e-12)


def test_two_nodes_are_no_correlation() -> None:
    found = compare(np.ones((2, 5)), np.ones((2, 5)), n_resamples=20)
    assert np.isnan(found.pearson.value)


def test_covering_takes_the_fewest_largest() -> None:
    effects = [0.5, -3.0, 4.0, float("nan"), 0.5, 5.0]
    assert covering(effects, coverage_frac=0.9) == [5, 2]
    assert covering(effects, coverage_frac=1.0) == [5, 2, 0, 4]
    assert covering(effects, coverage_frac=1.0, n_max=1) == [5]
    assert covering([-1.0, float("nan")], coverage_frac=0.9) == []
    with pytest.raises(UserError, match=r"coverage_frac 0\.0 is not a share"):
        covering(effects, coverage_frac=0.0)
