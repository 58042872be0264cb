"""The nodes that write to the residual stream of one prompt, numbered, with the vectors that they write.

    0 .. F - 1                     active features, by layer, position, latent
    F + layer * n_pos + pos        error of the transcoders at a layer and position
    F + n_layers * n_pos + pos     token at a position

A `Writes` holds all vectors that are added to the stream at one place (an MLP's output, or the embedding), by
position, so that a gradient there is contracted at each position with what is written at that position only.
A cross-layer feature has an entry at every layer that it writes to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.attribution_graph.frozen import FrozenPass
from workbench.circuits.attribution_graph.ports import Port
from workbench.circuits.attribution_graph.transcoders import Active, Transcoders


@dataclass(frozen=True, eq=False)
class Sources:
    """The numbering of nodes.

    Attributes:
        active: The features.
        n_layers: Of the model.
        n_pos: Tokens of the prompt.
    """

    active: Active
    n_layers: int
    n_pos: int

    def __len__(self) -> int:
        return len(self.active) + (self.n_layers + 1) * self.n_pos

    @property
    def n_features(self) -> int:
        """Active features."""
        return len(self.active)

    def error(self, layer: int, pos: int) -> int:
        """Row of an error node."""
        return self.n_features + layer * self.n_pos + pos

    def token(self, pos: int) -> int:
        """Row of a token."""
        return self.n_features + self.n_layers * self.n_pos + pos

    @property
    def kind(self) -> list[str]:
        """Kind of each node: "feature", "error" or "token"."""
        n_errors = self.n_layers * self.n_pos
        return ["feature"] * self.n_features + ["error"] * n_errors + ["token"] * self.n_pos

    @property
    def layer(self) -> Int[Tensor, " source"]:
        """Layer of each node; -1 for tokens."""
        errors = torch.arange(self.n_layers).repeat_interleave(self.n_pos)
        return torch.cat([self.active.layer.cpu(), errors, torch.full((self.n_pos,), -1)])

    @property
    def pos(self) -> Int[Tensor, " source"]:
        """Position of each node."""
        return torch.cat([self.active.pos.cpu(), torch.arange(self.n_pos).repeat(self.n_layers + 1)])


@dataclass(frozen=True, eq=False)
class Writes:
    """Everything that is added to the stream at one place.

    Attributes:
        source: Row of the node of each entry, by position (entry).
        offsets: Where each position's entries begin; the last is their number.
        vectors: What is written, activation included (entry, d_model).
    """

    source: Int[Tensor, " entry"]
    offsets: list[int]
    vectors: Float[Tensor, "entry d_model"]

    @cached_property
    def positions(self) -> Int[Tensor, " entry"]:
        """Position of each entry."""
        counts = torch.tensor(self.offsets, device=self.source.device).diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    def total(self, n_pos: int) -> Float[Tensor, "pos d_model"]:
        """Sum of the entries at each position."""
        out = self.vectors.new_zeros(n_pos, self.vectors.shape[1])
        return out.index_add_(0, self.positions, self.vectors)


def feature_writes(
    frozen: FrozenPass, transcoders: Transcoders, ports: Sequence[Port], active: Active, out: int
) -> tuple[Int[Tensor, " entry"], Float[Tensor, "entry d_model"]]:
    """Rows and vectors at the stream of the features that write to layer `out`."""
    layer, port, like = frozen.layers[out], ports[out], frozen.embedded
    rows, vectors = [], []
    for source in transcoders.sources_of(out):
        own = (active.layer == source).nonzero()[:, 0]
        decoders = transcoders.decoders(source, out, active.latent[own]).to(like)
        scale = layer.scales["ln2_post"][active.pos[own]]
        vectors.append(port.push(layer, active.value[own, None].to(like) * decoders, scale))
        rows.append(own)
    return torch.cat(rows), torch.cat(vectors)


def join_writes(
    rows: Int[Tensor, " entry"],
    at: Int[Tensor, " entry"],
    vectors: Float[Tensor, "entry d_model"],
    n_pos: int,
) -> Writes:
    """Entries sorted by position; the order within one is kept."""
    order = at.argsort(stable=True)
    counts = torch.bincount(at, minlength=n_pos).cumsum(0).tolist()
    return Writes(rows[order], [0, *counts], vectors[order])
