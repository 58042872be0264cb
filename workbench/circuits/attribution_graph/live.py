"""The model itself under interventions on nodes: attention and norms live, MLPs held at the prompt's outputs or live.

    held MLPs   direct effects as the model has them: what freezing patterns and scales leaves out
    live MLPs   total effects as the model has them: the transcoders explain, they do not compute

A node is removed by taking what it writes out of its MLP's output (or the embedding). Readers are live too: features
read through the norm at its own scale, logits through the live final norm, uncapped. Status: exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import recorder
from workbench.circuits.attribution_graph import linear_run

if TYPE_CHECKING:
    from workbench.circuits.attribution_graph.logits import LogitTargets
    from workbench.circuits.attribution_graph.replacement import Replacement

Changes = Mapping[int, Float[Tensor, "row pos d_model"]]


@dataclass(frozen=True, eq=False)
class Removal:
    """What a set of nodes writes, as changes of one intervention each.

    Attributes:
        at_mlp: Change of what the MLP of a layer adds, by layer (row, pos, d_model).
        at_embedding: Change of the stream at depth 0 (row, pos, d_model).
    """

    at_mlp: dict[int, Float[Tensor, "row pos d_model"]]
    at_embedding: Float[Tensor, "row pos d_model"]


def removal(model: Replacement, groups: list[list[int]]) -> Removal:
    """The changes that remove each group of nodes at once."""
    n_pos, like = model.frozen.n_pos, model.frozen.embedded
    owner = torch.full((len(model.sources),), -1, device=like.device)
    changes: dict[int, Tensor] = {}
    embedding = like.new_zeros(len(groups), n_pos, like.shape[1])
    for number, group in enumerate(groups):
        owner.fill_(-1)
        owner[torch.tensor(group, device=like.device, dtype=torch.int64)] = 0
        for layer, writes in enumerate((*model.writes, model.embedded)):
            own = (owner[writes.source] == 0).nonzero()[:, 0]
            if len(own):
                to = (
                    embedding
                    if layer == model.n_layers
                    else changes.setdefault(layer, torch.zeros_like(embedding))
                )
                to[number].index_add_(0, writes.positions[own], -writes.vectors[own])
    return Removal(changes, embedding)


def frozen_streams(model: Replacement, removed: Removal) -> list[Float[Tensor, "row pos d_model"]]:
    """Streams at every depth with patterns, scales and all other nodes held."""
    x = model.frozen.embedded + removed.at_embedding
    return linear_run.run(model, x, linear_run.true_outputs(model, removed.at_mlp))


@torch.no_grad()
def live_streams(model: Replacement, removed: Removal, *, live_mlps: bool) -> list[Tensor]:
    """Streams at every depth with attention and norms live."""
    seen, keep = recorder()
    edits: dict[str, Any] = {}
    for layer in range(model.n_layers):
        for part in ("hook_resid_pre", "hook_resid_mid", "hook_resid_post"):
            edits[f"blocks.{layer}.{part}"] = keep(f"blocks.{layer}.{part}")
        edits[f"blocks.{layer}.hook_mlp_out"] = _output(model, layer, removed, seen, live=live_mlps)
    final = model.anatomy.run(model.frozen.embedded + removed.at_embedding, edits=edits)
    names = [f"blocks.{n}.hook_resid_{part}" for n in range(model.n_layers) for part in ("pre", "mid")]
    return [*(seen[name] for name in names), final]


def _output(model: Replacement, layer: int, removed: Removal, seen: dict[str, Tensor], *, live: bool) -> Any:
    held = linear_run.true_outputs(model, removed.at_mlp)
    read = f"blocks.{layer}." + ("hook_resid_pre" if model.anatomy.parallel else "hook_resid_mid")

    def edit(value: Tensor) -> Tensor:
        if live:
            return value + removed.at_mlp[layer] if layer in removed.at_mlp else value
        return held(layer, seen[read]).expand(value.shape)

    return edit


def read_features(
    model: Replacement, streams: list[Tensor], rows: Int[Tensor, " feature"], *, live: bool
) -> Float[Tensor, "row feature"]:
    """Pre-activations of features, through the norm's own scale or the frozen one."""
    active, out = model.sources.active, streams[0].new_empty(len(streams[0]), len(rows))
    layers = active.layer[rows]
    for layer in layers.unique().tolist():
        own = (layers == layer).nonzero()[:, 0]
        latents, pos = active.latent[rows[own]], active.pos[rows[own]]
        port, frozen = model.ports[layer], model.frozen.layers[layer]
        stream = streams[model.read_depth(layer)]
        read = port.read_live(frozen, stream) if live else port.read(frozen, stream)
        encoders = model.transcoders.encoders(layer, latents).to(read)
        bias = model.transcoders.encoder_bias(layer, latents).to(read)
        out[:, own] = (read[:, pos] * encoders).sum(-1) + bias
    return out


def read_logits(
    model: Replacement, streams: list[Tensor], logits: LogitTargets, *, live: bool
) -> Float[Tensor, "row logit"]:
    """Logit targets without the output bias, through the live or the frozen final norm."""
    x, norm = streams[-1][:, logits.pos], model.anatomy.ln_final
    return (norm(x) if live else norm(x, model.frozen.final_scale[logits.pos])) @ logits.columns.T
