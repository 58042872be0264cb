"""The last positions of a prompt, run behind the keys and values of the positions before them.

In a causal model a change at position p leaves every position before p as it was. So a patched run needs the
positions from p on only, if attention still sees the earlier ones:

    keys = [base keys of positions < first, own keys of positions >= first]        (values alike)

`KeyValues` holds the base run's ready keys (normed, rotated) and values. Status: exact for causal attention,
windows included; `first_changed` gives None where a layer looks ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, Attention, Surroundings
from workbench.tasks import Batch


@dataclass(frozen=True)
class KeyValues:
    """Keys as scores use them and values of one run, by layer.

    Attributes:
        keys: Per layer (prompt, kv_head, pos, d_head).
        values: The same.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


@torch.no_grad()
def key_values(anatomy: Anatomy, resid: tuple[Tensor, ...]) -> KeyValues:
    """Keys and values of a run from its stream at every depth. Status: exact."""
    around = anatomy.around(resid[0].shape[1])
    keys, values = [], []
    for block, here in zip(anatomy.blocks, around, strict=True):
        normed = block.ln1(resid[2 * block.layer])
        keys.append(block.attn.ready(block.attn.project(normed, "k"), "k", here))
        values.append(block.attn.project(normed, "v").transpose(-2, -3))
    return KeyValues(tuple(keys), tuple(values))


def rows_from(around: Surroundings, first: int, stop: int | None = None) -> Surroundings:
    """Mask rows and rotary tables of the positions from `first` on (before `stop`)."""
    rows = slice(first, stop)
    cos, sin = (None if t is None else t[rows] for t in (around.cos, around.sin))
    return Surroundings(around.allowed[rows, :stop], cos, sin)


def mix_ready(
    attn: Attention,
    q: Float[Tensor, "row head query d_head"],
    k: Float[Tensor, "row kv_head key d_head"],
    v: Float[Tensor, "row kv_head key d_head"],
    allowed: Tensor,
) -> Float[Tensor, "row query head d_head"]:
    """Heads' outputs z from ready queries and keys. Status: exact."""
    if attn.group > 1:
        k, v = (t.repeat_interleave(attn.group, dim=1) for t in (k, v))
    if attn.soft_cap:
        scores = attn.soft_cap * torch.tanh((q * attn.scale) @ k.transpose(-1, -2) / attn.soft_cap)
        z = scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v
    else:
        z = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=attn.scale)
    return z.transpose(1, 2)


def looks_ahead(anatomy: Anatomy, length: int) -> bool:
    """Whether any layer lets a position see a later one."""
    return any(bool(here.allowed.triu(1).any()) for here in anatomy.around(length))


def first_changed(
    anatomy: Anatomy, one: Int[Tensor, "prompt pos"], other: Int[Tensor, "prompt pos"]
) -> int | None:
    """First position at which any two paired prompts differ, the last if none does; None where a layer looks ahead."""
    if looks_ahead(anatomy, one.shape[1]):
        return None
    differ = (one != other).any(0).nonzero()
    return int(differ[0]) if len(differ) else one.shape[1] - 1


def answer_difference(
    anatomy: Anatomy, x: Float[Tensor, "*batch d_model"], batch: Batch
) -> Float[Tensor, "*batch"]:
    """m from the last stream at the last position; only the two answers' columns of the unembedding are used.

    Status: exact, equal to `metric.logit_difference` of all logits.
    """
    normed, readout = anatomy.ln_final(x), anatomy.readout

    def logit(token: Tensor) -> Tensor:
        value = (normed * readout.W_U.T[token]).sum(-1)
        value = value if readout.b_U is None else value + readout.b_U[token]
        return readout.soft_cap * torch.tanh(value / readout.soft_cap) if readout.soft_cap else value

    return logit(batch.answer) - logit(batch.counterfactual_answer)
