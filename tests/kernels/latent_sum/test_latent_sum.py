"""Latent sum against its definition in float64."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import latent_counts, latent_sum, latent_total
from workbench.kernels.latent_sum import reference

SHAPES = [(64, 8, 16, 32), (7, 3, 5, 11), (1, 1, 1, 1), (33, 4, 9, 70_000)]


@pytest.mark.parametrize(("n_rows", "k", "d", "d_sae"), SHAPES)
def test_equals_definition_in_float64(n_rows, k, d, d_sae, assert_within_rounding):
    indices, values, rows = torch.randint(d_sae, (n_rows, k)), torch.randn(n_rows, k), torch.randn(n_rows, d)
    exact = reference.latent_sum(indices, values.double(), rows.double(), d_sae)
    plain = reference.latent_sum(indices, values, rows, d_sae)
    assert_within_rounding(latent_sum(indices, values, rows, d_sae), plain, exact)
    assert torch.allclose(latent_sum(indices, values.double(), rows.double(), d_sae), exact, rtol=1e-12)


def test_latents_that_never_fire_get_exact_zeros():
    out = latent_sum(torch.tensor([[2, 2]]), torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]]), 4)
    assert torch.equal(out, torch.tensor([[0.0, 0.0], [0.0, 0.0], [4.0, 8.0], [0.0, 0.0]]))


def test_empty_batch_gives_zeros():
    out = latent_sum(torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 3), torch.empty(0, 5), 6)
    assert torch.equal(out, torch.zeros(6, 5))


def test_repeated_and_non_contiguous_calls_are_bit_equal():
    indices, values = torch.randint(20, (8, 200)).T, torch.randn(8, 200).T
    rows = torch.randn(16, 200).T
    first = latent_sum(indices, values, rows, 20)
    assert torch.equal(first, latent_sum(indices, values, rows, 20))
    assert torch.equal(first, latent_sum(indices.contiguous(), values.contiguous(), rows.contiguous(), 20))


def test_total_and_counts_equal_their_definitions(assert_within_rounding):
    indices, values = torch.randint(50, (300, 9)), torch.randn(300, 9)
    values = values.where(torch.rand(300, 9) < 0.7, 0)
    exact = reference.latent_total(indices, values.double(), 50)
    assert_within_rounding(
        latent_total(indices, values, 50), reference.latent_total(indices, values, 50), exact
    )
    assert torch.equal(latent_counts(indices, values, 50), reference.latent_counts(indices, values, 50))
    assert int(latent_counts(indices, values, 50).sum()) == int((values > 0).sum())


def test_many_threads_sum_in_the_same_order(two_threads):
    indices, values, rows = torch.randint(900, (700, 8)), torch.randn(700, 8), torch.randn(700, 33)
    one = latent_sum(indices, values, rows, 900)
    with two_threads():
        assert torch.equal(one, latent_sum(indices, values, rows, 900))
