"""The parts of an exchange graph: its nodes, its saved state and its links, made from a `CircuitGraph`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from workbench.circuits.circuit_graph import CircuitGraph, edge_values
from workbench.circuits.exchange.names import FEATURE_TYPES, cantor_pair
from workbench.circuits.exchange.validate import EMBEDDING
from workbench.errors import UserError

Names = Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Links:
    """Links in the order in which they are written.

    Attributes:
        ids: Names of the nodes (node).
        source: Row of each link's source (link).
        target: Row of each link's target (link).
        values: Weight and what else there is of each link (link).
    """

    ids: np.ndarray
    source: np.ndarray
    target: np.ndarray
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.source)

    def records(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Links [start, stop) as the schema has them; NaN becomes null."""
        columns = {
            "source": self.ids[self.source[start:stop]].tolist(),
            "target": self.ids[self.target[start:stop]].tolist(),
            **{name: [_or_null(x) for x in part[start:stop].tolist()] for name, part in self.values.items()},
        }
        return [dict(zip(columns, link, strict=True)) for link in zip(*columns.values(), strict=True)]


def links_of(graph: CircuitGraph, ids: list[str], order: Int[np.ndarray, " link"] | None) -> Links:
    """The links of these edge numbers, or of all edges.

    Raises:
        UserError: two edges join the same nodes in the same direction.
    """
    chosen = slice(None) if order is None else order
    source, target = graph.source.numpy()[chosen], graph.target.numpy()[chosen]
    key, count = np.unique(source.astype(np.int64) * max(1, graph.n_nodes) + target, return_counts=True)
    if (count > 1).any():
        first, second = divmod(int(key[np.argmax(count > 1)]), graph.n_nodes)
        raise UserError(
            f"{count.max()} edges join {graph.ids[first]!r} -> {graph.ids[second]!r}: the exchange schema has one link "
            "for two nodes, add their weights"
        )
    values = {name: tensor.numpy()[chosen] for name, tensor in edge_values(graph).items()}
    return Links(np.array(ids, dtype=object), source, target, values)


def heaviest(graph: CircuitGraph, n_links: int) -> Int[np.ndarray, " link"]:
    """Numbers of the edges of largest absolute weight, largest first; equals by target, then source."""
    key = graph.target.long() * graph.n_nodes + graph.source.long()
    return np.lexsort((key.numpy(), -graph.weight.abs().numpy()))[:n_links]


def node_records(graph: CircuitGraph, names: Names, *, logit_layer: int, n_ctx: int) -> list[dict[str, Any]]:
    """The nodes as the schema has them; `names` are the schema's names by node id."""
    traced: Mapping[str, Any] = graph.meta.get("qk_tracing_results", {})
    records = []
    for own, row in zip(graph.ids, graph.nodes.itertuples(), strict=True):
        record = _node(row, names[own], logit_layer=logit_layer, n_ctx=n_ctx)
        if own in traced:
            record["qk_tracing_results"] = _renamed_tracing(traced[own], names)
        records.append(record)
    return records


def state_record(graph: CircuitGraph, names: Names) -> dict[str, Any]:
    """Pins, supernodes and the rest of the saved state."""
    state = {"linkType": "both", **graph.meta.get("state", {})}
    if state.get("clickedId"):
        state["clickedId"] = names.get(state["clickedId"], state["clickedId"])
    return {
        "pinnedIds": [names.get(name, name) for name in graph.meta.get("pins", [])],
        "supernodes": [
            [label, *(names.get(name, name) for name in members)]
            for label, *members in graph.meta.get("supernodes", [])
        ],
        **state,
    }


def _node(row: Any, name: str, *, logit_layer: int, n_ctx: int) -> dict[str, Any]:
    everywhere, is_logit = row.pos < 0, row.kind == "logit"
    context = (n_ctx - 1 if is_logit else 0) if everywhere else int(row.pos)
    record = {
        "node_id": name,
        "feature": _number(row),
        "layer": str(logit_layer) if is_logit else EMBEDDING if row.layer < 0 else str(row.layer),
        "ctx_idx": context,
        "feature_type": getattr(row, "feature_type", "") or FEATURE_TYPES[row.kind],
        "jsNodeId": f"{name}-{context}",
        "clerp": row.label or _label(row),
        "influence": _or_null(getattr(row, "covered_frac", float("nan"))),
        "activation": _or_null(row.activation),
        "token_prob": _or_null(row.prob),
        "is_target_logit": bool(getattr(row, "is_target_logit", False)),
    }
    said = {"all_positions": everywhere, "site": str(row.site)}
    return {**record, **{key: value for key, value in said.items() if value}}


def _number(row: Any) -> int | None:
    """The schema's `feature`: a pairing for features, -1 for errors, the token for logits, the place for tokens."""
    if row.kind == "feature":
        return cantor_pair(int(row.layer), int(row.feature)) if min(row.layer, row.feature) >= 0 else None
    number = {"error": -1, "logit": int(row.token_id), "token": int(row.pos)}.get(row.kind)
    return number if row.kind == "error" or (number or 0) >= 0 else None


def _label(row: Any) -> str:
    if row.kind == "logit" and row.token:
        chance = f" (p={row.prob:.3f})" if math.isfinite(row.prob) else ""
        return f'Output "{row.token}"{chance}'
    return f'Emb: "{row.token}"' if row.kind == "token" and row.token else ""


def _renamed_tracing(results: Mapping[str, Any], names: Names) -> dict[str, Any]:
    return {
        key: [
            [names.get(part, part) if isinstance(part, str) else part for part in entry] for entry in entries
        ]
        if isinstance(entries, list)
        else entries
        for key, entries in results.items()
    }


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
