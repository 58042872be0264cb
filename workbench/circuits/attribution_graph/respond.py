"""Total effects in the replacement model: features answer to what they read, linearly, and pass it on.

    T[l, s] = A[l, s] + sum_t T[l, t] A[t, s] / a_t

A feature's output is a_t times its decoder, so a change A[t, s] of its activation changes its output by the share
A[t, s] / a_t. The sum over all paths is one pass from the last layer down. Errors do not answer.
Status: exact for the replacement model with patterns, scales and the set of active features held.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.attribution_graph import linear_run
from workbench.circuits.attribution_graph.live import Removal
from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.circuits.attribution_graph.trace import AttributionTrace
from workbench.errors import UserError

WHOLE_FRAC = 1 - 1e-4


def total_effects(found: AttributionTrace, *, blocked: Sequence[int] = ()) -> Float[Tensor, "logit source"]:
    """Effect of every source on every logit by all paths, those through a blocked feature left out.

    Raises:
        UserError: features without a row, or rows of which edges were left out.
    """
    _refuse_parts(found)
    model, effects = found.model, found.effects
    n_features, n = model.sources.n_features, len(model.sources)
    n_logits = len(found.logits.token_ids)
    total = torch.zeros(n_logits, n, dtype=torch.float64)
    for logit in range(n_logits):
        source, weight = effects.row(n_features + logit)
        total[logit, source.long()] = weight.double()
    layers, answers = model.sources.active.layer.cpu(), 1 / model.sources.active.value.double().cpu()
    answers[list(blocked)] = 0
    for layer in range(model.n_layers - 1, -1, -1):
        own = (layers == layer).nonzero()[:, 0]
        rows = effects.take(own)
        target, source, weight = rows.target, rows.source.long(), rows.weight.double()
        for passed in total:
            passed.index_add_(0, source, weight * (passed[own] * answers[own])[target])
    return total


def _refuse_parts(found: AttributionTrace) -> None:
    """Refuse a trace that lacks rows or edges."""
    n_rows, n_features = len(found.features), found.model.sources.n_features
    least = float(found.effects.kept_frac.min())
    if n_rows < n_features or least < WHOLE_FRAC:
        raise UserError(
            f"total effects need every edge: {n_rows} of {n_features} features have rows and {least:.3f} of the least "
            "complete is kept, so trace without max_feature_nodes, edges_per_target and threshold"
        )


@torch.no_grad()
def responding_streams(
    model: Replacement, removed: Removal, *, fixed: Bool[Tensor, "row feature"] | None = None
) -> list[Float[Tensor, "row pos d_model"]]:
    """Streams at every depth when nodes are removed and the active features answer linearly, but for fixed ones."""
    base = linear_run.run(model, model.frozen.embedded, linear_run.true_outputs(model))
    held = linear_run.true_outputs(model, removed.at_mlp)
    changes: dict[int, Tensor] = {}

    def added(layer: int, x: Tensor) -> Tensor:
        changes[layer] = _answers(model, layer, x - base[model.read_depth(layer)])
        if fixed is not None:
            changes[layer] = changes[layer] * ~fixed[:, model.sources.active.layer == layer]
        out = held(layer, x)
        for source in model.transcoders.sources_of(layer):
            out = out + _written(model, source, layer, changes[source])
        return out

    return linear_run.run(model, model.frozen.embedded + removed.at_embedding, added)


def _answers(
    model: Replacement, layer: int, change: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row feature"]:
    """Changes of the activations of a layer's active features."""
    active, port, frozen = model.sources.active, model.ports[layer], model.frozen.layers[layer]
    own = (active.layer == layer).nonzero()[:, 0]
    at = active.pos[own]
    zero = torch.zeros_like(frozen.mlp_stream)
    read = port.read(frozen, change) - port.read(frozen, zero)
    encoders = model.transcoders.encoders(layer, active.latent[own]).to(change)
    return (read[:, at] * encoders).sum(-1)


def _written(
    model: Replacement, source: int, out: int, change: Float[Tensor, "row feature"]
) -> Float[Tensor, "row pos d_model"]:
    """What changed activations of one layer's features add to the stream at layer `out`."""
    active, frozen = model.sources.active, model.frozen.layers[out]
    own = (active.layer == source).nonzero()[:, 0]
    decoders = model.transcoders.decoders(source, out, active.latent[own]).to(change)
    at = active.pos[own]
    vectors = model.ports[out].push(frozen, decoders, frozen.scales["ln2_post"][at])
    written = change.new_zeros(len(change), model.frozen.n_pos, vectors.shape[1])
    return written.index_add_(1, at, change[..., None] * vectors)
