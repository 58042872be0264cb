"""How alike two features of a trace are: where they write, what they read and feed, when they are active.

    decoder        cosine of what they write, all layers of a cross-layer feature summed
    attribution    mean of two cosines: of the effects on them (rows) and of their effects on others (columns)
    coactivation   cosine of the activations of the two latents over the prompt's positions

A feature's effects are divided by its own activation (rows) or are those of its whole output (columns), so profiles
compare shapes. All three lie between -1 and 1 and are averaged with weights. Status: correlational.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from workbench.circuits.attribution_graph.trace import AttributionTrace
from workbench.errors import UserError, nearest

WEIGHTS = {"decoder": 1.0, "attribution": 1.0, "coactivation": 1.0}


def feature_similarity(
    found: AttributionTrace, features: Int[Tensor, " feature"], *, weights: Mapping[str, float] = WEIGHTS
) -> Float[Tensor, "feature feature"]:
    """Weighted mean of the three similarities of features that have rows.

    Args:
        found: The trace.
        features: Source numbers of features.
        weights: By name; one that is left out counts 0.

    Raises:
        UserError: a feature without a row, or weights that are none.
    """
    unknown = next((name for name in weights if name not in WEIGHTS), None)
    if unknown is not None or not sum(weights.values()) > 0 or min(weights.values()) < 0:
        raise UserError(
            f"weights {dict(weights)} are no weights of similarities: give numbers from 0, not all 0, for "
            f"{nearest(unknown or '', WEIGHTS)}"
        )
    parts = {"decoder": decoder_cosine, "attribution": attribution_cosine, "coactivation": coactivation}
    total = sum(weights.values())
    return sum((weights[n] / total * parts[n](found, features) for n in weights), torch.zeros(()))


def decoder_cosine(
    found: AttributionTrace, features: Int[Tensor, " feature"]
) -> Float[Tensor, "feature feature"]:
    """Cosine of what the features write to the stream. Status: exact."""
    model, rows = found.model, {int(f): i for i, f in enumerate(features)}
    written = torch.zeros(len(features), model.anatomy.d_model, device=model.anatomy.device)
    lookup = torch.full((len(model.sources),), -1, device=written.device)
    lookup[features.to(written.device)] = torch.arange(len(rows), device=written.device)
    for writes in model.writes:
        own = lookup[writes.source] >= 0
        written.index_add_(0, lookup[writes.source[own]], writes.vectors[own].to(written))
    return _cosine(written.cpu())


def attribution_cosine(
    found: AttributionTrace, features: Int[Tensor, " feature"]
) -> Float[Tensor, "feature feature"]:
    """Mean cosine of the features' incoming and outgoing effects. Status: exact for the effects kept."""
    place = {int(node): row for row, node in enumerate(found.features)}
    missing = next((int(f) for f in features if int(f) not in place), None)
    if missing is not None:
        raise UserError(f"feature {missing} has no row in the trace: choose features that were expanded")
    n = len(found.model.sources)
    inward = found.effects.take(torch.tensor([place[int(f)] for f in features], dtype=torch.int64)).dense(n)
    lookup = torch.full((n,), -1)
    lookup[features.cpu()] = torch.arange(len(features))
    column = lookup[found.effects.source.long()]
    kept = column >= 0
    outward = torch.zeros(len(features), found.effects.n_targets, dtype=found.effects.weight.dtype)
    outward[column[kept], found.effects.target[kept]] = found.effects.weight[kept]
    return (_cosine(inward) + _cosine(outward)) / 2


def coactivation(
    found: AttributionTrace, features: Int[Tensor, " feature"]
) -> Float[Tensor, "feature feature"]:
    """Cosine of the activations of the features' latents over positions. Status: exact on this prompt."""
    active = found.model.sources.active
    code = (active.layer * (int(active.latent.max()) + 1) + active.latent).cpu()
    codes, own = code[features.cpu()].unique(return_inverse=True)
    at = torch.searchsorted(codes, code).clamp_max(len(codes) - 1)
    known = codes[at] == code
    by_position = torch.zeros(len(codes), found.model.frozen.n_pos)
    by_position[at[known], active.pos.cpu()[known]] = active.value.cpu().float()[known]
    return _cosine(by_position[own])


def _cosine(rows: Float[Tensor, "feature any"]) -> Float[Tensor, "feature feature"]:
    unit = normalize(rows.float(), dim=1)
    return unit @ unit.T
