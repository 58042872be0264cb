"""A trace as a `CircuitGraph`: named nodes at their positions, direct effects as weights, interventions beside them.

    f2.103@5   feature 103 of layer 2 at position 5        embed@5        token at position 5
    e2@5       what the transcoders of layer 2 left there  logit.464@9    logit of token 464 read at position 9

Features without a row (see `expand.py`) are not nodes: what they bring to the others is kept as the column
`unlisted_abs` of the node table, with everything else that was thinned away, so that shares of input stay shares of
all input. Errors and tokens without an effect are left out too.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.attribution_graph.logits import text
from workbench.circuits.attribution_graph.trace import AttributionTrace
from workbench.circuits.attribution_graph.verify import Verification
from workbench.circuits.circuit_graph import CircuitGraph, node_table
from workbench.errors import UserError
from workbench.models import model_hash

ROUNDING_FRAC = 1e-5
UNIT = "pre-activation of the target, or its logit"
PROTOCOLS = {
    "frozen": "node removed; attention patterns, norm scales and all other nodes held",
    "live": "node removed; attention and norms live, MLP outputs held",
}


def to_graph(
    found: AttributionTrace, verification: Verification | None = None, *, intervened: str = "live"
) -> CircuitGraph:
    """The trace as a graph.

    Args:
        found: The trace.
        verification: Interventions on edges of this trace (`verify_edges`), stored beside the weights.
        intervened: Which of its effects is stored: "live" or "frozen".

    Raises:
        UserError: intervened is neither of the two.
    """
    if intervened not in PROTOCOLS:
        raise UserError(f"intervened {intervened!r} is not stored: give 'live' or 'frozen'")
    source, target = found.edges
    kept = _kept_nodes(found)
    inside = kept[source]
    number = kept.long().cumsum(0) - 1
    weight = found.effects.weight
    measured = None if verification is None else _measured(found, verification, intervened)
    return CircuitGraph(
        nodes=_nodes(found, kept),
        source=number[source[inside]],
        target=number[target[inside]],
        weight=weight[inside],
        intervened=None if measured is None else measured[inside].to(weight),
        unit=UNIT,
        meta=_meta(found, verification, intervened),
    )


def node_name(found: AttributionTrace, node: int) -> str:
    """The id of a node by its number."""
    sources, n = found.model.sources, len(found.model.sources)
    if node >= n:
        return _logit_name(found, node - n)
    pos, layer = int(sources.pos[node]), int(sources.layer[node])
    if node < sources.n_features:
        return f"f{layer}.{int(sources.active.latent[node])}@{pos}"
    return f"embed@{pos}" if layer < 0 else f"e{layer}@{pos}"


def _logit_name(found: AttributionTrace, logit: int) -> str:
    first, second = found.logits.pairs[logit]
    if first < 0:
        return f"direction{logit}@{found.logits.pos}"
    return (
        f"logit.{first}@{found.logits.pos}"
        if second is None
        else f"logit.{first}-{second}@{found.logits.pos}"
    )


def _kept_nodes(found: AttributionTrace) -> Bool[Tensor, " node"]:
    """Features with a row, logits, and errors and tokens with an edge."""
    n, n_features = len(found.model.sources), found.model.sources.n_features
    kept = torch.zeros(found.n_nodes, dtype=torch.bool)
    used = found.effects.source.long()
    kept[used[used >= n_features]] = True
    kept[found.features.cpu()] = True
    kept[n:] = True
    return kept


def unlisted(found: AttributionTrace) -> Float[np.ndarray, " node"]:
    """Absolute input of every node that no edge of the graph lists."""
    effects, rows = found.effects, found.target_nodes
    kept = _kept_nodes(found)[effects.source.long()]
    listed = torch.zeros(effects.n_targets, dtype=torch.float64)
    listed.index_add_(0, effects.target[kept], effects.weight[kept].abs().double())
    out = np.zeros(found.n_nodes)
    every = effects.abs_total.double()
    left = (every - listed).clamp_min(0)
    out[rows.numpy()] = torch.where(left > ROUNDING_FRAC * every, left, 0.0).numpy()
    return out


def _nodes(found: AttributionTrace, kept: Tensor) -> pd.DataFrame:
    numbers = kept.nonzero()[:, 0].numpy()
    sources, logits, n = found.model.sources, found.logits, len(found.model.sources)
    n_logits, pad = len(logits.token_ids), np.full(len(logits.token_ids), -1)
    ids = found.model.frozen.ids.cpu().numpy()
    layer, pos = sources.layer.numpy(), sources.pos.numpy()
    rest = n - sources.n_features + n_logits
    activations = sources.active.value.cpu().double().numpy()
    token = np.where(np.arange(n) >= n - sources.n_pos, ids[pos], -1)
    columns: dict[str, np.ndarray] = {
        "node_id": np.array(_names(found), dtype=object),
        "kind": np.array([*sources.kind, *["logit"] * n_logits], dtype=object),
        "layer": np.concatenate([layer, pad]),
        "feature": np.concatenate([sources.active.latent.cpu().numpy(), np.full(rest, -1)]),
        "pos": np.concatenate([pos, np.full(n_logits, logits.pos)]),
        "token_id": np.concatenate([token, [a if b is None else -1 for a, b in logits.pairs]]),
        "token": np.array([*(_token_text(found, int(i)) for i in ids[pos]), *logits.labels], dtype=object),
        "activation": np.concatenate([activations, np.full(rest, np.nan)]),
        "prob": np.concatenate([np.full(n, np.nan), logits.probs.double().numpy()]),
        "site": np.array([*_sites(found), *[""] * rest], dtype=object),
        "unlisted_abs": unlisted(found),
    }  # fmt: skip
    return node_table({name: values[numbers] for name, values in columns.items()})


def _names(found: AttributionTrace) -> list[str]:
    sources, logits = found.model.sources, range(len(found.logits.token_ids))
    layer, pos = sources.layer.tolist(), sources.pos.tolist()
    latents, n = sources.active.latent.tolist(), sources.n_features
    features = [f"f{a}.{f}@{p}" for a, f, p in zip(layer[:n], latents, pos[:n], strict=True)]
    others = [f"embed@{p}" if a < 0 else f"e{a}@{p}" for a, p in zip(layer[n:], pos[n:], strict=True)]
    return [*features, *others, *(_logit_name(found, logit) for logit in logits)]


def _sites(found: AttributionTrace) -> list[str]:
    names = found.model.transcoders.reads
    return [names[layer] for layer in found.model.sources.active.layer.tolist()]


def _token_text(found: AttributionTrace, token: int) -> str:
    return text(found.model, token)


def _measured(found: AttributionTrace, verification: Verification, which: str) -> Float[Tensor, " edge"]:
    out = torch.full((len(found.effects.weight),), float("nan"), dtype=torch.float64)
    table = verification.table
    out[torch.from_numpy(table["edge"].to_numpy(copy=True))] = torch.from_numpy(
        table[which].to_numpy(copy=True)
    )
    return out


def _meta(found: AttributionTrace, verification: Verification | None, which: str) -> dict[str, Any]:
    model, check = found.model, found.check
    meta: dict[str, Any] = {
        "method": "attribution graph: direct effects with attention patterns and norm scales frozen",
        "model_hash": model_hash(model.anatomy.model),
        "dictionary_hashes": model.transcoders.hashes,
        "prompt_token_ids": model.frozen.ids.tolist(),
        "prompt_tokens": [_token_text(found, token) for token in model.frozen.ids.tolist()],
        "settings": found.settings,
        "freeze_check": asdict(check),
    }
    if verification is not None:
        meta["intervened"] = PROTOCOLS[which]
        meta["verification"] = {"frozen": verification.frozen.as_dict(), "live": verification.live.as_dict()}
    return meta
