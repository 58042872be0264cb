"""AUROC and AUPRC against counts over all pairs and thresholds, with ties."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from workbench.circuits.scoring.curves import auprc, auroc, curves
from workbench.errors import UserError

edges = (
    st.integers(2, 60)
    .flatmap(
        lambda n: st.tuples(
            arrays(np.float64, n, elements=st.integers(-4, 4).map(float)),
            arrays(np.bool_, n, elements=st.booleans()),
        )
    )
    .filter(lambda pair: 0 < pair[1].sum() < len(pair[1]))
)


def by_pairs(scores: np.ndarray, truth: np.ndarray) -> float:
    """Every true edge against every other one, equals counting half."""
    difference = scores[truth][:, None] - scores[~truth][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def by_thresholds(scores: np.ndarray, truth: np.ndarray) -> float:
    """Precision at every distinct score, weighted with the true edges that come in there."""
    total = 0.0
    for threshold in set(scores.tolist()):
        total += truth[scores == threshold].sum() / truth.sum() * truth[scores >= threshold].mean()
    return total


@given(edges)
def test_areas_are_those_of_all_pairs_and_thresholds(pair: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = pair
    assert auroc(scores, truth, ranking="signed") == pytest.approx(by_pairs(scores, truth), abs=1e-12)
    assert auprc(scores, truth, ranking="signed") == pytest.approx(by_thresholds(scores, truth), abs=1e-12)
    assert auroc(scores, truth) == pytest.approx(by_pairs(np.abs(scores), truth), abs=1e-12)
    assert auprc(scores, truth) == pytest.approx(by_thresholds(np.abs(scores), truth), abs=1e-12)


@given(edges, st.integers(0, 2**16))
def test_neither_the_order_nor_the_scale_of_scores_matters(
    pair: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    scores, truth = pair
    moved = np.random.default_rng(seed).permutation(len(scores))
    for score in (auroc, auprc):
        assert score(scores[moved], truth[moved]) == score(scores, truth) == score(-8 * scores, truth)


@given(edges)
def test_the_opposite_ranking_has_the_rest_of_the_auroc(pair: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = pair
    both = auroc(scores, truth, ranking="signed") + auroc(-scores, truth, ranking="signed")
    assert both == pytest.approx(1.0, abs=1e-12)


def test_ten_points_are_not_enough() -> None:
    """Worked by hand: 3 true of 100, at ranks 1, 2 and 4 -> 1 - 1/(3 * 97); precision 1, 1 and 3/4."""
    scores = np.arange(100, 0, -1.0)
    truth = np.zeros(100, bool)
    truth[[0, 1, 3]] = True
    assert auroc(scores, truth) == pytest.approx(1 - 1 / (3 * 97))
    assert auprc(scores, truth) == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_scores_that_say_nothing_are_at_chance() -> None:
    truth = np.arange(40) < 3
    assert auroc(np.zeros(40), truth) == 0.5
    assert auprc(np.zeros(40), truth) == pytest.approx(3 / 40)


def test_the_curve_has_one_step_a_distinct_score() -> None:
    found = curves(np.array([3.0, -3.0, 2.0, 1.0]), np.array([True, False, True, False]))
    assert json.loads(json.dumps(found.as_dict())) == {
        "threshold": [3.0, 2.0, 1.0],
        "true_positive_frac": [0.5, 1.0, 1.0],
        "false_positive_frac": [0.5, 0.5, 1.0],
        "precision_frac": [0.5, 2 / 3, 0.5],
    }


def test_infinite_scores_rank_first() -> None:
    truth = np.array([True, False, False])
    assert auroc(np.array([np.inf, 2.0, 1.0]), truth) == 1.0


@pytest.mark.parametrize("n_true", [0, 4])
def test_a_truth_of_one_class_is_refused(n_true: int) -> None:
    with pytest.raises(
        UserError, match=f"truth marks {n_true} of 4 edges: a ranking is judged on true and other"
    ):
        auroc(np.ones(4), np.arange(4) < n_true)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(UserError, match="the score of edge 1 is nan, which has no rank"):
        auprc(np.array([0.0, np.nan]), np.array([True, False]))


def test_an_unknown_ranking_names_the_nearest() -> None:
    with pytest.raises(UserError, match="ranking 'absolut' is not known; the nearest: absolute"):
        curves(np.ones(2), np.array([True, False]), ranking="absolut")
