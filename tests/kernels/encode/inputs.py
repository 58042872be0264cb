"""Batches and encoders of the kinds that selection must get right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Inputs = tuple[Tensor, Tensor, Tensor]
"""Centred rows, one encoder row per latent, biases."""


def random(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Gaussian rows, unit encoder rows."""
    rows = functional.normalize(torch.randn(d_sae, d_in), dim=1)
    return torch.randn(n_rows, d_in), rows, 0.1 * torch.randn(d_sae)


def equal_latents(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Every latent has seven copies."""
    x, rows, bias = random(n_rows, d_in, d_sae)
    copy_of = torch.arange(d_sae) // 8
    return x, rows[copy_of], bias[copy_of]


def nearly_equal_latents(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Groups of latents that differ by less than bfloat16 can tell."""
    x, rows, bias = random(n_rows, d_in, d_sae)
    group = torch.arange(d_sae) // 50
    return x, rows[group] + 1e-5 * torch.randn_like(rows), bias[group]


def small_integers(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Few different values, all exact: ties everywhere, inside the selection and at its edge."""
    return (
        torch.randint(-2, 3, (n_rows, d_in)).float(),
        torch.randint(-1, 2, (d_sae, d_in)).float(),
        torch.randint(-1, 2, (d_sae,)).float(),
    )


def correlated(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Rows that are sparse sums of some of the encoder rows, norms that differ, as after training."""
    _, rows, bias = random(n_rows, d_in, d_sae)
    code = torch.rand(n_rows, d_sae) * (torch.rand(n_rows, d_sae) < 10 / d_sae)
    rows = rows * (0.5 + torch.rand(d_sae, 1))
    return 3 * code @ rows + 0.05 * torch.randn(n_rows, d_in), rows, bias - 0.3


def outliers(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """One coordinate a thousand times the others, and a few huge rows and latents."""
    x, rows, bias = random(n_rows, d_in, d_sae)
    x[:, 0] *= 1000
    x[::7] *= 100
    rows[::31] *= 50
    return x, rows, bias


def huge_biases(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Biases that swamp the products: rounding the sum decides."""
    x, rows, bias = random(n_rows, d_in, d_sae)
    return x, rows, bias + 1e4 * (1 + torch.arange(d_sae) // (d_sae // 3 + 1))


def tiny(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Products of 1e-38, where bfloat16 instructions flush to zero."""
    x, rows, _ = random(n_rows, d_in, d_sae)
    return 1e-20 * x, 1e-18 * rows, torch.zeros(d_sae)


def zero_rows(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Some rows zero and some latents zero, all of their values equal."""
    x, rows, _ = random(n_rows, d_in, d_sae)
    x[::3], rows[::5] = 0, 0
    return x, rows, torch.zeros(d_sae)


def all_negative(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Nothing is positive."""
    x, rows, bias = random(n_rows, d_in, d_sae)
    return x, rows, bias - 100


def bfloat16_numbers(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """Factors that bfloat16 holds exactly: only the sums and the products' own rounding are off."""
    x, rows, bias = random(n_rows, d_in, d_sae)
    return x.bfloat16().float(), rows.bfloat16().float(), bias


def not_finite(n_rows: int, d_in: int, d_sae: int) -> Inputs:
    """A row with infinity; the other rows as usual."""
    x, rows, bias = random(n_rows, d_in, d_sae)
    x[0] = torch.inf
    return x, rows.abs(), bias


KINDS = [
    random,
    equal_latents,
    nearly_equal_latents,
    small_integers,
    correlated,
    outliers,
    huge_biases,
    tiny,
    zero_rows,
    all_negative,
    bfloat16_numbers,
    not_finite,
]
