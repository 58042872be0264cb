"""Reconstruction and sparsity: sums per block, from which ratios and their intervals are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from workbench.dictionaries import Dictionary


@dataclass(frozen=True)
class BlockSums:
    """Per block of text: squared error and number of firings, in float64.

    Attributes:
        squared_error: Sum over tokens of |x - x_hat|^2 (block).
        n_firings: Latents with a positive value, summed over tokens (block).
        reconstruction: x_hat (block, pos, d).
    """

    squared_error: Float64[Tensor, " block"]
    n_firings: Float64[Tensor, " block"]
    reconstruction: Float[Tensor, "block pos d"]


def block_sums(dictionary: Dictionary, x: Float[Tensor, "block pos d"]) -> BlockSums:
    """Error and sparsity of a dictionary on whole blocks. Status: exact."""
    indices, values = dictionary.encode(x.flatten(0, 1))
    reconstruction = dictionary.decode(indices, values).view(x.shape)
    error = (x - reconstruction).double().square().sum((1, 2))
    firings = (values > 0).double().view(len(x), -1).sum(1)
    return BlockSums(error, firings, reconstruction)


def spread(x: Float[Tensor, "block pos d"]) -> Float64[Tensor, " block"]:
    """Per block the summed squared distance from the mean over all blocks: the variance that FVU is a fraction of."""
    exact = x.double()
    return (exact - exact.mean((0, 1))).square().sum((1, 2))


def dead_frac(dictionary: Dictionary, batches: Iterable[Float[Tensor, "row d"]]) -> float:
    """Share of latents that are positive on none of the rows. Status: exact for these rows; falls with more."""
    fired = torch.zeros(dictionary.d_sae, dtype=torch.bool)
    for rows in batches:
        indices, values = dictionary.encode(rows)
        fired[indices[values > 0]] = True
    return 1 - float(fired.float().mean())
