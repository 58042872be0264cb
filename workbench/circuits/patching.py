"""Exact effects by intervention: each node's clean value replaced by its counterfactual value.

The replacement is done at all positions at once, each position by the value at the same position of the
paired prompt, and everything downstream is recomputed; nothing is frozen. Nodes that write at one depth
are patched together in the batch dimension and only the blocks after that depth are run.

Sources: Vig et al. 2020, arXiv:2004.12265; Zhang and Nanda 2023, arXiv:2309.16042.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.metric import metric_of_streams
from workbench.circuits.nodes import Node, component_depth
from workbench.circuits.observation import Observation, patch_change
from workbench.circuits.split import Split, feature_change, written_rows
from workbench.dictionaries import Dictionary
from workbench.progress import Progress

MAX_TOKENS = 8192


def patch_writes(
    anatomy: Anatomy,
    seen: Observation,
    changes: Sequence[Callable[[], Tensor]],
    *,
    depth: int,
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> Float[Tensor, "node prompt"]:
    """Effect of adding each change to the clean stream at `depth`, in logits. Status: exact.

    Args:
        anatomy: The model.
        seen: The batch of pairs.
        changes: One function a node giving counterfactual minus clean output (prompt, pos, d_model).
        depth: Where all of them write.
        max_tokens: Largest number of tokens in one forward pass.
        progress: Advanced by one a node.
    """
    base = seen.clean.resid[depth]
    width = max(1, max_tokens // base[..., 0].numel())
    effects = []
    for start in range(0, len(changes), width):
        chunk = torch.stack([base + change() for change in changes[start : start + width]])
        effects.append(seen.clean_logits - metric_of_streams(anatomy, chunk, depth, seen.batch))
        if progress is not None:
            progress.advance(len(chunk))
    return torch.cat(effects) if effects else base.new_zeros(0, base.shape[0])


def patch_components(
    anatomy: Anatomy, seen: Observation, nodes: Sequence[Node], *, progress: Progress | None = None
) -> Float[Tensor, "node prompt"]:
    """Exact effect of each component on each prompt, in logits. Status: exact."""
    effects = seen.clean_logits.new_zeros(len(nodes), len(seen.clean_logits))
    depths = [component_depth(node) for node in nodes]
    for depth in sorted(set(depths)):
        rows = [row for row, at in enumerate(depths) if at == depth]
        changes = [_component_change(anatomy, seen, nodes[row]) for row in rows]
        effects[rows] = patch_writes(anatomy, seen, changes, depth=depth, progress=progress)
    return effects


def _component_change(anatomy: Anatomy, seen: Observation, node: Node) -> Callable[[], Tensor]:
    return lambda: patch_change(anatomy, seen, node)


def patch_features(
    anatomy: Anatomy,
    seen: Observation,
    split: Split,
    dictionary: Dictionary,
    *,
    depth: int,
    features: Sequence[int],
    progress: Progress | None = None,
) -> Float[Tensor, "feature prompt"]:
    """Exact effect of each feature on each prompt, in logits; the error stays clean. Status: exact."""

    def change_of(feature: int) -> Callable[[], Tensor]:
        return lambda: feature_change(split, feature).unsqueeze(-1) * dictionary.W_dec[feature]

    return patch_writes(anatomy, seen, [change_of(f) for f in features], depth=depth, progress=progress)


def patch_error(anatomy: Anatomy, seen: Observation, split: Split, *, depth: int) -> Float[Tensor, " prompt"]:
    """Exact effect of the dictionary's error node on each prompt, in logits. Status: exact."""
    change = split.counterfactual.error - split.clean.error
    return patch_writes(anatomy, seen, [lambda: change], depth=depth)[0]


def patch_together(
    anatomy: Anatomy,
    seen: Observation,
    split: Split,
    dictionary: Dictionary,
    *,
    depth: int,
    features: Int[Tensor, " feature"],
) -> Float[Tensor, " prompt"]:
    """Exact effect of replacing all of `features` at once, in logits. Status: exact."""
    new, old = split.counterfactual, split.clean
    kept = [codes.values * torch.isin(codes.indices, features) for codes in (new, old)]
    change = written_rows(dictionary.W_dec, new, kept[0]) - written_rows(dictionary.W_dec, old, kept[1])
    return patch_writes(anatomy, seen, [lambda: change], depth=depth)[0]
