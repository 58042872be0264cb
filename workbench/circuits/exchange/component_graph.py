"""A traced circuit of components and features in the exchange schema.

The schema was made for one prompt. A circuit over many pairs has no single position, so `ctx_idx` is the
position of the largest mean absolute first-order effect among pairs as long as the example prompt.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.circuits.edges import EDGE_KINDS, Edges
from workbench.circuits.exchange.names import FEATURE_TYPES, cantor_pair
from workbench.circuits.exchange.validate import EMBEDDING, validate_graph


def graph_node(row: Any, *, n_layers: int, n_ctx: int) -> dict[str, Any]:
    """One row of the node table as a node of the schema; `patched_logits` else `attributed_logits` as effect."""
    layer: int | str = {"embed": EMBEDDING, "logit": n_layers}.get(row.kind, int(row.layer))
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
    validate_graph(graph, n_layers=n_layers)
    return graph
