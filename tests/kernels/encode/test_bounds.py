"""The bound on the proposal's error holds for every pair, and rounding is what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.encode import inputs
from workbench.kernels.encode import bounds, screen


def ends(x, rows, bias, dtype):
    """p + b in float64 and the bound on what it is off by."""
    low_x, low_w = bounds.rounded(x, dtype), bounds.rounded(rows, dtype)
    margin = bounds.margin(low_x, low_w, bias.numpy())
    products = (low_x.low @ low_w.low.T).double()
    sums = products + bias
    parts = margin.slope * products.abs() + 2.0**-21 * sums.abs()
    return sums, parts + torch.from_numpy(
        margin.row[:, None].astype(float) * margin.norm + margin.floor[:, None]
    )


@pytest.mark.parametrize("kind", inputs.KINDS[:-1], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_bound_holds_for_float32_values_and_for_real_numbers(kind, dtype):
    given = kind(60, 48, 500)
    sums, bound = ends(*given, dtype)
    x, rows, bias = (t.double() for t in given)
    encoder = screen.Encoder(*given)
    deciding = torch.from_numpy(screen.whole(encoder, np.arange(60))[1]).double()
    assert ((sums - deciding).abs() <= bound).all()
    assert ((sums - (x @ rows.T + bias)).abs() <= bound).all()


def test_bound_is_within_a_factor_of_the_worst_case():
    """A row and a latent whose rounding errors all line up come within a factor of the bound: it is not idle."""
    x = torch.full((1, 256), 1 + 2.0**-8 - 2.0**-12)
    sums, bound = ends(x, x, torch.zeros(1), torch.bfloat16)
    error = (sums - (x.double() @ x.double().T)).abs()
    assert 0.4 < float(error / bound) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_rounding_is_torch_rounding(numbers):
    rows = torch.tensor([numbers])
    found = bounds.rounded(rows, torch.bfloat16)
    assert torch.equal(found.low.view(torch.int16), rows.bfloat16().view(torch.int16))
    lost = (rows.double() - found.low.double()).norm(dim=1).numpy()
    assert (found.lost + 2.0**-60 >= lost).all() or not np.isfinite(found.lost).all()
