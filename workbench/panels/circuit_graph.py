"""The circuit graph: the traced nodes in their layers, the links between them, one node in detail.

Rows are the model's order of computation (embedding, then attention heads, MLP and dictionary features of
each layer, then the logits). A node's size is its effect (exact where it was patched, first-order elsewhere);
its shape is its kind; a dashed link is negative. Pruning by effect happens in the browser.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import traitlets

from workbench.artifacts import read_json
from workbench.errors import UserError, nearest
from workbench.panels.base import Panel
from workbench.panels.wiring_records import wiring_links, wiring_nodes

if TYPE_CHECKING:
    from workbench.circuits.circuit_graph import CircuitGraph as Wiring

KINDS = ("embed", "head", "mlp", "feature", "error", "logit")
COLUMNS = (
    "node_id",
    "kind",
    "layer",
    "head",
    "feature",
    "pos",
    "attributed_logits",
    "patched_logits",
    "in_circuit",
)
MAX_NODES = 90
MAX_LINKS = 300


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _index(value: Any) -> int:
    return -1 if value is None or pd.isna(value) else int(value)


def node_records(nodes: pd.DataFrame, *, limit: int = MAX_NODES) -> list[dict[str, Any]]:
    """The nodes to draw, `limit` at most: the circuit, then components, then features by effect.

    Raises:
        UserError: If a column of the nodes table is missing.
    """
    missing = [name for name in COLUMNS if name not in nodes.columns]
    if missing:
        raise UserError(
            f"the nodes table lacks {', '.join(missing)}; it needs {', '.join(COLUMNS)}: trace again"
        )
    effect: Any = nodes["patched_logits"].fillna(nodes["attributed_logits"]).abs().fillna(0)
    kept: Any = nodes.assign(_effect=effect, _part=nodes["kind"] != "feature").sort_values(
        ["in_circuit", "_part", "_effect"], ascending=False, kind="stable"
    )
    return [
        {
            "id": str(row.node_id), "kind": str(row.kind), "layer": _index(row.layer), "head": _index(row.head),
            "feature": _index(row.feature), "pos": _index(row.pos), "in_circuit": bool(row.in_circuit),
            "attributed_logits": _number(row.attributed_logits), "patched_logits": _number(row.patched_logits),
        }
        for row in kept.head(limit).itertuples()
    ]  # fmt: skip


def link_records(links: list[dict[str, Any]], ids: set[str], *, limit: int = MAX_LINKS) -> list[list[Any]]:
    """The heaviest links between drawn nodes, as [source, target, weight, share, unit].

    Links into the logits are in logits, links into a feature in units of its pre-activation. The two do not
    compare, so `share` is the weight's size relative to the largest of its own unit.
    """
    inside = [
        link for link in links if str(link["source"]) in ids and str(link["target"]) in ids and link["weight"]
    ]
    kept = []
    for into_logits, unit in ((True, "logits"), (False, "pre-act.")):
        same = [link for link in inside if (str(link["target"]) == "logit") == into_logits]
        most = max((abs(link["weight"]) for link in same), default=1.0)
        kept += [
            [
                str(link["source"]),
                str(link["target"]),
                float(link["weight"]),
                abs(link["weight"]) / most,
                unit,
            ]
            for link in same
        ]
    return sorted(kept, key=lambda link: -link[3])[:limit]


class CircuitGraph(Panel):
    """The traced circuit of one task. `CircuitGraph.from_run(run, "ioi")` reads it."""

    panel: ClassVar[str] = "circuit_graph"

    title = traitlets.Unicode("").tag(sync=True)
    nodes = traitlets.List().tag(sync=True)
    links = traitlets.List().tag(sync=True)
    n_total = traitlets.Int(0).tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)

    @classmethod
    def from_tables(
        cls, nodes: pd.DataFrame, links: list[dict[str, Any]], *, title: str = ""
    ) -> CircuitGraph:
        """A graph from a nodes table and a list of {source, target, weight}."""
        records = node_records(nodes)
        kept = link_records(links, {record["id"] for record in records})
        return cls(title=title, nodes=records, links=kept, n_total=len(nodes))

    @classmethod
    def from_run(cls, run: Path, task: str, *, edges: bool = False) -> CircuitGraph:
        """The graph of one traced task of a run folder.

        Args:
            run: Run folder.
            task: Name of the task.
            edges: Draw the circuit of edges between components instead of nodes and features.

        Raises:
            UserError: If the task is not traced in this run, or was traced without edges.
        """
        folder = run / "circuits" / task
        if not (folder / "nodes.parquet").is_file():
            traced = sorted(path.parent.name for path in run.glob("circuits/*/nodes.parquet"))
            raise UserError(
                f"task {task!r} is not traced in run {run.name!r}: `workbench trace` it; {nearest(task, traced)}"
            )
        if edges:
            from workbench.circuits.edge_ablation import FOLDER
            from workbench.circuits.graph_files import load_graph

            if not (folder / FOLDER).is_dir():
                raise UserError(f"task {task!r} was traced without edges: trace it again with edges")
            return cls.from_wiring(load_graph(folder / FOLDER), title=f"{task}, edges between components")
        graph = folder / "graph.json"
        links = read_json(graph).get("links", []) if graph.is_file() else []
        return cls.from_tables(pd.read_parquet(folder / "nodes.parquet"), links, title=task)

    @classmethod
    def from_wiring(cls, graph: Wiring, *, title: str = "") -> CircuitGraph:
        """The circuit of edges between components that a trace found (`TraceResult.wiring`)."""
        nodes = wiring_nodes(graph)
        return cls(
            title=title,
            nodes=nodes,
            links=wiring_links(graph),
            n_total=graph.nodes["site"].tolist().count(""),
        )
