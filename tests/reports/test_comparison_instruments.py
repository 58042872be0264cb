"""Instruments on the comparison's page: charts say their numbers in words, the table has a line per KL coefficient."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from workbench.analyses.comparison.instruments import Instruments
from workbench.analyses.comparison.leftover import Leftover
from workbench.evaluation.dark_matter import ErrorSplit
from workbench.evaluation.dark_predict import NormScaling
from workbench.reports.comparison_instruments import instrument_charts, variational_summary


def split(fvu: float) -> ErrorSplit:
    return ErrorSplit(
        r2_error=0.41, r2_error_pooled=0.4, r2_norm=0.87, shuffled_r2=-0.02, fvu=fvu, fvu_nonlinear=fvu / 2,
        n_fit=10, n_held=10, B=torch.zeros(2, 1, dtype=torch.float64),
    )  # fmt: skip


@pytest.fixture
def leftover() -> Leftover:
    norms = {2048: NormScaling(r2=0.93, slope=1.0, shuffled_r2=0.01, length_r2=0.52, n_held=4)}
    pairs = pd.DataFrame({"small": [1.0, 2.0, 3.0], "large": [0.5, 1.5, 2.0]})
    return Leftover({256: split(0.3), 2048: split(0.2)}, norms, pairs)


def test_errors_over_sizes_are_two_charts_with_their_controls_in_words(leftover: Leftover) -> None:
    parts, norms = instrument_charts(Instruments(None, (), {}, leftover))
    assert (
        "256 latents 0.300, R² of the error 0.41 (rows dealt anew -0.02), of its norm 0.87"
        in parts.description
    )
    assert "256 and 2,048 latents" in norms.description
    assert "0.93 of the variance" in norms.description
    assert "alone 0.52, tokens dealt anew 0.01" in norms.description
    assert len(norms.table.rows) == 3


def test_nothing_measured_is_no_chart() -> None:
    assert instrument_charts(Instruments(None, (), {})) == []


def test_the_variational_table_has_means_and_ends_over_seeds() -> None:
    figures = {"recovered_frac": 0.5, "alive_frac": 1.0, "independence": 0.9, "selectivity": 0.1}
    rows = [
        {"name": "topk", "kl": float("nan"), "seed": seed, "fvu": 0.1 + seed / 10, **figures}
        for seed in (0, 1)
    ] + [{"name": "vsae_free", "kl": 0.01, "seed": 0, "fvu": 0.4, **figures}]
    table = variational_summary(pd.DataFrame(rows))
    assert table.rows[0][:2] == ("topk", "0.150 [0.100, 0.200]")
    assert table.rows[1][:2] == ("vsae_free, KL coefficient 0.01", "0.400 [0.400, 0.400]")
