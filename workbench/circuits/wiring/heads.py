"""Single heads on streams of their own: tensors (mask, head, prompt, pos, ...), head by head.

`Attention` maps one stream to all heads; here every head, and every one of its three inputs, may come from
another stream. The functions are the same: projection, norm of queries and keys, rotation, cap, mask, softmax.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Attention, Surroundings
from workbench.anatomy.attention import rotate


def per_head(
    x: Float[Tensor, "mask head prompt pos d_in"], W: Float[Tensor, "head d_in d_out"]
) -> Float[Tensor, "mask head prompt pos d_out"]:
    """Each head's rows times its own matrix."""
    if len(x) == 1:
        return torch.bmm(x[0].flatten(1, 2), W).unflatten(1, x.shape[2:4])[None]
    rows = x.transpose(0, 1).flatten(1, 3)
    return torch.bmm(rows, W).unflatten(1, (x.shape[0], *x.shape[2:4])).transpose(0, 1)


def project_one(
    attn: Attention, normed: Float[Tensor, "mask prompt pos d_model"], part: str, heads: list[int]
) -> Float[Tensor, "mask head prompt pos d_head"]:
    """Raw queries, keys or values of some heads that all read one stream."""
    W = attn.weight(part)[heads].transpose(0, 1).flatten(1)
    raw = (normed @ W).unflatten(-1, (len(heads), -1)).permute(0, 3, 1, 2, 4)
    return _biased(attn, raw, part, heads)


def project_each(
    attn: Attention, normed: Float[Tensor, "mask head prompt pos d_model"], part: str, heads: list[int]
) -> Float[Tensor, "mask head prompt pos d_head"]:
    """Raw queries, keys or values of some heads, each from its own stream."""
    weight = attn.weight(part)
    weight = weight if len(heads) == len(weight) else weight[heads]
    return _biased(attn, per_head(normed, weight), part, heads)


def _biased(attn: Attention, raw: Tensor, part: str, heads: list[int]) -> Tensor:
    bias = attn.bias(part)
    return raw if bias is None else raw + bias[heads][:, None, None]


def attend_heads(
    attn: Attention,
    q: Float[Tensor, "*batch query d_head"],
    k: Float[Tensor, "*batch key d_head"],
    v: Float[Tensor, "*batch key d_head"],
    around: Surroundings,
) -> Float[Tensor, "*batch query d_head"]:
    """Heads' outputs z, one head a batch entry; with fewer queries than keys these are the last positions."""
    allowed = around.allowed[-q.shape[-2] :]
    q, k = _ready(attn, q, "q", around), _ready(attn, k, "k", around)
    if not attn.soft_cap:
        flat = [t.reshape(-1, 1, *t.shape[-2:]) for t in (q, k, v)]
        z = torch.nn.functional.scaled_dot_product_attention(*flat, attn_mask=allowed, scale=attn.scale)
        return z.view(*q.shape[:-1], v.shape[-1])
    scores = (q * attn.scale) @ k.transpose(-1, -2)
    scores = attn.soft_cap * torch.tanh(scores / attn.soft_cap)
    return scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v


def _ready(attn: Attention, raw: Tensor, part: str, around: Surroundings) -> Tensor:
    normed = (attn.q_norm if part == "q" else attn.k_norm)(raw)
    if around.cos is None or around.sin is None:
        return normed
    n = raw.shape[-2]
    return rotate(normed, around.cos[-n:], around.sin[-n:], pairs=attn.pairs)
