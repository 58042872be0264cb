"""The gradient of m at every reader's input, in closed form from the few gradients on a tape.

    G_r = N'(x)^T (g_r W_r^T),       N'(x)^T h = C(h w - u mean(u . h w)) / s,       u = C(x) / s

with N the norm before the reader (weight w, scale s, C the centring, or nothing, u the normed stream) and W_r the
head's own projection, g_r the gradient at its raw query, key or value. As u is centred, C and w are folded into
W_r, so all heads of a layer cost one batched matrix product and one addition: no stream is copied for a reader and
autograd never sees one. Status: exact (tests/circuits/wiring/test_scores.py compares with autograd on a forked graph).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Norm
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.tape import Tape


def reader_gradients(wiring: Wiring, tape: Tape) -> Iterator[tuple[list[int], Tensor]]:
    """Columns of some readers and the gradients at their inputs (reader, prompt, pos, d_model), piece by piece.

    A piece with one position is that of the last position. Layers that the tape has not run are left out.
    """
    for layer, block in enumerate(wiring.anatomy.blocks):
        if (layer, "q") in tape.gradients:
            x, reads = tape.values[layer, "in"], wiring.reads[layer]
            for part in "qkv":
                gradient = tape.gradients[layer, part].transpose(0, 1)
                here = x[:, -gradient.shape[2] :]
                yield list(reads[part]), pull_heads(block.ln1, block.attn.weight(part), gradient, here)
        if (layer, "mlp") in tape.gradients:
            gradient = block.ln2.pull_live(tape.gradients[layer, "mlp"], tape.values[layer, "mid"])
            yield [wiring.mlp_reads[layer]], gradient[None]
    yield [wiring.logit], wiring.anatomy.ln_final.pull_live(tape.final_gradient, tape.final)[None]


def pull_heads(
    norm: Norm,
    weight: Float[Tensor, "head d_model d_head"],
    gradient: Float[Tensor, "head prompt pos d_head"],
    x: Float[Tensor, "prompt pos d_model"],
) -> Float[Tensor, "head prompt pos d_model"]:
    """Gradients at the norm's input `x`, head by head, from those at raw projections. Status: exact."""
    if norm.identity:
        return torch.bmm(gradient.flatten(1, 2), weight.transpose(1, 2)).view(*gradient.shape[:3], -1)
    scale = norm.scale(x)
    unit = (x - x.mean(-1, keepdim=True) if norm.centred else x) / scale
    folded = weight if norm.weight is None else weight * norm.weight[:, None]
    folded = folded - folded.mean(1, keepdim=True) if norm.centred else folded
    pulled = torch.bmm((gradient / scale).flatten(1, 2), folded.transpose(1, 2)).view(*gradient.shape[:3], -1)
    along = torch.einsum("rpsd,psd->rps", pulled, unit) / x.shape[-1]
    return pulled.addcmul_(along[..., None], unit, value=-1)
