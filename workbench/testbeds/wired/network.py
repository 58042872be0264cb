"""A network of named features: what the planted model computes, said in features instead of vectors.

Groups of features follow each other: the tokens' own features, what an MLP makes of earlier groups, and copies
that a head moves from one position to all later ones.

    MLP     target = ReLU(sum over sources of A source + bias)
    head    target at every position from `place` on = source at `place`

The wiring A is sparse, so that the true edges are its non-zero entries. `simulate` runs the network itself; the
transformer of `model.py` must agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.testbeds.truth import Feature

FeatureEdge = tuple[Feature, Feature]
TOKEN_GROUP = "token"


@dataclass(frozen=True)
class Mlp:
    """One MLP, a neuron per feature of its group.

    Attributes:
        layer: Its block.
        target: The group that it makes.
        sources: The wiring from each group that it reads (target feature, source feature).
        bias: Of each feature (target feature).
    """

    layer: int
    target: str
    sources: Mapping[str, Float[Tensor, "target source"]]
    bias: Float[Tensor, " target"]

    @property
    def hook(self) -> str:
        """Where its features are written."""
        return f"blocks.{self.layer}.hook_mlp_out"


@dataclass(frozen=True)
class Move:
    """One head that moves a group.

    Attributes:
        layer: Its block.
        head: Its index.
        place: The position that it reads.
        source: The group that it reads.
        target: The group of the copies.
    """

    layer: int
    head: int
    place: int
    source: str
    target: str

    @property
    def hook(self) -> str:
        """Where its features are written."""
        return f"blocks.{self.layer}.hook_attn_out"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Groups and what connects them.

    Attributes:
        sizes: Features of each group, in the order of computation.
        token_values: The features of each token (token, feature); token 0, which begins a prompt, has none.
        steps: MLPs and heads in the order of computation.
        read: The group that the logits read, at the last position.
        readout: Its weight in each token's logit (token, feature of `read`).
        n_layers: Blocks of the model.
        n_heads: Heads of each block.
        n_ctx: Length of a prompt.
    """

    sizes: Mapping[str, int]
    token_values: Float[Tensor, "token feature"]
    steps: tuple[Mlp | Move, ...]
    read: str
    readout: Float[Tensor, "token read"]
    n_layers: int
    n_heads: int
    n_ctx: int

    def simulate(self, ids: Int[Tensor, "prompt pos"]) -> dict[str, Float[Tensor, "prompt pos feature"]]:
        """The features of every group. Status: exact from the largest `place` of a move on."""
        values = {TOKEN_GROUP: self.token_values[ids]}
        for step in self.steps:
            if isinstance(step, Move):
                moved = values[step.source][:, step.place : step.place + 1]
                values[step.target] = moved.expand(-1, ids.shape[1], -1)
            else:
                total = sum((values[name] @ A.T for name, A in step.sources.items()), start=step.bias)
                values[step.target] = torch.relu(total)
        return values

    def logits(self, ids: Int[Tensor, "prompt pos"]) -> Float[Tensor, "prompt token"]:
        """What the tokens' logits should be at the last position."""
        return self.simulate(ids)[self.read][:, -1] @ self.readout.T

    def hook_of(self, group: str) -> str:
        """The hook at which a group is written."""
        return next((step.hook for step in self.steps if step.target == group), "hook_embed")

    def offset_of(self, group: str) -> int:
        """The number of a group's first feature among all that are written at its hook."""
        groups = self.groups_at(self.hook_of(group))
        return sum(self.sizes[name] for name in groups[: groups.index(group)])

    def groups_at(self, hook: str) -> list[str]:
        """The groups written at a hook, in order."""
        return [name for name in self.sizes if self.hook_of(name) == hook]

    def feature(self, group: str, index: int) -> Feature:
        """A feature as (hook, number at the hook)."""
        return self.hook_of(group), self.offset_of(group) + index

    def wiring(self) -> frozenset[FeatureEdge]:
        """Every pair of features of which one reads the other, whether or not it leads to a logit."""
        return frozenset(edge for step in self.steps for edge in self._edges(step, None))

    def carrying(self) -> frozenset[FeatureEdge]:
        """Those that lead to a logit."""
        needed = {self.feature(self.read, int(i)) for i in self.readout.abs().sum(0).nonzero()[:, 0]}
        edges: set[FeatureEdge] = set()
        for step in reversed(self.steps):
            found = self._edges(step, needed)
            edges |= found
            needed |= {source for source, _ in found}
        return frozenset(edges)

    def _edges(self, step: Mlp | Move, needed: set[Feature] | None) -> set[FeatureEdge]:
        """Edges into one step, all or those into features that are needed."""
        if isinstance(step, Move):
            size = self.sizes[step.source]
            triples = [(step.source, i, i) for i in range(size)]
        else:
            triples = [(g, int(i), int(j)) for g, A in step.sources.items() for j, i in A.nonzero()]
        pairs = {(self.feature(g, i), self.feature(step.target, j)) for g, i, j in triples}
        return {pair for pair in pairs if needed is None or pair[1] in needed}
