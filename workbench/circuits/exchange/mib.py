"""Circuits of EAP-IG and MIB: scores and membership of every edge between components, as JSON.

    {cfg: {n_layers, n_heads, d_model, parallel_attn_mlp},
     nodes: {name: {in_graph, score?}}, edges: {"a0.h1->m3": {score, in_graph}, ...}}

The sign of a score is that of the metric it was computed with. EAP-IG gives the effect of corrupting an edge on the
metric; with a loss as metric (minus the logit difference, as in MIB) positive scores help the answer, with the
logit difference itself negative ones do. No file says which, so the reader has to: `positive_helps`. In the
workbench positive always helps.

Grouped-query models: EAP-IG gives each query head its own k and v. Here k and v belong to key-value heads. Reading
with `n_key_value_heads` adds the scores of a group, which is exact for first-order scores; writing divides them
equally among the group, so that reading gives the same sum.

The `.pt` files of the same tools are pickles and are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from workbench.artifacts import write_json
from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.exchange.checks import is_number, need, shown
from workbench.circuits.exchange.json_files import MAX_BYTES, read_strict_json
from workbench.circuits.exchange.mib_names import Shape, our_edge, our_node, shape_of, their_edge
from workbench.circuits.node_names import graph_of_edges
from workbench.errors import UserError

UNIT = "effect on the metric, mean over prompts; positive helps"
NEURONS = ("neurons", "neurons_scores")
Edge = tuple[str, str]


def read_circuit(
    path: Path, *, positive_helps: bool, n_key_value_heads: int | None = None, max_bytes: int = MAX_BYTES
) -> CircuitGraph:
    """The circuit in a JSON file of EAP-IG or MIB.

    Args:
        path: The file.
        positive_helps: Whether its scores are positive where an edge helps the answer; else they change sign.
        n_key_value_heads: Key-value heads of a grouped-query model, whose k and v edges are then added by group.
        max_bytes: Refuse larger files.

    Raises:
        UserError: a damaged file, a node or edge that the model has not, a score that is no number, or a group
            of which some edges are in the circuit and others are not.
    """
    record = read_strict_json(path, max_bytes=max_bytes)
    return circuit_of_record(record, positive_helps=positive_helps, n_key_value_heads=n_key_value_heads)


def circuit_of_record(
    record: dict[str, Any], *, positive_helps: bool, n_key_value_heads: int | None = None
) -> CircuitGraph:
    """The circuit in parsed JSON; arguments and refusals as for `read_circuit`."""
    need(record, ("cfg", "nodes", "edges"), "the circuit")
    shape = shape_of(record["cfg"])
    need(record["nodes"], (), "nodes")
    need(record["edges"], (), "edges")
    sign = 1.0 if positive_helps else -1.0
    edges = _edges(record["edges"], shape, _group_size(shape, n_key_value_heads))
    nodes = {
        our_node(name, shape): _checked(info, f"node {name!r}", ("in_graph",))
        for name, info in record["nodes"].items()
    }
    graph = graph_of_edges(
        edges,
        sign * torch.tensor([score for score, _ in edges.values()], dtype=torch.float64),
        nodes=nodes,
        kept=torch.tensor([kept for _, kept in edges.values()], dtype=torch.bool),
        unit=UNIT,
        meta=_meta(record, shape),
    )
    return _with_node_values(graph, nodes, sign)


def write_circuit(
    graph: CircuitGraph,
    path: Path,
    *,
    shape: Shape | None = None,
    positive_helps: bool = True,
    n_key_value_heads: int | None = None,
) -> None:
    """Write a graph of components as EAP-IG and MIB read it; arguments and refusals as for `circuit_record`."""
    write_json(
        path,
        circuit_record(
            graph, shape=shape, positive_helps=positive_helps, n_key_value_heads=n_key_value_heads
        ),
    )


def circuit_record(
    graph: CircuitGraph,
    *,
    shape: Shape | None = None,
    positive_helps: bool = True,
    n_key_value_heads: int | None = None,
) -> dict[str, Any]:
    """The JSON object of a graph of components.

    Args:
        graph: Edges from `embed`, heads and MLPs to `q`, `k`, `v` of heads, MLPs and `logit`; edges in `kept` (all,
            where it is None) are in the circuit, and so are the nodes of the column `in_circuit` or, where there
            is none, the ends of those edges.
        shape: The model; not needed for a circuit that was read.
        positive_helps: The sign to write.
        n_key_value_heads: Key-value heads of a grouped-query model.

    Raises:
        UserError: no shape, or an edge that such a file has no name for.
    """
    shape = _known_shape(graph, shape)
    sign = 1.0 if positive_helps else -1.0
    kept = torch.ones(graph.n_edges, dtype=torch.bool) if graph.kept is None else graph.kept
    group = _group_size(shape, n_key_value_heads)
    ids, edges = graph.ids, {}
    columns = (graph.source.tolist(), graph.target.tolist(), graph.weight.tolist(), kept.tolist())
    for s, t, weight, inside in zip(*columns, strict=True):
        for name, share in _written(ids[s], ids[t], group, shape):
            edges[name] = {"score": sign * weight * share, "in_graph": inside}
    return {"cfg": shape.as_dict(), "nodes": _node_records(graph, shape, kept, sign), "edges": edges}


def _edges(given: dict[str, Any], shape: Shape, group: int) -> dict[Edge, tuple[float, bool]]:
    found: dict[Edge, tuple[float, bool]] = {}
    for name, info in given.items():
        checked = _checked(info, f"edge {name!r}", ("score", "in_graph"))
        if not is_number(checked["score"]):
            raise UserError(f"the score of edge {name!r} is {shown(checked['score'])}: give a finite number")
        edge, inside = _grouped(our_edge(name, shape), group), checked["in_graph"]
        score, before = found.get(edge, (0.0, inside))
        if before != inside:
            raise UserError(
                f"edge {name!r} is {'' if inside else 'not '}in the circuit and others of its key-value head are"
                f"{' not' if inside else ''}: a key-value head is kept whole or not at all"
            )
        found[edge] = score + checked["score"], inside
    return found


def _checked(info: Any, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    need(info, keys, what)
    if not isinstance(info["in_graph"], bool):
        raise UserError(f"in_graph of {what} is {shown(info['in_graph'])}: give true or false")
    if info.get("score") is not None and not is_number(info["score"]):
        raise UserError(f"the score of {what} is {shown(info['score'])}: give a finite number")
    return info


def _group_size(shape: Shape, n_key_value_heads: int | None) -> int:
    if n_key_value_heads is None:
        return 1
    if n_key_value_heads < 1 or shape.n_heads % n_key_value_heads:
        raise UserError(
            f"n_key_value_heads {n_key_value_heads} does not divide {shape.n_heads} heads: give the model's number"
        )
    return shape.n_heads // n_key_value_heads


def _grouped(edge: Edge, group: int) -> Edge:
    """The edge into the key-value head of a query head's k or v."""
    head, _, part = edge[1].rpartition(".")
    if group == 1 or part not in ("k", "v"):
        return edge
    layer, _, number = head.rpartition(".h")
    return edge[0], f"{layer}.h{int(number) // group}.{part}"


