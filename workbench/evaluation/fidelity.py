"""Reconstruction and sparsity: sums per row, from which ratios and their intervals are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from workbench.dictionaries import Dictionary


@dataclass(frozen=True)
class RowSums:
    """Per row: squared error and number of firings, in float64.

    Attributes:
        squared_error: |x - x_hat|^2 (row).
        n_firings: Latents with a positive value (row).
        reconstruction: x_hat (row, d).
    """

    squared_error: Float64[Tensor, " row"]
    n_firings: Float64[Tensor, " row"]
    reconstruction: Float[Tensor, "row d"]


def row_sums(dictionary: Dictionary, x: Float[Tensor, "row d"]) -> RowSums:
    """Error and sparsity of a dictionary on rows. Status: exact."""
    indices, values = dictionary.encode(x)
    reconstruction = dictionary.decode(indices, values)
    error = (x - reconstruction).double().square().sum(1)
    return RowSums(error, (values > 0).double().sum(1), reconstruction)


def spread(x: Float[Tensor, "row d"]) -> Float64[Tensor, " row"]:
    """Squared distance of each row from the mean over all rows: the variance that FVU is a fraction of."""
    exact = x.double()
    return (exact - exact.mean(0)).square().sum(1)


def dead_frac(dictionary: Dictionary, batches: Iterable[Float[Tensor, "row d"]]) -> float:
    """Share of latents that are positive on none of the rows. Status: exact for these rows; falls with more."""
    fired = torch.zeros(dictionary.d_sae, dtype=torch.bool)
    for rows in batches:
        indices, values = dictionary.encode(rows)
        fired[indices[values > 0]] = True
    return 1 - float(fired.float().mean())
