"""The nodes of a circuit, one row for each prompt and position at which a node's effect is above the threshold.

Names: `resid_post2.f103` and `mlp_out1.error`, with `@5` behind for position 5; `logit` is the metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.feature_circuits.codes import Change, Seen
from workbench.circuits.feature_circuits.effects import SiteEffects
from workbench.circuits.feature_circuits.sites import FeatureSites
from workbench.errors import UserError

ERROR = -1
LOGIT = "logit"


class NodeRef(NamedTuple):
    """One node.

    Attributes:
        site: Number of its site; the number of sites for the metric.
        feature: Index in the dictionary, -1 for the error.
        pos: Position, -1 for all of them.
    """

    site: int
    feature: int = ERROR
    pos: int = -1


def node_name(sites: FeatureSites, ref: NodeRef) -> str:
    """`resid_post2.f103`, `mlp_out1.error@5`, `logit`."""
    if ref.site == len(sites):
        return LOGIT
    what = "error" if ref.feature == ERROR else f"f{ref.feature}"
    return f"{sites[ref.site].name}.{what}{'' if ref.pos < 0 else f'@{ref.pos}'}"


@dataclass(frozen=True, eq=False)
class Kept:
    """Nodes above the threshold, sorted by site, prompt, position and feature.

    Attributes:
        site: Number of the site (node).
        prompt: In the batch (node).
        pos: Position (node).
        feature: -1 for the error (node).
        effect: In the metric's unit (node).
        delta: Clean minus replaced value of a feature; NaN for errors (node).
        value: Clean value of a feature; NaN for errors (node).
    """

    site: Int[Tensor, " node"]
    prompt: Int[Tensor, " node"]
    pos: Int[Tensor, " node"]
    feature: Int[Tensor, " node"]
    effect: Float[Tensor, " node"]
    delta: Float[Tensor, " node"]
    value: Float[Tensor, " node"]

    def __len__(self) -> int:
        return len(self.site)

    def rows(self, site: int) -> Int[Tensor, " row"]:
        """Rows of one site."""
        return (self.site == site).nonzero()[:, 0]

    def take(self, rows: Tensor) -> Kept:
        """Some of the nodes."""
        return Kept(*(getattr(self, f.name)[rows] for f in fields(Kept)))


def keep_nodes(sites: FeatureSites, seen: Seen, effects: Sequence[SiteEffects], *, threshold: float) -> Kept:
    """Nodes whose |effect| at a prompt and position is above `threshold`, in the metric's unit.

    Raises:
        UserError: a negative threshold.
    """
    if not threshold >= 0:
        raise UserError(
            f"node threshold {threshold} is negative: give 0 or a size of effect in the metric's unit"
        )
    found = [
        _of_site(index, seen.changes[index], own, threshold)
        for index, own in enumerate(effects[: len(sites)])
    ]
    return Kept(*(torch.cat([getattr(part, f.name) for part in found]) for f in fields(Kept)))


def _of_site(index: int, change: Change, effects: SiteEffects, threshold: float) -> Kept:
    """Features and errors of one site above the threshold, by prompt, position, feature."""
    prompt, pos, slot = (effects.features.abs() > threshold).nonzero(as_tuple=True)
    at = (prompt, pos, slot)
    e_prompt, e_pos = (effects.error.abs() > threshold).nonzero(as_tuple=True)
    nothing = torch.full((len(e_prompt),), torch.nan, device=e_pos.device, dtype=effects.error.dtype)
    prompts, positions = torch.cat([e_prompt, prompt]), torch.cat([e_pos, pos])
    features = torch.cat([torch.full_like(e_pos, ERROR), change.difference.indices[at]])
    kept = Kept(
        torch.full_like(prompts, index), prompts, positions, features,
        torch.cat([effects.error[e_prompt, e_pos], effects.features[at]]),
        torch.cat([nothing, change.difference.values[at]]),
        torch.cat([nothing, change.values[at]]),
    )  # fmt: skip
    return kept.take(_order(prompts, positions, features))


def _order(prompt: Tensor, pos: Tensor, feature: Tensor) -> Int[Tensor, " node"]:
    """Rows sorted by prompt, then position, then feature."""
    order = feature.argsort(stable=True)
    order = order[pos[order].argsort(stable=True)]
    return order[prompt[order].argsort(stable=True)]
