"""Correlations against closed forms, intervals against their coverage, the shuffled control against truth."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.circuits.nodes import covering
from workbench.circuits.resampling import mean_estimate, pearson, prompt_weights, slope, spearman
from workbench.circuits.verification import compare
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


def test_weights_are_bootstrap_counts() -> None:
    weights = prompt_weights(10, n_resamples=50, seed=0)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights * 10, np.round(weights * 10))


def test_intervals_cover_the_mean() -> None:
    """95% intervals of 200 samples of 40 hold the true mean about 95 times in 100."""
    rng = np.random.default_rng(1)
    found = [mean_estimate(rng.normal(size=40), n_resamples=400, seed=i) for i in range(200)]
    assert 0.89 < np.mean([e.low <= 0 <= e.high for e in found]) < 0.99


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
