"""Latent sum on a CPU: a stable radix sort by latent, then one weighted bag of rows per latent.

The sort turns the row-major (indices, values) into a latent-major list, so each output row is accumulated
by one thread, in the order of the batch: deterministic, no atomics, no (row * k, d) intermediate.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

RADIX = 1 << 16


def stable_order(latents: np.ndarray, d_sae: int) -> np.ndarray:
    """Positions that sort `latents` stably: one 16-bit radix pass, or two where d_sae needs more bits."""
    order = np.argsort((latents % RADIX).astype(np.uint16), kind="stable")
    if d_sae <= RADIX:
        return order
    return order[np.argsort((latents[order] // RADIX).astype(np.uint16), kind="stable")]


def latent_sum(
    indices: Int[Tensor, "row k"], values: Float[Tensor, "row k"], rows: Float[Tensor, "row d"], d_sae: int
) -> Float[Tensor, "d_sae d"]:
    """As `reference.latent_sum`; bit-reproducible. Status: exact. Latents up to 2**32."""
    latents = indices.numpy().ravel()
    order = stable_order(latents, d_sae)
    ends = np.bincount(latents, minlength=d_sae).cumsum()
    offsets = torch.from_numpy(np.concatenate([np.zeros(1, dtype=np.int64), ends]))
    members = torch.from_numpy(order // max(indices.shape[1], 1))
    weights = values.reshape(-1)[torch.from_numpy(order)]
    return functional.embedding_bag(
        members, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
