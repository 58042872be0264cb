"""The metric with whole nodes kept or replaced, many sets of nodes in one batch.

    x_0 = embedding or its replacement;   z_h, MLP output: live where kept, else the replacement

Every reader sees the replaced value, so a set of nodes is the set of all edges that leave them, at the price of
one forward pass. Kept nodes are recomputed from what the replaced ones upstream write; nothing is frozen. It is
plain torch, so gradients reach the replacements. Status: exact (tests/circuits/validation/test_node_runs.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.anatomy import Edit
from workbench.circuits.metric import logit_difference
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.replacement import Replacement
from workbench.tasks import Batch

MAX_TOKENS = 8192


@torch.no_grad()
def node_metrics(
    wiring: Wiring,
    batch: Batch,
    replacement: Replacement,
    kept: Bool[Tensor, "mask writer"],
    *,
    max_tokens: int = MAX_TOKENS,
) -> Float[Tensor, "mask prompt"]:
    """m, in logits, of the clean prompts with all but the kept writers replaced. Status: exact.

    Args:
        wiring: The model's writers.
        batch: The pairs; only their clean prompts are run.
        replacement: What writers that are not kept become.
        kept: Columns as `wiring.writers`.
        max_tokens: Largest number of tokens in one forward pass.
    """
    embedded = wiring.anatomy.embed(batch.clean)
    width = max(1, max_tokens // embedded[..., 0].numel())
    return torch.cat([run_nodes(wiring, batch, embedded, replacement, part) for part in kept.split(width)])


def run_nodes(
    wiring: Wiring,
    batch: Batch,
    embedded: Tensor,
    replacement: Replacement,
    kept: Bool[Tensor, "mask writer"],
) -> Float[Tensor, "mask prompt"]:
    """One forward pass with the sets side by side; differentiable in the replacement."""
    kept = kept.to(embedded.device)
    stay = _stays_live(replacement, embedded)
    x = torch.where(kept[:, 0, None, None, None] | stay, embedded, replacement.embed)
    edits: dict[str, Edit] = {}
    for layer, (heads, mlp) in enumerate(zip(wiring.heads, wiring.mlps, strict=True)):
        keep = kept[:, None, None, heads.start : heads.stop, None] | stay[..., None]
        edits[f"blocks.{layer}.attn.hook_z"] = _swap(keep, replacement.z[layer])
        if mlp >= 0:
            keep = kept[:, mlp, None, None, None] | stay
            edits[f"blocks.{layer}.hook_mlp_out"] = _swap(keep, replacement.mlp[layer])
    return logit_difference(wiring.anatomy.last_logits(x, 0, edits), batch)


def _swap(keep: Tensor, value: Tensor) -> Edit:
    return lambda live: torch.where(keep, live, value)


def _stays_live(replacement: Replacement, embedded: Tensor) -> Bool[Tensor, "pos 1"]:
    """True at positions where nothing is replaced."""
    if replacement.positions is None:
        return torch.zeros(1, 1, dtype=torch.bool, device=embedded.device)
    return ~replacement.positions[:, None].to(embedded.device)
