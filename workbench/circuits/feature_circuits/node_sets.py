"""Sets of feature nodes, many at once: what is kept when everything else is replaced.

A set names some features of each site; `others` says whether features that no set names are kept, so that the
whole model and the complement of a circuit are sets too and no row of d_sae entries is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.circuits.feature_circuits.kept import ERROR, NodeRef
from workbench.circuits.feature_circuits.sites import FeatureSites
from workbench.errors import UserError


@dataclass(frozen=True, eq=False)
class NodeSets:
    """Which nodes each of several sets keeps.

    Attributes:
        named: Features that some set names, ascending, one tensor a site.
        kept: Whether a set keeps each of them (set, pos, named); one position stands for all.
        errors: Whether it keeps the error node (set, pos), one tensor a site.
        others: Whether it keeps the features that no set names (set).
    """

    named: tuple[Tensor, ...]
    kept: tuple[Tensor, ...]
    errors: tuple[Tensor, ...]
    others: Bool[Tensor, " set"]

    def __len__(self) -> int:
        return len(self.others)

    def __getitem__(self, rows: slice | Tensor) -> NodeSets:
        kept, errors = (tuple(t[rows] for t in part) for part in (self.kept, self.errors))
        return NodeSets(self.named, kept, errors, self.others[rows])

    @property
    def complement(self) -> NodeSets:
        """The sets of all other nodes."""
        kept, errors = (tuple(~t for t in part) for part in (self.kept, self.errors))
        return NodeSets(self.named, kept, errors, ~self.others)

    def with_errors(self, value: bool) -> NodeSets:
        """The same features, with all error nodes or none."""
        return NodeSets(
            self.named, self.kept, tuple(torch.full_like(e, value) for e in self.errors), self.others
        )

    def all_are(self, value: bool) -> Bool[Tensor, " set"]:
        """Which sets keep everything (True) or nothing (False)."""
        parts = [(t == value).flatten(1).all(-1) for t in (*self.kept, *self.errors)]
        return torch.stack([self.others == value, *parts]).all(0)


def node_sets(sites: FeatureSites, sets: Sequence[Sequence[NodeRef]], *, n_pos: int = 1) -> NodeSets:
    """Sets of the given nodes; the metric among them is passed over.

    Args:
        sites: The dictionaries.
        sets: The nodes that each set keeps, at all positions (pos -1) or at one.
        n_pos: Length of the prompts, needed where a node has a position.

    Raises:
        UserError: a position outside the prompt.
    """
    _check_positions(sets, n_pos)
    device, named, kept, errors = sites.anatomy.device, [], [], []
    for index, _ in enumerate(sites):
        own = [[ref for ref in refs if ref.site == index] for refs in sets]
        features = sorted({ref.feature for refs in own for ref in refs} - {ERROR})
        column = {feature: i for i, feature in enumerate(features)}
        here = torch.zeros(len(sets), n_pos, len(features) + 1, dtype=torch.bool)
        for row, refs in enumerate(own):
            for ref in refs:
                at = slice(None) if ref.pos < 0 else ref.pos
                here[row, at, column.get(ref.feature, len(features))] = True
        named.append(torch.tensor(features, dtype=torch.long, device=device))
        kept.append(here[..., :-1].to(device))
        errors.append(here[..., -1].to(device))
    return NodeSets(
        tuple(named), tuple(kept), tuple(errors), torch.zeros(len(sets), dtype=torch.bool, device=device)
    )


def nothing(sites: FeatureSites) -> NodeSets:
    """One set that keeps no node."""
    return node_sets(sites, [[]])


def everything(sites: FeatureSites) -> NodeSets:
    """One set that keeps every node."""
    return nothing(sites).complement


def _check_positions(sets: Sequence[Sequence[NodeRef]], n_pos: int) -> None:
    late = next((ref for refs in sets for ref in refs if ref.pos >= n_pos), None)
    if late is not None:
        raise UserError(
            f"a node has position {late.pos} and the prompts {n_pos} positions: give n_pos, and prompts as long as "
            "those that the circuit was found on"
        )
