"""Definition of the sparse encoding: encode everything at once, then drop the zeros."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


def encode_csr(x: Float[Tensor, "row d_in"], encode: Encode) -> tuple[Tensor, Tensor, Tensor]:
    """Row offsets (int64), latents (int32) and values of the non-zero entries, row by row. Status: exact."""
    indices, values = encode(x)
    kept = values != 0
    offsets = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
    offsets[1:] = kept.sum(1).cumsum(0)
    return offsets, indices[kept].int(), values[kept]
