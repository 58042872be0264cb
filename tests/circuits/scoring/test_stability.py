"""Jaccard of edge sets, its interval over sets, and what random sets share."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.circuits.scoring import jaccard, random_jaccard, set_stability, top_k_set, top_k_stability
from workbench.errors import UserError


def test_jaccard_by_hand() -> None:
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 1], bool)
    assert jaccard(a, b) == 0.25
    assert jaccard(a, a) == 1.0
    assert jaccard(a, ~a) == 0.0
    assert np.isnan(jaccard(a & ~a, a & ~a))


@given(st.integers(0, 2**16), st.integers(2, 8))
def test_the_mean_over_pairs_is_that_of_all_pairs(seed: int, n_sets: int) -> None:
    sets = np.random.default_rng(seed).random((n_sets, 12)) < 0.5
    sets[:, 0] = True
    found = set_stability(sets, n_resamples=20)
    assert found.jaccard.value == pytest.approx(np.mean([jaccard(a, b) for a, b in combinations(sets, 2)]))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(6, 9))
def test_chance_is_the_mean_over_all_pairs_of_sets(n_first: int, n_second: int, n_edges: int) -> None:
    first = set(range(n_first))
    drawn = [set(c) for c in combinations(range(n_edges), n_second)]
    expected = np.mean([len(first & b) / len(first | b) for b in drawn])
    assert random_jaccard(n_first, n_second, n_edges) == pytest.approx(expected, abs=1e-9)


def test_equal_scorings_agree_fully_and_random_ones_as_chance_has_it() -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.normal(size=300), (6, 1)) + 1e-3 * rng.normal(size=(6, 300))
    agreed = top_k_stability(same, 30)
    assert agreed.jaccard.value > 0.9
    drawn = top_k_stability(rng.normal(size=(40, 300)), 30)
    assert drawn.random_jaccard == pytest.approx(random_jaccard(30, 30, 300))
    assert drawn.jaccard.value == pytest.approx(drawn.random_jaccard, abs=0.01)
    assert drawn.jaccard.low < drawn.random_jaccard < drawn.jaccard.high + 0.01


def test_the_interval_resamples_sets_and_not_pairs() -> None:
    """Of 5 sets, 4 equal and 1 apart: redrawing by hand, without pairs of a set with itself."""
    sets = np.zeros((5, 10), bool)
    sets[:4, :3], sets[4, 5:8] = True, True
    found = set_stability(sets, n_resamples=400, seed=2)
    assert found.jaccard.value == pytest.approx(6 / 10)
    drawn = []
    for rows in np.random.default_rng(2).integers(5, size=(400, 5)):
        pairs = [jaccard(sets[i], sets[j]) for i, j in combinations(rows, 2) if i != j]
        drawn += [np.mean(pairs)] if pairs else []
    np.testing.assert_allclose([found.jaccard.low, found.jaccard.high], np.quantile(drawn, [0.025, 0.975]))


def test_two_sets_have_no_interval() -> None:
    found = set_stability(np.array([[1, 1, 0], [1, 0, 0]], bool))
    assert found.jaccard.value == 0.5
    assert np.isnan(found.jaccard.low)
    assert json.loads(json.dumps(found.as_dict()))["mean_size_edges"] == 1.5


def test_rankings_choose_by_size_or_sign() -> None:
    scores = np.array([3.0, -5.0, 1.0, -0.5])
    assert top_k_set(scores, 2).tolist() == [True, True, False, False]
    assert top_k_set(scores, 2, ranking="signed").tolist() == [True, False, True, False]


def test_a_cut_through_equal_scores_is_refused() -> None:
    """Two scorings that are 0 nearly everywhere would agree by the order of the edges alone."""
    scores = np.array([2.0, 1.0, 0.0, 0.0, 0.0])
    with pytest.raises(UserError, match=r"k 3 cuts through 3 edges of equal score 0, .*: give k 2"):
        top_k_set(scores, 3)
    assert top_k_set(scores, 2).sum() == 2
    assert top_k_set(scores, 5).all()


def test_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="k 4 is not between 1 and the 3 edges"):
        top_k_set(np.arange(3.0), 4)
    with pytest.raises(UserError, match=r"1 sets of .* make no pair: give at least 2"):
        top_k_stability(np.arange(3.0)[None], 1)
    with pytest.raises(UserError, match="make no pair: give at least 2, none empty"):
        set_stability(np.array([[1, 0], [0, 0]], bool))
