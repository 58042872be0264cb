"""Names and numbers of the graph schema that circuit-tracer and Neuronpedia share (draft-07, version 1.0.0).

    feature  {layer}_{feature}_{pos}      `feature` = cantor_pair(layer, feature)
    error    ERR_{layer}_{pos}            `feature` = -1
    token    E_{token id}_{pos}           layer "E"
    logit    {logit layer}_{token id}_{pos}

circuit-tracer calls the error of layer l at position p `0_{l}_{p}`, like feature l of layer 0 at p, so two nodes can
carry one name; here errors have names of their own. Whatever has no such name (heads, MLPs, groups, nodes without
a position) keeps the one it has, and so do nodes whose names would coincide.

`feature_type` has more values in the wild than in the schema: attention dictionaries ("lorsa") and their errors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import isqrt
from typing import Any

from workbench.circuits.circuit_graph import CircuitGraph

FEATURE_TYPES = {
    "embed": "embedding",
    "token": "embedding",
    "head": "attention head",
    "mlp": "mlp",
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "logit": "logit",
    "group": "group",
}
KIND_OF = {
    "embedding": "token",
    "attention head": "head",
    "mlp": "mlp",
    "cross layer transcoder": "feature",
    "lorsa": "feature",
    "mlp reconstruction error": "error",
    "lorsa error": "error",
    "residual reconstruction error": "error",
    "logit": "logit",
    "group": "group",
}
_THREE = re.compile(r"(\d+)_(\d+)_(\d+)")
_TOKEN = re.compile(r"E_(\d+)_(\d+)")


def cantor_pair(x: int, y: int) -> int:
    """(x + y)(x + y + 1) / 2 + y: the schema's number for feature y of layer x."""
    return (x + y) * (x + y + 1) // 2 + y


def cantor_unpair(number: int) -> tuple[int, int]:
    """The x and y of `cantor_pair`."""
    diagonal = (isqrt(8 * number + 1) - 1) // 2
    y = number - diagonal * (diagonal + 1) // 2
    return diagonal - y, y


def exchange_ids(graph: CircuitGraph, *, logit_layer: int) -> list[str]:
    """The schema's name of each node, in the order of the table; all different.

    Nodes whose names would coincide (features of two dictionaries in one layer) keep their own.
    """
    own = graph.ids
    wanted = [_exchange_id(row, logit_layer) for row in graph.nodes.itertuples()]
    count = Counter(wanted)
    taken = [name if count[name] == 1 else mine for name, mine in zip(wanted, own, strict=True)]
    return taken if len(set(taken)) == len(taken) else own


def _exchange_id(row: Any, logit_layer: int) -> str:
    parts: dict[str, tuple[str, Sequence[int]]] = {
        "feature": (f"{row.layer}_{row.feature}_{row.pos}", (row.layer, row.feature, row.pos)),
        "error": (f"ERR_{row.layer}_{row.pos}", (row.layer, row.pos)),
        "token": (f"E_{row.token_id}_{row.pos}", (row.token_id, row.pos)),
        "logit": (f"{logit_layer}_{row.token_id}_{row.pos}", (row.token_id, row.pos)),
    }
    name, numbers = parts.get(row.kind, ("", (-1,)))
    return name if min(numbers) >= 0 else str(row.node_id)


def feature_index(node: dict[str, Any], layer: int) -> int:
    """Index of a feature in its dictionary, from its name, else from its number; -1 where it has neither.

    A number that is the pairing of the node's own layer is taken for one, any other for the index itself.
    """
    match = _THREE.fullmatch(node["node_id"])
    if match and int(match[1]) == layer and int(match[3]) == node["ctx_idx"]:
        return int(match[2])
    number = node["feature"]
    if number is None or number < 0:
        return -1
    x, y = cantor_unpair(number)
    return y if x == layer else number


def vocabulary_index(node: dict[str, Any]) -> int:
    """Token id of an embedding or logit node from its name; -1 where the name does not say it."""
    name = node["node_id"]
    match = _TOKEN.fullmatch(name)
    if match:
        return int(match[1])
    match = _THREE.fullmatch(name) if node["feature_type"] == "logit" else None
    return int(match[2]) if match else -1
