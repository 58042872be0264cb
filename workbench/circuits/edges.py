"""Edges: which components write a feature's input, and what every node does to the logit difference.

The stream at a dictionary's hook is the sum of all earlier outputs, so a feature's pre-activation
(x - b_dec) . W_enc[:, f] + b_enc splits exactly over the writers: the contribution of a writer is
(clean output - counterfactual output) . W_enc[:, f]. Biases are the same on both prompts and cancel. The
contributions of all writers sum to the change of the pre-activation
(tests/causal/test_edges.py). What lies between the pre-activation and the activation (TopK, ReLU) is not
part of the edge.

Into the logit node runs each node's total effect, exact where it was patched, else first-order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.nodes import Node, Site, component_depth
from workbench.circuits.observation import Observation, write_change
from workbench.circuits.split import Split, feature_values
from workbench.dictionaries import Dictionary

PRE_ACTIVATION, PATCHED_LOGITS, ATTRIBUTED_LOGITS = 0, 1, 2
EDGE_KINDS = ("writer to feature, pre-activation", "node to logit, patched", "node to logit, attributed")


@dataclass(frozen=True)
class Edges:
    """Weighted edges between rows of a node table, heaviest kinds first as added.

    Attributes:
        source: Row of the source node (edge).
        target: Row of the target node (edge).
        weight: In units of the target's pre-activation, or in logits where the target is the logit node (edge).
        kind: Index into `EDGE_KINDS` (edge).
    """

    source: Int[Tensor, " edge"]
    target: Int[Tensor, " edge"]
    weight: Float[Tensor, " edge"]
    kind: Int[Tensor, " edge"]

    def save(self, path: Path) -> None:
        """Write safetensors: source and target int32, weight float32, kind uint8."""
        tensors = {
            "source": self.source.to(torch.int32),
            "target": self.target.to(torch.int32),
            "weight": self.weight.to(torch.float32),
            "kind": self.kind.to(torch.uint8),
        }
        notes = {"edge_kinds": json.dumps(EDGE_KINDS)}  # one key: the order of several is not reproducible
        save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata=notes)


def writer_nodes(components: Sequence[Node], site: Site) -> tuple[Node, ...]:
    """Components whose outputs sum to the activation at the hook; none where the hook is one block output."""
    if not site.is_stream:
        return ()
    return tuple(node for node in components if component_depth(node) <= site.depth)


@torch.no_grad()
def writer_contributions(
    anatomy: Anatomy,
    seen: Observation,
    split: Split,
    dictionary: Dictionary,
    *,
    writers: Sequence[Node],
    features: Sequence[int],
) -> Float[Tensor, "writer feature prompt"]:
    """Clean minus counterfactual contribution of each writer to each feature's pre-activation.

    Summed over the positions at which the feature is active on either prompt. Summed over all writers it is
    the change of the pre-activation there. Status: exact.
    """
    active = active_positions(split, features)
    encoder = dictionary.W_enc[:, list(features)]
    parts = [-write_change(anatomy, seen, node) @ encoder for node in writers]
    per_position = torch.stack(parts) if parts else encoder.new_zeros(0, *active.shape)
    return torch.einsum("wnpf,npf->wfn", per_position, active.to(per_position.dtype))


def active_positions(split: Split, features: Sequence[int]) -> Bool[Tensor, "prompt pos feature"]:
    """Where each feature is active on the clean or the counterfactual prompt."""
    both = [
        (feature_values(split.clean, f) > 0) | (feature_values(split.counterfactual, f) > 0) for f in features
    ]
    return (
        torch.stack(both, -1)
        if both
        else split.clean.values.new_zeros(*split.clean.values.shape[:2], 0).bool()
    )


def build_edges(
    nodes: Sequence[Node],
    contributions: Float[Tensor, "writer feature"],
    *,
    writers: Sequence[Node],
    features: Sequence[Node],
    logit_effects: Sequence[tuple[Node, float, bool]],
) -> Edges:
    """Edges of a circuit from mean contributions and (node, effect in logits, was patched) triples."""
    row = {node: index for index, node in enumerate(nodes)}
    logit = row[Node("logit")]
    entries = [
        (row[writer], row[feature], float(contributions[w, f]), PRE_ACTIVATION)
        for f, feature in enumerate(features)
        for w, writer in enumerate(writers)
    ]
    entries += [
        (row[node], logit, effect, PATCHED_LOGITS if patched else ATTRIBUTED_LOGITS)
        for node, effect, patched in logit_effects
    ]
    source, target, weight, kind = zip(*entries, strict=True)
    return Edges(torch.tensor(source), torch.tensor(target), torch.tensor(weight), torch.tensor(kind))