def _written(writer: str, reader: str, group: int, shape: Shape) -> list[tuple[str, float]]:
    """Their names of one of our edges, with the share of its score that each carries."""
    head, _, part = reader.rpartition(".")
    names = [their_edge(writer, reader)]
    if group > 1 and part in ("k", "v"):
        layer, _, number = head.rpartition(".h")
        heads = range(int(number) * group, (int(number) + 1) * group)
        names = [their_edge(writer, f"{layer}.h{h}.{part}") for h in heads]
    for name in names:
        our_edge(name, shape)
    return [(name, 1.0 / len(names)) for name in names]


def _meta(record: dict[str, Any], shape: Shape) -> dict[str, Any]:
    neurons = {
        name: {key: info[key] for key in NEURONS if key in info}
        for name, info in record["nodes"].items()
        if any(key in info for key in NEURONS)
    }
    return {"cfg": shape.as_dict(), **({"neurons": neurons} if neurons else {})}


def _with_node_values(graph: CircuitGraph, nodes: dict[str, Any], sign: float) -> CircuitGraph:
    """Membership and scores of the file's nodes as columns; a reader of a head is in if a kept edge enters it."""
    kept = graph.target if graph.kept is None else graph.target[graph.kept]
    entered = {graph.ids[row] for row in kept.tolist()}
    inside = [bool(nodes[name]["in_graph"]) if name in nodes else name in entered for name in graph.ids]
    scores = [nodes.get(name, {}).get("score") for name in graph.ids]
    columns: dict[str, Any] = {"in_circuit": inside}
    if any(score is not None for score in scores):
        columns["score"] = [float("nan") if score is None else sign * float(score) for score in scores]
    return graph.with_columns(**columns)


def _known_shape(graph: CircuitGraph, shape: Shape | None) -> Shape:
    if shape is None and "cfg" not in graph.meta:
        raise UserError(
            "shape is not given and the graph does not say it: give the model's layers, heads and width"
        )
    return shape_of(graph.meta["cfg"]) if shape is None else shape


def _node_records(graph: CircuitGraph, shape: Shape, kept: torch.Tensor, sign: float) -> dict[str, Any]:
    ends = {graph.ids[row] for edges in (graph.source, graph.target) for row in edges[kept].tolist()}
    inside = {name.removesuffix(f".{part}") for name in ends for part in ("q", "k", "v")}
    table = graph.nodes.set_index("node_id")
    records = {}
    for name in shape.nodes():
        ours = our_node(name, shape)
        known = ours in table.index
        flag = bool(table.at[ours, "in_circuit"]) if known and "in_circuit" in table else ours in inside
        score = float(table.at[ours, "score"]) if known and "score" in table else float("nan")
        records[name] = {"in_graph": flag, **({"score": sign * score} if score == score else {})}
        records[name] |= graph.meta.get("neurons", {}).get(name, {})
    return records
