"""Intervals over beds and prompts, and the null of random scores."""

from __future__ import annotations

import json

import numpy as np
import pytest

from workbench.circuits.scoring import (
    auprc,
    auroc,
    detection_over_beds,
    detection_over_prompts,
    random_scores,
)
from workbench.errors import UserError
from workbench.intervals import mean_estimate


def bed(seed: int, *, signal: float, n_edges: int = 200, n_true: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(n_edges) < n_true
    return rng.exponential(size=n_edges) + signal * truth, truth


def test_over_beds_it_is_the_mean_of_each_with_its_interval() -> None:
    scores, truths = zip(*(bed(seed, signal=1.0) for seed in range(12)), strict=True)
    found = detection_over_beds(scores, truths, n_resamples=500, seed=3)
    each = np.array([auroc(s, t) for s, t in zip(scores, truths, strict=True)])
    assert found.auroc == mean_estimate(each, n_resamples=500, seed=3)
    assert found.auroc.low < each.mean() < found.auroc.high
    assert found.auprc.value == pytest.approx(
        np.mean([auprc(s, t) for s, t in zip(scores, truths, strict=True)])
    )
    assert (found.n_true, found.n_edges, found.unit, found.n_units) == (120, 2400, "bed", 12)
    assert found == detection_over_beds(scores, truths, n_resamples=500, seed=3)


def test_a_score_beyond_chance_is_outside_the_random_range_and_noise_is_not() -> None:
    """The null sees the difference: the same beds with and without signal."""
    for signal, beyond in ((1.5, True), (0.0, False)):
        scores, truths = zip(*(bed(seed, signal=signal) for seed in range(8)), strict=True)
        found = detection_over_beds(scores, truths)
        assert (found.auroc.value > found.random_auroc.high) == beyond
        assert found.random_auroc.low < 0.5 < found.random_auroc.high


def test_random_scores_are_at_chance() -> None:
    """Mean AUROC 1/2 with the standard deviation of the Mann-Whitney statistic; AUPRC near the share of true edges."""
    n_true, n_other = 20, 180
    truth = np.arange(200) < n_true
    found = random_scores(auroc, [truth], n_random=1000)
    spread = np.sqrt((n_true + n_other + 1) / (12 * n_true * n_other))
    assert found.value == pytest.approx(0.5, abs=4 * spread / np.sqrt(1000))
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert random_scores(auprc, [truth], n_random=300).value == pytest.approx(0.1, abs=0.03)


def test_over_prompts_the_mean_score_is_ranked_and_resampled() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(100) < 8
    scores = rng.normal(size=(30, 100)) + 0.6 * truth
    found = detection_over_prompts(scores, truth, n_resamples=300)
    assert found.auroc.value == pytest.approx(auroc(scores.mean(0), truth), abs=1e-12)
    assert found.auroc.low < found.auroc.high
    resample = np.random.default_rng(0).integers(30, size=(300, 30))
    drawn = [auroc(scores[rows].mean(0), truth) for rows in resample]
    np.testing.assert_allclose(
        [found.auroc.low, found.auroc.high], np.quantile(drawn, [0.025, 0.975]), atol=1e-9
    )
    assert found.unit == "prompt"


def test_more_prompts_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    truth = np.arange(100) < 8
    scores = rng.normal(size=(160, 100)) + 0.3 * truth
    few, many = (detection_over_prompts(scores[:n], truth, n_resamples=200).auroc for n in (10, 160))
    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_the_record_is_flat_json() -> None:
    scores, truth = bed(0, signal=2.0)
    record = json.loads(json.dumps(detection_over_beds([scores] * 2, [truth] * 2).as_dict()))
    assert {
        "auroc",
        "auroc_low",
        "auroc_high",
        "auprc",
        "random_auroc_high",
        "ranking",
        "unit",
    } <= record.keys()
    assert record["ranking"] == "absolute"


def test_beds_that_do_not_match_are_refused() -> None:
    scores, truth = bed(0, signal=1.0)
    with pytest.raises(UserError, match="scores has 1 beds and truths 2: give both for every bed"):
        detection_over_beds([scores], [truth, truth])
    with pytest.raises(UserError, match="n_units 0 leaves nothing to resample"):
        detection_over_beds([], [])
