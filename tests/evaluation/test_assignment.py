"""Matchings against every permutation, and against the prices that prove them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from workbench.errors import UserError
from workbench.evaluation.assignment import assign


def total(scores: torch.Tensor, column: np.ndarray) -> float:
    matched = np.flatnonzero(column >= 0)
    return float(scores.double().numpy()[matched, column[matched]].sum())


@given(rows=st.integers(1, 5), columns=st.integers(1, 6), seed=st.integers(0, 10_000), ties=st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_permutation_has_a_greater_sum(rows: int, columns: int, seed: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, columns, generator=generator)
    scores = scores.round() if ties else scores
    found = assign(scores).column
    matched = found[found >= 0]
    assert len(set(matched.tolist())) == len(matched) == min(rows, columns)
    exact, small = scores.double().numpy(), min(rows, columns)
    if rows <= columns:
        best = max(
            sum(exact[i, c] for i, c in enumerate(order)) for order in permutations(range(columns), small)
        )
    else:
        best = max(
            sum(exact[r, i] for i, r in enumerate(order)) for order in permutations(range(rows), small)
        )
    assert total(scores, found) == pytest.approx(best)


def test_prices_prove_a_large_matching() -> None:
    left, right = (functional.normalize(torch.randn(n, 16), dim=1) for n in (150, 300))
    scores = left @ right.T
    found = assign(scores)
    gap = found.row_price[:, None] + found.column_price - scores.double().numpy()
    assert gap.min() > -1e-9
    assert np.abs(gap[np.arange(150), found.column]).max() < 1e-9
    assert found.column_price.min() > -1e-9
    greedy = scores.max(1).indices.numpy()
    assert len(set(greedy.tolist())) < 150, "the rows ask for different columns, so this tests nothing"


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(UserError, match="not finite: leave out directions of length 0"):
        assign(torch.tensor([[1.0, float("nan")]]))
