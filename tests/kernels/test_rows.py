"""Elementwise work in the pool equals the plain expression, and sums have one order."""

from __future__ import annotations

import torch

from workbench.kernels import rows


def test_elementwise_functions_equal_torch(two_threads):
    x, other, b = torch.randn(1100, 6).T.contiguous().T, torch.randn(1100, 6), torch.randn(6)
    values, indices = torch.randn(1100, 6).relu(), torch.randint(50, (1100, 3))
    parameter = torch.randn(50)
    with two_threads():
        assert torch.equal(rows.centre(x, b), x - b)
        assert torch.equal(rows.where_nonzero(x, values), x.where(values != 0, 0))
        assert torch.equal(rows.gather(parameter, indices), parameter[indices])
        out = torch.empty(1100, 6)
        rows.add_scaled(x, torch.tensor(3.0), None, out)
        assert torch.equal(out, x * 3)
        rows.add_scaled(x, torch.tensor(3.0), other, out)
        assert torch.equal(out, other + x * 3)
        expected = x.relu()
        assert rows.relu(x) is x
        assert torch.equal(x, expected)


def test_sums_equal_torch_and_do_not_depend_on_threads(two_threads):
    for n_rows in (0, 1, 5, 1000):
        x, weights = torch.randn(n_rows, 7), torch.randn(n_rows)
        total, weighted = rows.column_sum(x), rows.weighted_sum(weights, x)
        assert torch.allclose(total.double(), x.double().sum(0), atol=1e-4)
        assert torch.allclose(weighted.double(), weights.double() @ x.double(), atol=1e-4)
        with two_threads():
            assert torch.equal(total, rows.column_sum(x))
            assert torch.equal(weighted, rows.weighted_sum(weights, x))
