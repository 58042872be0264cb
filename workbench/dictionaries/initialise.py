"""Where dictionaries start: centre, scale and directions; and the random dictionary, the control of every claim."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.base import Dictionary


def geometric_median(rows: Float[Tensor, "row d"], *, n_iterations: int = 20) -> Float[Tensor, " d"]:
    """The point with the least summed distance to the rows, by Weiszfeld's iteration from the mean.

    Unlike the mean it is not drawn by a few rows of great norm.

    Status: an iterate, not the limit; more than precise enough for a starting point.
    Reference: Weiszfeld 1937; used for b_dec by Gao et al. 2024, arXiv:2406.04093.
    """
    median = rows.mean(0)
    for _ in range(n_iterations):
        weights = 1 / (rows - median).norm(dim=1).clamp_min(1e-8)
        median = (weights @ rows) / weights.sum()
    return median


def unit_rows(n_rows: int, d: int, generator: torch.Generator) -> Float[Tensor, "row d"]:
    """Directions uniform on the sphere."""
    return torch.nn.functional.normalize(torch.randn(n_rows, d, generator=generator), dim=1)


def random_dictionary(*, like: Dictionary, seed: int = 0) -> Dictionary:
    """The control: random unit decoder rows, tied encoder, zero encoder bias; centre, k and sizes of `like`.

    It keeps `b_dec`, so that what it lacks is the learned directions only.

    Args:
        like: The dictionary that it is the control of.
        seed: Decides the directions.

    Status: exact (bit-reproducible in the seed).
    """
    directions = unit_rows(like.d_sae, like.d_in, torch.Generator().manual_seed(seed)).to(like.W_dec)
    metadata = {"control": "random directions", "seed": seed, "like": like.hash}
    zeros = torch.zeros_like(like.b_enc)
    return replace(like, W_enc=directions.T, W_dec=directions, b_enc=zeros, metadata=metadata)
