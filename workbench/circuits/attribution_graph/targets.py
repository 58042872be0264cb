"""What is read of the stream: features' pre-activations, or any direction at any depth and position.

    feature     activation of t = encoder_t . (what the transcoder reads), where t is active
    direction   any vector at the output of a norm, or at the stream itself

A target is a depth, a position and a vector at the stream there, already pulled through the frozen norm.
Logits are in `logits.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.attribution_graph.linear_run import constant_streams
from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.errors import UserError


@dataclass(frozen=True, eq=False)
class Targets:
    """Linear readers of the stream.

    Attributes:
        depth: Depth of the stream that each reads.
        pos: Position.
        vectors: At the stream; what a reader gets is its product with the stream there, and `bias`.
        bias: What it reads of a stream of zeros.
        constant: What it reads when every node writes nothing, `bias` included.
    """

    depth: Int[Tensor, " target"]
    pos: Int[Tensor, " target"]
    vectors: Float[Tensor, "target d_model"]
    bias: Float[Tensor, " target"]
    constant: Float[Tensor, " target"]

    def __len__(self) -> int:
        return len(self.depth)

    def read(self, streams: Sequence[Float[Tensor, "*batch pos d_model"]]) -> Float[Tensor, "*batch target"]:
        """What each target reads of streams at every depth. Status: exact with norms frozen."""
        rows = [streams[int(d)][..., int(p), :] for d, p in zip(self.depth, self.pos, strict=True)]
        return (torch.stack(rows, -2) * self.vectors).sum(-1) + self.bias

    def take(self, rows: Int[Tensor, " some"]) -> Targets:
        """Some of the targets."""
        return Targets(*(t[rows] for t in (self.depth, self.pos, self.vectors, self.bias, self.constant)))


def join(parts: Sequence[Targets]) -> Targets:
    """Targets one after another."""
    return Targets(
        *(torch.cat([getattr(p, n) for p in parts]) for n in ("depth", "pos", "vectors", "bias", "constant"))
    )


@dataclass(frozen=True, eq=False)
class FeatureTargets:
    """Active features as targets, whose vectors are made when they are asked for.

    Attributes:
        replacement: The replacement model.
        rows: Their numbers among the sources.
    """

    replacement: Replacement
    rows: Int[Tensor, " target"]
    _constants: list[Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def depth(self) -> Int[Tensor, " target"]:
        """Depth of the stream that each reads."""
        layer = self.replacement.sources.active.layer[self.rows]
        return 2 * layer + (0 if self.replacement.anatomy.parallel else 1)

    @property
    def pos(self) -> Int[Tensor, " target"]:
        """Position of each."""
        return self.replacement.sources.active.pos[self.rows]

    def of(self, rows: Int[Tensor, " other"]) -> FeatureTargets:
        """Other features of the same model."""
        return FeatureTargets(self.replacement, rows, self._constants)

    def take(self, which: Int[Tensor, " some"]) -> Targets:
        """Some of the targets, with their vectors."""
        model, active = self.replacement, self.replacement.sources.active
        rows = self.rows[which]
        layers, pos, like = active.layer[rows], active.pos[rows], model.frozen.embedded
        vectors, bias = like.new_empty(len(rows), like.shape[1]), like.new_empty(len(rows))
        constant = like.new_empty(len(rows))
        for layer in layers.unique().tolist():
            own = (layers == layer).nonzero()[:, 0]
            made = _read_by(model, layer, active.latent[rows[own]], pos[own])
            stream = self._constants[model.read_depth(layer)][pos[own]]
            vectors[own], bias[own] = made
            constant[own] = (stream * made[0]).sum(1) + made[1]
        depth = 2 * layers + (0 if model.anatomy.parallel else 1)
        return Targets(depth, pos, vectors, bias, constant)


def feature_targets(replacement: Replacement, rows: Int[Tensor, " target"] | None = None) -> FeatureTargets:
    """Features as targets, all of them by default."""
    if rows is None:
        rows = torch.arange(replacement.sources.n_features, device=replacement.anatomy.device)
    return FeatureTargets(replacement, rows, constant_streams(replacement))


def _read_by(
    model: Replacement, layer: int, latents: Int[Tensor, " n"], pos: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, " n"]]:
    """Vectors at the stream and biases of features: their activation is the product with the stream plus the bias."""
    frozen, port = model.frozen.layers[layer], model.ports[layer]
    encoders = model.transcoders.encoders(layer, latents).to(frozen.stream)
    vectors = port.pull(frozen, encoders, frozen.scales["ln2"][pos])
    zero_read = port.read(frozen, torch.zeros_like(frozen.mlp_stream))[pos]
    bias = (zero_read * encoders).sum(1) + model.transcoders.encoder_bias(layer, latents).to(encoders)
    return vectors, bias


def direction_targets(
    replacement: Replacement,
    directions: Float[Tensor, "target d_model"],
    *,
    depth: int,
    pos: int,
    normed: bool = True,
) -> Targets:
    """Directions read at one depth and position.

    Args:
        replacement: The replacement model.
        directions: At the output of the norm there (that before attention, the MLP or the unembedding, by the depth),
            or at the stream itself.
        depth: 2 l before attention of layer l, 2 l + 1 before its MLP, 2 n before the unembedding.
        pos: Position.
        normed: Whether the directions are at the norm's output.

    Raises:
        UserError: a depth or position that the prompt does not have, directions of another width.
    """
    frozen = replacement.frozen
    _check_place(replacement, directions, depth, pos)
    norm, scale = frozen.norm_at(depth)
    directions = directions.to(frozen.embedded)
    vectors = norm.pull(directions, scale[pos]) if normed else directions
    zero = (
        norm(torch.zeros_like(frozen.embedded[pos]), scale[pos]) if normed else frozen.embedded.new_zeros(1)
    )
    bias = (zero * directions).sum(1)
    constant = vectors @ constant_streams(replacement)[depth][pos] + bias
    n = len(directions)
    depths, places = (torch.full((n,), value, device=vectors.device) for value in (depth, pos))
    return Targets(depths, places, vectors, bias, constant)


def _check_place(replacement: Replacement, directions: Tensor, depth: int, pos: int) -> None:
    last, n_pos = replacement.anatomy.last_depth, replacement.frozen.n_pos
    if not (0 <= depth <= last and 0 <= pos < n_pos):
        raise UserError(
            f"a target at depth {depth} and position {pos} is not in this prompt: depths are 0 to {last}, positions 0 "
            f"to {n_pos - 1}"
        )
    if directions.shape[-1] != replacement.anatomy.d_model:
        raise UserError(
            f"a direction of {directions.shape[-1]} entries does not fit a stream of {replacement.anatomy.d_model}: "
            "give directions of the stream's width"
        )
