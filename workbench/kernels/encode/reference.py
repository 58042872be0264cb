"""Definition of encode-and-select: dense pre-activations, then a stable sort or a mask.

The `select_*` functions are what a backend provides. They take rows that are already centred and the
encoder as one contiguous row per latent, and return indices and pre-activations. The functions named as the
public ones are the same with centring and ReLU, differentiable by autograd in the selected entries.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

Code = tuple[Int[Tensor, "row width"], Float[Tensor, "row width"]]


def select_topk(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
) -> Code:
    """The k largest of a = x @ rows.T + bias per row, descending; equal values: the lower index first."""
    values, indices = (x @ rows.T + bias).sort(dim=1, descending=True, stable=True)
    return indices[:, :k], values[:, :k]


def select_batch_topk(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n_keep: int,
) -> Code:
    """The n_keep largest positive a of the batch; ties: lower row, then lower latent. Rows descending, padded."""
    pre = x @ rows.T + bias
    flat, order = pre.flatten().sort(descending=True, stable=True)
    order = order[:n_keep][flat[:n_keep] > 0]
    kept = torch.zeros_like(pre, dtype=torch.bool)
    kept.view(-1)[order] = True
    values, indices = pre.masked_fill(~kept, -torch.inf).sort(dim=1, descending=True, stable=True)
    return _padded(indices, values, kept.sum(1))


def select_above(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, " d_sae"],
) -> Code:
    """All a > threshold, per row by ascending latent, padded."""
    pre = x @ rows.T + bias
    kept = pre > threshold
    indices = (~kept).to(torch.uint8).sort(dim=1, stable=True).indices
    return _padded(indices, pre.gather(1, indices), kept.sum(1))


def select_group_max(
    x: Float[Tensor, "row d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
) -> Code:
    """The largest a of each of k groups of consecutive latents, in group order; ties: the lower index."""
    size = len(rows) // k
    pre = (x @ rows.T + bias).view(len(x), k, size)
    values, places = pre.sort(dim=2, descending=True, stable=True)
    return places[:, :, 0] + torch.arange(k, device=x.device) * size, values[:, :, 0]


def _padded(
    indices: Int[Tensor, "row d_sae"], values: Float[Tensor, "row d_sae"], counts: Int[Tensor, " row"]
) -> Code:
    """The first `counts` entries of each row, then (0, 0.0) up to the largest count, at least one column."""
    width = max(1, int(counts.max())) if len(counts) else 1
    inside = torch.arange(width, device=values.device) < counts[:, None]
    return indices[:, :width].where(inside, 0), values[:, :width].where(inside, 0)


def topk_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    k: int,
    among: Int[Tensor, " candidate"] | None = None,
) -> Code:
    """`select_topk` on (x - b_pre), among some latents or all, then ReLU. Status: exact."""
    candidates = torch.arange(W_enc.shape[1], device=x.device) if among is None else among
    indices, values = select_topk(x - b_pre, W_enc.T[candidates], b_enc[candidates], k)
    return candidates[indices], values.relu()


def batch_topk_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    k: float | int,
) -> Code:
    """`select_batch_topk` on (x - b_pre) with n_keep = round(rows * k). Status: exact."""
    return select_batch_topk(x - b_pre, W_enc.T, b_enc, round(len(x) * k))


def threshold_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    threshold: Float[Tensor, " d_sae"],
) -> Code:
    """`select_above` on (x - b_pre); no ReLU. Status: exact."""
    return select_above(x - b_pre, W_enc.T, b_enc, threshold)


def group_max_encode(
    x: Float[Tensor, "row d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_pre: Float[Tensor, " d_in"],
    *,
    k: int,
) -> Code:
    """`select_group_max` on (x - b_pre), then ReLU. Status: exact."""
    indices, values = select_group_max(x - b_pre, W_enc.T, b_enc, k)
    return indices, values.relu()
