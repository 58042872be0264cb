"""A traced circuit of edges as nodes and links of the circuit panel.

Drawn are the circuit's own components and edges. A node's effect is its minimality, what the circuit loses
without it; an edge's weight is the exact effect of replacing it alone, and says which input of a head it enters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.circuits.circuit_graph import CircuitGraph


def wiring_nodes(graph: CircuitGraph) -> list[dict[str, Any]]:
    """The circuit's components: `patched_logits` is the minimality, `attributed_logits` the sum of their edges."""
    needed = {row["node_id"]: float(row["minimality_logits"]) for row in graph.meta.get("minimality", [])}
    edges, sums = kept_edges(graph), dict.fromkeys(needed, 0.0)
    for edge in edges:
        sums[edge["source"]] = sums.get(edge["source"], 0.0) + edge["estimate"]
    ends = dict.fromkeys([*sums, *(edge["component"] for edge in edges), "logit"])
    rows = {row["node_id"]: row for row in graph.nodes.to_dict("records")}
    return [
        {
            "id": name, "kind": rows[name]["kind"], "layer": int(rows[name]["layer"]),
            "head": int(rows[name]["head"]), "feature": -1, "pos": -1, "in_circuit": True,
            "attributed_logits": sums.get(name), "patched_logits": needed.get(name),
        }
        for name in ends
        if name in rows
    ]  # fmt: skip


def wiring_links(graph: CircuitGraph) -> list[list[Any]]:
    """The circuit's edges as [source, target, weight, share, unit], largest first."""
    edges = kept_edges(graph)
    most = max((abs(edge["effect"]) for edge in edges), default=1.0) or 1.0
    links = [
        [e["source"], e["component"], e["effect"], abs(e["effect"]) / most, f"logits{e['into']}"]
        for e in edges
    ]
    return sorted(links, key=lambda link: -link[3])


def kept_edges(graph: CircuitGraph) -> list[dict[str, Any]]:
    """The circuit's edges: `source`, `component` and `into` (" into q"), `effect` (exact) and `estimate`, in logits."""
    table: Any = graph.edge_table()
    table = table[table["kept"]] if "kept" in table else table
    exact = table["intervened"] if "intervened" in table else table["weight"]
    found = []
    for row, effect in zip(table.to_dict("records"), exact.fillna(table["weight"]), strict=True):
        component, _, part = str(row["target"]).partition(".h")
        head, _, read = part.partition(".")
        name = f"{component}.h{head}" if part else component
        found.append(
            {
                "source": str(row["source"]), "component": name, "into": f" into {read}" if read else "",
                "effect": float(effect), "estimate": float(row["weight"]),
            }
        )  # fmt: skip
    return found
