"""Definition of encode-and-select: dense pre-activations, a stable sort, the first k, then ReLU."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def topk_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    k: int,
    among: Int[Tensor, " candidate"] | None = None,
) -> tuple[Int[Tensor, "row k"], Float[Tensor, "row k"]]:
    """The k largest of (x - b_pre) @ W_enc + b_enc per row, then ReLU; equal values: the lower index wins.

    Status: exact; differentiable by autograd in the selected entries.
    """
    pre = (x - b_pre) @ W_enc + b_enc
    candidates = torch.arange(pre.shape[1], device=x.device) if among is None else among
    values, order = pre[:, candidates].sort(dim=1, descending=True, stable=True)
    return candidates[order[:, :k]], values[:, :k].relu()
