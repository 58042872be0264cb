"""What every writer adds to the stream, clean minus counterfactual, one table for all.

    embedding, MLPs   the difference of the two values
    heads             (z_clean - z_counterfactual) W_O, through the linearised post-norm where there is one

A norm behind the heads' sum makes a head's share depend on where it is linearised: at the same point as the
gradient, so that score = gradient . change is the derivative of the masked run of `executor.py`. Status: exact
without post-norms, first-order with them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.tape import Key

Values = dict[Key, Tensor]


def has_post_norms(wiring: Wiring) -> bool:
    """Whether heads of any block are normed together before they are added."""
    return any(not block.ln1_post.identity for block in wiring.anatomy.blocks)


def write_deltas(
    wiring: Wiring,
    embedded: Float[Tensor, "prompt pos d_model"],
    clean: Values,
    counterfactual: Values,
    at: Values,
) -> Float[Tensor, "writer prompt pos d_model"]:
    """The change of every writer.

    Args:
        wiring: The model's edges.
        embedded: Clean minus counterfactual embedding.
        clean: Values of the clean prompts.
        counterfactual: Values of the counterfactual prompts.
        at: Values at the point where post-norms are linearised.

    Returns:
        The table; the last layer's writers have their last position only, the others there are zero.
    """
    table = embedded.new_empty(wiring.n_writers, *embedded.shape)
    table[0] = embedded
    for layer, block in enumerate(wiring.anatomy.blocks):
        rows = wiring.heads[layer]
        change = head_deltas(wiring, layer, clean[layer, "z"] - counterfactual[layer, "z"])
        if not block.ln1_post.identity:
            change = block.ln1_post.push_live(change, at[layer, "mixed"])
        _write(table[rows.start : rows.stop], change)
        if wiring.mlps[layer] >= 0:
            _write(table[wiring.mlps[layer]], clean[layer, "mlp"] - counterfactual[layer, "mlp"])
    return table


def head_deltas(
    wiring: Wiring, layer: int, change: Float[Tensor, "prompt pos head d_head"]
) -> Float[Tensor, "head prompt pos d_model"]:
    """Changes of head outputs through each head's slice of W_O."""
    by_head = change.permute(2, 0, 1, 3)
    written = torch.bmm(by_head.flatten(1, 2), wiring.anatomy.blocks[layer].attn.W_O)
    return written.view(*by_head.shape[:3], -1)


def _write(rows: Tensor, change: Tensor) -> None:
    """Into the last positions of some rows; the others, if any, become zero."""
    n = change.shape[-2]
    rows[..., : rows.shape[-2] - n, :] = 0
    rows[..., rows.shape[-2] - n :, :] = change
