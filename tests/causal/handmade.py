"""A model written by hand that solves a task with two heads and nothing else.

Every prompt is [0, t, u, v, w]: the answer is the token t at position 1. Head a0.h1 copies the token of
position 1 into a second subspace of every later position; head a1.h2 reads that subspace at position 2
and writes the token to where the unembedding looks. All other heads write noise of size `leak`.
"""

from __future__ import annotations

import torch
from transformer_lens.model_bridge import TransformerBridge

from workbench.circuits.nodes import Node
from workbench.tasks import Batch

N_TOKENS, N_POS = 6, 5
TOKEN, COPY, POSITION, OUT = 0, N_TOKENS, 2 * N_TOKENS, 2 * N_TOKENS + N_POS
D_MODEL, D_HEAD, N_HEADS = 3 * N_TOKENS + N_POS + 1, 6, 4
CIRCUIT = frozenset({Node("head", 0, 1), Node("head", 1, 2)})


def handmade_model(*, leak: float = 0.02, sharpness: float = 60.0) -> TransformerBridge:
    """Two attention-only layers without norm, float64."""
    shape = {
        "d_model": D_MODEL, "d_head": D_HEAD, "n_heads": N_HEADS, "n_layers": 2, "n_ctx": N_POS,
        "d_vocab": N_TOKENS, "attn_only": True, "normalization_type": None, "seed": 0,
        "act_fn": "gelu",
    }  # fmt: skip
    model = TransformerBridge.boot_native(shape, dtype=torch.float64)
    model.eval().requires_grad_(False)
    native = model.original_model
    for parameter in native.parameters():
        parameter.mul_(leak)
    _write_embeddings(native)
    _write_copy(native.layers[0].attn, head=1, source_pos=1, read=TOKEN, write=COPY, sharpness=sharpness)
    _write_copy(native.layers[1].attn, head=2, source_pos=2, read=COPY, write=OUT, sharpness=sharpness)
    return model


def _write_embeddings(native: torch.nn.Module) -> None:
    state = dict(native.named_parameters())
    for name, parameter in state.items():
        if name.startswith("tok_embed"):
            parameter.zero_()[:, TOKEN : TOKEN + N_TOKENS] = torch.eye(N_TOKENS)
        elif name.startswith("pos"):
            parameter.zero_()[:, POSITION : POSITION + N_POS] = torch.eye(N_POS)
        elif parameter.shape == (N_TOKENS, D_MODEL):
            parameter.zero_()[:, OUT : OUT + N_TOKENS] = 5 * torch.eye(N_TOKENS)


def _write_copy(
    attention: torch.nn.Module, *, head: int, source_pos: int, read: int, write: int, sharpness: float
) -> None:
    """Attend to `source_pos` from everywhere and copy one subspace to another."""
    rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
    for part in (attention.q, attention.k, attention.v):
        part.weight[rows] = 0
        part.bias[rows] = 0
    attention.q.bias[head * D_HEAD] = sharpness
    attention.k.weight[head * D_HEAD, POSITION + source_pos] = 1
    attention.v.weight[rows, read : read + N_TOKENS] = torch.eye(N_TOKENS, dtype=torch.float64)
    attention.o.weight[:, rows] = 0
    attention.o.weight[write : write + N_TOKENS, rows] = torch.eye(N_TOKENS, dtype=torch.float64)


def handmade_batch(*, n_pairs: int = 24, seed: int = 0) -> Batch:
    """Pairs that differ in the token of position 1 only."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, N_TOKENS, (n_pairs, N_POS), generator=generator)
    clean[:, 0] = 0
    other = clean.clone()
    other[:, 1] = (clean[:, 1] + torch.randint(1, N_TOKENS, (n_pairs,), generator=generator)) % N_TOKENS
    return Batch(clean, other, clean[:, 1], other[:, 1])
