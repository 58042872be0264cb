"""Errors over sizes: parts as of one dictionary alone, norms with their controls, read back as measured."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from workbench.analyses.comparison.leftover import leftover_tables, measure_leftover, read_leftover
from workbench.dictionaries.learners.topk import TopKDictionary
from workbench.evaluation.dark_matter import reconstructed, split_error
from workbench.testbeds.planted import planted_features

D, N_ROWS = 16, 4000


def truth(n: int, noisy: float = 0.0) -> tuple[TopKDictionary, torch.Tensor]:
    """The first n of 32 planted directions as a dictionary, and rows whose noise differs between the texts."""
    features = planted_features(n_features=32, d=D, mean_l0=2.0, support="exact", seed=3)
    rows = features.block(0, N_ROWS).x
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    W = features.directions[:n].clone()
    made = TopKDictionary(
        W_enc=W.T.clone(), W_dec=W, b_enc=torch.zeros(n), b_dec=torch.zeros(D), k=2, hook_name="planted"
    )
    return made, rows + noisy * noise * torch.linspace(0.05, 1, N_ROWS).flip(0)[torch.randperm(N_ROWS)][
        :, None
    ]


def test_the_parts_are_those_of_each_dictionary_and_come_back() -> None:
    small, rows = truth(16)
    large, _ = truth(32)
    found = measure_leftover({32: large, 16: small}, rows)
    assert list(found.splits) == [16, 32]
    own = split_error(*(reconstructed(small, half.split(500)) for half in rows.split(N_ROWS // 2)))
    assert found.splits[16].fvu == pytest.approx(own.fvu)
    assert found.splits[16].fvu_nonlinear == pytest.approx(own.fvu_nonlinear)
    assert found.splits[32].fvu < found.splits[16].fvu
    assert len(found.pairs) == N_ROWS // 2
    error = rows - large.reconstruct(rows)
    assert found.pairs["large"].to_numpy() == pytest.approx(error[N_ROWS // 2 :].norm(dim=1).numpy())

    again = read_leftover(leftover_tables(found))
    assert again.norms == found.norms
    assert [one.as_dict() for one in again.splits.values()] == [
        one.as_dict() for one in found.splits.values()
    ]
    pd.testing.assert_frame_equal(again.pairs, found.pairs)


def test_norms_are_predicted_where_the_same_tokens_are_noisy_and_not_from_tokens_dealt_anew() -> None:
    torch.manual_seed(0)
    large, rows = truth(32, noisy=0.5)
    moved = replace(large, W_dec=large.W_dec * 0.98)
    found = measure_leftover({16: moved, 32: large}, rows).norms[32]
    assert found.r2 > 0.9
    assert abs(found.shuffled_r2) < 0.05
    assert found.length_r2 < found.r2 - 0.3
