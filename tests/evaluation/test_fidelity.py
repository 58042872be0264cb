"""Sums per block against loops in float64, and what each figure is meant to tell apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from workbench.evaluation.fidelity import Ratio, SiteSums, Spread, complement, fidelity_figures, mean_of
from workbench.intervals import Estimate

N_BLOCKS = 6


def made(seed: int = 0, *, d: int = 5, offset: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Targets off centre, a shrunken noisy reconstruction, and the block of each row."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(40, d, generator=generator) + offset
    y_hat = 0.8 * y + 0.1 * torch.randn(40, d, generator=generator)
    return y, y_hat, torch.randint(N_BLOCKS, (40,), generator=generator)


def figures(y: Tensor, y_hat: Tensor, block: Tensor, *, parts: int = 1) -> dict[str, float]:
    """The module's figures, the rows taken in in some parts."""
    spread = Spread(N_BLOCKS, y.shape[1])
    sums = SiteSums(N_BLOCKS, y.shape[1], spread)
    for rows in torch.arange(len(y)).chunk(parts):
        spread.add(y[rows].double(), block[rows])
        sums.add(y[rows], y_hat[rows], block[rows])
    return fidelity_figures(sums.ratios(), seed=0)


def by_loops(y: Tensor, y_hat: Tensor) -> dict[str, float]:
    """The same from the definitions, element by element in float64."""
    rows, hats = y.double().tolist(), y_hat.double().tolist()
    n, d = len(rows), len(rows[0])
    mean = [sum(row[j] for row in rows) / n for j in range(d)]
    error = [[a - b for a, b in zip(row, hat, strict=True)] for row, hat in zip(rows, hats, strict=True)]
    mean_error = [sum(e[j] for e in error) / n for j in range(d)]
    squared = sum(value**2 for e in error for value in e)
    about = sum((row[j] - mean[j]) ** 2 for row in rows for j in range(d))
    dot = [sum(a * b for a, b in zip(row, hat, strict=True)) for row, hat in zip(rows, hats, strict=True)]
    lengths = [(math.hypot(*row), math.hypot(*hat)) for row, hat in zip(rows, hats, strict=True)]
    return {
        "fvu": squared / about,
        "explained_variance_frac": 1
        - sum((e[j] - mean_error[j]) ** 2 for e in error for j in range(d)) / about,
        "nmse": squared / sum(length**2 for length, _ in lengths),
        "cosine": sum(inner / (a * b) for inner, (a, b) in zip(dot, lengths, strict=True)) / n,
        "gamma": sum(b**2 for _, b in lengths) / sum(dot),
    }


@pytest.mark.parametrize("parts", [1, 7])
def test_figures_equal_loops(parts: int) -> None:
    y, y_hat, block = made()
    found = figures(y, y_hat, block, parts=parts)
    for name, value in by_loops(y, y_hat).items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
        assert found[f"{name}_low"] < value < found[f"{name}_high"]


def test_a_distant_mean_costs_no_digits() -> None:
    y, y_hat, block = made(offset=1e4)
    for name, value in by_loops(y, y_hat).items():
        assert figures(y, y_hat, block, parts=5)[name] == pytest.approx(value, rel=1e-9), name


def test_what_each_figure_sees() -> None:
    y, _, block = made()
    shorter, moved = figures(y, 0.5 * y, block), figures(y, y + 1.0, block)
    assert shorter["gamma"] == pytest.approx(0.5)
    assert shorter["cosine"] == pytest.approx(1)
    assert moved["explained_variance_frac"] == pytest.approx(1)
    assert moved["fvu"] > 0.5
    assert moved["gamma"] > 1
    silent = figures(y, torch.zeros_like(y), block)
    assert silent["nmse"] == pytest.approx(1)
    assert silent["cosine"] == 0
    assert math.isnan(silent["gamma"])


def test_the_mean_over_sites_is_the_mean_of_their_ratios() -> None:
    ratios = [Ratio(torch.rand(9).double(), torch.rand(9).double() * scale) for scale in (1, 100)]
    values = [float(r.top.sum() / r.bottom.sum()) for r in ratios]
    assert mean_of(ratios).estimate(0).value == pytest.approx(sum(values) / 2)
    assert mean_of(ratios[:1]) is ratios[0]


def test_a_complement_turns_the_interval_round() -> None:
    assert complement(Estimate(0.2, 0.1, 0.4)) == Estimate(0.8, 0.6, 0.9)
