"""Latent sum against its definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.kernels import latent_sum
from workbench.kernels.latent_sum import reference
from workbench.kernels.latent_sum.cpu import RADIX, stable_order

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


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3 * RADIX), min_size=1, max_size=300))
def test_two_radix_passes_sort_stably(latents):
    array = np.array(latents, dtype=np.int64)
    assert stable_order(array, 3 * RADIX + 1).tolist() == np.argsort(array, kind="stable").tolist()
