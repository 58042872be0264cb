"""Matrix products over several tiles of rows, against the definitions."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import dense
from workbench.kernels.latent_sum import reference as sums
from workbench.kernels.sparse_decode import reference


@pytest.fixture(params=[1, 3, 1000])
def rows_a_tile(request, monkeypatch):
    monkeypatch.setattr(dense, "TILE_ELEMENTS", 40 * request.param)


@pytest.mark.usefixtures("rows_a_tile")
def test_products_over_tiles_equal_the_definitions(assert_within_rounding):
    indices, values = torch.randint(40, (10, 30)), torch.randn(10, 30)
    W_dec, grad = torch.randn(40, 7), torch.randn(10, 7)
    exact = [t.double() for t in (values, W_dec, grad)]
    for ours, plain, true in (
        (
            dense.decode(indices, values, W_dec),
            reference.sparse_decode(indices, values, W_dec),
            reference.sparse_decode(indices, exact[0], exact[1]),
        ),
        (
            dense.value_gradients(indices, grad, W_dec),
            reference.value_gradients(indices, grad, W_dec),
            reference.value_gradients(indices, exact[2], exact[1]),
        ),
        (
            dense.latent_sum(indices, values, grad, 40),
            sums.latent_sum(indices, values, grad, 40),
            sums.latent_sum(indices, exact[0], exact[2], 40),
        ),
    ):
        assert_within_rounding(ours, plain, true)


def test_density_counts_entries_not_padding():
    values = torch.zeros(4, 10)
    values[:, 0] = 1
    assert not dense.is_dense(values, 20, 0.1)
    values[:, :3] = 1
    assert dense.is_dense(values, 20, 0.1)
