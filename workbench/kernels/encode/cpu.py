"""Encode-and-select on a CPU: a low-precision product proposes, float32 dot products decide.

Tiles of rows go through a product in bfloat16 (where the processor has instructions for it, else float32),
whose result stays in the cache; a compiled loop lists the latents that can be chosen, given the proven bound on
the product's error; those alone are computed in float32, by one loop and in a fixed order, and the rule is
applied to these values. Rows whose list is too long to pay are proposed in float32, and rows where even that
cannot tell (many equal values, numbers that are not finite) have every latent computed. So the choice is always
that of the float32 values, at the price of the low-precision product.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels.encode import lists, loops, reference, scoring
from workbench.kernels.encode.screen import Encoder, screen

Code = tuple[Int[Tensor, "row width"], Float[Tensor, "row width"]]
MAXIMA = 256


def select_topk(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
) -> Code:
    """As `reference.select_topk`, for values that are float32 dot products. Status: exact; bit-reproducible."""
    if x.dtype != torch.float32:
        return reference.select_topk(x, rows, bias, k)
    encoder = Encoder(x, rows, bias)
    indices, values = torch.empty(len(x), k, dtype=torch.int64), x.new_empty(len(x), k)
    n_maxima = min(encoder.d_sae, max(MAXIMA, 1 << (4 * k - 1).bit_length()))

    def list_latents(given: tuple, latents: np.ndarray, lows: np.ndarray, counts: np.ndarray) -> None:
        loops.propose_largest(*given, k, np.float32(0), n_maxima, latents, lows, counts)

    def take(which: np.ndarray, latents: np.ndarray, computed: np.ndarray, counts: np.ndarray) -> None:
        scoring.choose_largest(latents, computed, counts, k, which, indices.numpy(), values.numpy())

    screen(encoder, 2 * k + 256, list_latents, take)
    return indices, values


def select_group_max(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
) -> Code:
    """As `reference.select_group_max`, for values that are float32 dot products. Status: exact; bit-reproducible."""
    if x.dtype != torch.float32:
        return reference.select_group_max(x, rows, bias, k)
    encoder, size = Encoder(x, rows, bias), len(rows) // k
    indices, values = torch.empty(len(x), k, dtype=torch.int64), x.new_empty(len(x), k)

    def list_latents(given: tuple, latents: np.ndarray, lows: np.ndarray, counts: np.ndarray) -> None:
        loops.propose_group_max(*given, size, latents, counts)

    def take(which: np.ndarray, latents: np.ndarray, computed: np.ndarray, counts: np.ndarray) -> None:
        scoring.choose_group_max(latents, computed, counts, size, which, indices.numpy(), values.numpy())

    screen(encoder, 4 * k + 256, list_latents, take)
    return indices, values


def select_above(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, " d_sae"],
) -> Code:
    """As `reference.select_above`; bit-reproducible. Status: exact.

    Values are the float32 dot products of the other rules, or where the latents above are many (`DENSE_FRAC`
    in `lists.py`) those of a float32 matrix product.
    """
    if x.dtype != torch.float32 or not len(x):
        return reference.select_above(x, rows, bias, threshold)
    return lists.select_above(Encoder(x, rows, bias), threshold)


def select_batch_topk(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n_keep: int,
) -> Code:
    """As `reference.select_batch_topk`, for values that are float32 dot products. Status: exact; bit-reproducible."""
    if x.dtype != torch.float32:
        return reference.select_batch_topk(x, rows, bias, n_keep)
    return lists.select_batch_topk(Encoder(x, rows, bias), n_keep)
