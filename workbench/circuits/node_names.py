"""What a node's name says: `a1.h3.q@5` is the query reader of head 3 of layer 1 at position 5.

    embed, embed@5, a1.h3, a1.h3.q, m1, f2.103, e2, logit, logit.464      each may carry a position, @5

`node_records` turns names into rows of a node table, so that a graph of named edges needs no table of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.circuit_graph import CircuitGraph, node_table
from workbench.errors import UserError

_NAME = re.compile(
    r"(?:(?P<embed>embed)|a(?P<head_layer>\d+)\.h(?P<head>\d+)(?:\.(?P<site>[qkv]))?|m(?P<mlp>\d+)"
    r"|f(?P<feature_layer>\d+)\.(?P<feature>\d+)|e(?P<error>\d+)|(?P<logit>logit)(?:\.(?P<token_id>\d+))?)"
    r"(?:@(?P<pos>\d+))?"
)
_LAYER_OF = {"head": "head_layer", "mlp": "mlp", "feature": "feature_layer", "error": "error"}


def node_record(node_id: str) -> dict[str, Any]:
    """The row of one name: kind, layer, head, feature, site, pos and token_id as far as the name says them.

    An embedding with a position is of kind `token`.

    Raises:
        UserError: the name is not one of the workbench's.
    """
    match = _NAME.fullmatch(node_id)
    if match is None:
        raise UserError(
            f"node_id {node_id!r} does not say what it names: write embed, a1.h3, a1.h3.q, m1, f2.103, e2 or logit, "
            "with @5 behind for position 5"
        )
    said = {name: value for name, value in match.groupdict().items() if value is not None}
    kind = next(kind for kind in ("embed", "head", "mlp", "feature", "error", "logit") if kind in said)
    numbers = {name: int(said[name]) for name in ("head", "pos", "token_id") if name in said}
    if kind == "feature":
        numbers["feature"] = int(said["feature"])
    if kind in _LAYER_OF:
        numbers["layer"] = int(said[_LAYER_OF[kind]])
    kind = "token" if kind == "embed" and "pos" in said else kind
    return {"node_id": node_id, "kind": kind, "site": said.get("site", ""), **numbers}


def graph_of_edges(
    edges: Iterable[tuple[str, str]],
    weight: Float[Tensor, " edge"],
    *,
    nodes: Iterable[str] = (),
    **parts: Any,
) -> CircuitGraph:
    """A graph of named edges, (writer id, reader id), its nodes in the order of computation.

    Args:
        edges: Names of source and target.
        weight: One weight an edge.
        nodes: Names of nodes that are in the graph even where no edge touches them.
        **parts: Further fields of `CircuitGraph` (`intervened`, `kept`, `unit`, `meta`).

    Raises:
        UserError: a name that says nothing, or what `CircuitGraph` refuses.
    """
    pairs = list(edges)
    names = dict.fromkeys([*nodes, *(name for pair in pairs for name in pair)])
    records = sorted((node_record(name) for name in names), key=_place)
    row = {record["node_id"]: i for i, record in enumerate(records)}
    source, target = (torch.tensor([row[pair[end]] for pair in pairs], dtype=torch.int64) for end in (0, 1))
    return CircuitGraph(nodes=node_table(records), source=source, target=target, weight=weight, **parts)


def _place(record: dict[str, Any]) -> tuple[Any, ...]:
    """Order of computation: embedding, then of each layer heads, MLP, features, errors; logits last."""
    kind = record["kind"]
    within = ("embed", "token", "head", "mlp", "feature", "error", "logit").index(kind)
    layer = {"embed": -1, "token": -1}.get(kind, record.get("layer", 10**9))
    number = record.get("head", record.get("feature", record.get("token_id", -1)))
    return layer, within, number, record.get("site", ""), record.get("pos", -1)
