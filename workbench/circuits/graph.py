"""Graphs in the exchange schema of circuit-tracer and Neuronpedia, and the validator that guards it.

Schema: `metadata`, `qParams`, `nodes`, `links` (draft-07, version 1.0.0; circuit-tracer's
`frontend/graph_models.py`, Neuronpedia's `graph-schema.json`). circuit-tracer names an error node of
layer l at position p like feature l of layer 0 at p, so two nodes can carry one id; here ids are unique by
construction (`e2`, `f0.2`, ...) and `validate_graph` rejects duplicates and dangling links before anything
is written.

The schema was made for one prompt. A circuit over many pairs has no single position, so `ctx_idx` is the
position of the largest mean absolute first-order effect among pairs as long as the example prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.circuits.edges import EDGE_KINDS, Edges
from workbench.errors import UserError

NODE_KEYS = ("node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp")
METADATA_KEYS = ("slug", "scan", "prompt_tokens", "prompt")
FEATURE_TYPES = {
    "embed": "embedding",
    "head": "attention head",
    "mlp": "mlp",
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "logit": "logit",
}


def cantor_pair(x: int, y: int) -> int:
    """(x + y)(x + y + 1) / 2 + y: the schema's number for feature y of layer x."""
    return (x + y) * (x + y + 1) // 2 + y


def graph_node(row: Any, *, n_layers: int, n_ctx: int) -> dict[str, Any]:
    """One row of the node table as a node of the schema; `patched_logits` else `attributed_logits` as effect."""
    layer: int | str = {"embed": "E", "logit": n_layers}.get(row.kind, int(row.layer))
    context = n_ctx - 1 if row.kind == "logit" else int(row.peak_pos)
    exact = not pd.isna(row.patched_logits)
    effect = row.patched_logits if exact else row.attributed_logits
    number = {"feature": lambda: cantor_pair(int(row.layer), int(row.feature)), "error": lambda: -1}
    return {
        "node_id": row.node_id,
        "feature": number.get(row.kind, lambda: None)(),
        "layer": layer if isinstance(layer, str) else str(layer),
        "ctx_idx": context,
        "feature_type": FEATURE_TYPES[row.kind],
        "jsNodeId": f"{row.node_id}-{context}",
        "clerp": _label(row),
        "influence": None,
        "activation": None,
        "is_target_logit": row.kind == "logit",
        "effect_logits": None if pd.isna(effect) else float(effect),
        "effect_status": "exact" if exact else "first-order",
    }


def _label(row: Any) -> str:
    labels = {
        "embed": "embedding",
        "head": f"head {row.layer}.{row.head}",
        "mlp": f"MLP {row.layer}",
        "feature": f"feature {row.feature}",
        "error": "dictionary error",
        "logit": "logit difference",
    }
    return labels[row.kind]


def build_graph(
    table: pd.DataFrame, edges: Edges, *, metadata: dict[str, Any], n_layers: int
) -> dict[str, Any]:
    """The exchange graph: all nodes that an edge touches, with those of the circuit pinned.

    Args:
        table: Node table (`nodes.parquet`).
        edges: Edges between its rows.
        metadata: `slug`, `scan`, `prompt`, `prompt_tokens` and whatever else describes the run.
        n_layers: Layers of the model.

    Raises:
        UserError: the graph would break the schema.
    """
    ids = list(table["node_id"])
    touched = sorted({*edges.source.tolist(), *edges.target.tolist()})
    rows = list(table.iloc[touched].itertuples())
    links = [
        {"source": ids[s], "target": ids[t], "weight": w, "kind": EDGE_KINDS[k]}
        for s, t, w, k in zip(
            *(x.tolist() for x in (edges.source, edges.target, edges.weight, edges.kind)), strict=True
        )
    ]
    graph = {
        "metadata": {"schema_version": 1, **metadata},
        "qParams": {
            "pinnedIds": [r.node_id for r in rows if r.in_circuit],
            "supernodes": [],
            "linkType": "both",
        },
        "nodes": [graph_node(r, n_layers=n_layers, n_ctx=len(metadata["prompt_tokens"])) for r in rows],
        "links": links,
    }
    validate_graph(graph)
    return graph


def validate_graph(graph: dict[str, Any]) -> None:
    """Check a graph against the exchange schema, ours or another tool's.

    Raises:
        UserError: a missing key, a duplicate node id, a link to or from no node, or a weight that is no number.
    """
    _need(graph, ("metadata", "qParams", "nodes", "links"), "the graph")
    _need(graph["metadata"], METADATA_KEYS, "metadata")
    for node in graph["nodes"]:
        _need(node, NODE_KEYS, f"node {node.get('node_id')!r}")
    ids = [node["node_id"] for node in graph["nodes"]]
    known = set(ids)
    if len(known) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(
            f"node_id {twice!r} occurs {ids.count(twice)} times: an id names one node, rename the others"
        )
    for link in graph["links"]:
        _check_link(link, known)
    _check_states(graph["qParams"], known)


def _need(part: dict[str, Any], keys: Sequence[str], what: str) -> None:
    missing = [key for key in keys if key not in part]
    if missing:
        raise UserError(f"{what} lacks {', '.join(missing)}: the exchange schema requires {', '.join(keys)}")


def _check_link(link: dict[str, Any], known: set[str]) -> None:
    _need(link, ("source", "target", "weight"), "a link")
    for end in ("source", "target"):
        if link[end] not in known:
            raise UserError(
                f"link {link['source']!r} -> {link['target']!r}: its {end} is no node of the graph, add it"
            )
    weight = link["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or weight != weight:
        raise UserError(f"link {link['source']!r} -> {link['target']!r} has weight {weight!r}: give a number")


def _check_states(parameters: dict[str, Any], known: set[str]) -> None:
    named = [
        *parameters.get("pinnedIds", []),
        *(i for group in parameters.get("supernodes", []) for i in group[1:]),
    ]
    lost = next((i for i in named if i not in known), None)
    if lost is not None:
        raise UserError(
            f"qParams names node {lost!r}, which is not in the graph: pin nodes of the graph only"
        )
