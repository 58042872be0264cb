"""The graph of a circuit, at any granularity: one table of nodes and flat tensors of edges.

Nodes are components, dictionary features with error nodes, tokens and logits at their positions, or groups of
them. An edge points from the node that writes to the node that reads; its `weight` is the predicted effect,
its `intervened` the effect that an intervention had (NaN where nobody intervened), both in `unit`. The sign is
that of the workbench: positive helps the answer.

Names. Without positions `embed`, `a1.h3`, `m1`, `f2.103`, `e2`, `logit`; at position 5 with `@5` behind
(`f2.103@5`, `e2@5`, `embed@5` for a token, `logit.464` for one of several logits); readers of a head are rows
of kind `head` whose `site` is `q`, `k` or `v` (`a1.h3.q`; the head index of `k` and `v` is that of the
key-value head). Other tools' names are kept as they are. A name is never markup: see `ID_PATTERN`.

On disk a graph is a folder of three files that nothing executes: `nodes.parquet`, `edges.safetensors`,
`meta.json` with the SHA-256 of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.circuits.pruning.order import sinks_first
from workbench.errors import UserError, nearest

KINDS = ("embed", "token", "head", "mlp", "feature", "error", "logit", "group")
READS = ("q", "k", "v")
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+\-]{0,127}")
DEFAULTS: dict[str, Any] = {
    "node_id": "",
    "kind": "",
    "layer": -1,
    "head": -1,
    "feature": -1,
    "site": "",
    "pos": -1,
    "token_id": -1,
    "token": "",
    "activation": float("nan"),
    "prob": float("nan"),
    "label": "",
}


@dataclass(frozen=True, eq=False)
class CircuitGraph:
    """Nodes, weighted edges between them, and what the weights mean.

    Attributes:
        nodes: One row a node, with at least the columns of `DEFAULTS`: `node_id`, `kind` (of `KINDS`), `layer`,
            `head`, `feature`, `site` (hook of the dictionary, or `q`, `k`, `v`), `pos` (-1: all positions),
            `token_id`, `token`, `activation`, `prob` (of a logit), `label`. -1, "" and NaN stand for "has none".
        source: Row of the node that writes (edge).
        target: Row of the node that reads (edge).
        weight: Predicted effect, in `unit` (edge).
        intervened: Effect of an intervention, in `unit`; NaN where not verified (edge). None: nowhere.
        low: Lower end of the weight's 95% interval (edge), or None.
        high: Upper end (edge), or None.
        kept: Which edges are in the circuit (edge), or None where none was chosen.
        unit: What weights are measured in, for instance "logits".
        meta: JSON: protocol, metric, hashes; `pins` (node ids) and `supernodes` ([label, node id, ...]).
    """

    nodes: pd.DataFrame
    source: Int[Tensor, " edge"]
    target: Int[Tensor, " edge"]
    weight: Float[Tensor, " edge"]
    intervened: Float[Tensor, " edge"] | None = None
    low: Float[Tensor, " edge"] | None = None
    high: Float[Tensor, " edge"] | None = None
    kept: Bool[Tensor, " edge"] | None = None
    unit: str = "logits"
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_nodes(self.nodes)
        _check_edges(self)

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.nodes)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.source)

    @cached_property
    def ids(self) -> list[str]:
        """Node ids in the order of the table."""
        return self.nodes["node_id"].tolist()

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def row(self, node_id: str) -> int:
        """The row of one node.

        Raises:
            UserError: no node is called so.
        """
        if node_id not in self._rows:
            raise UserError(f"node {node_id!r} is not in the graph; {nearest(node_id, self._rows)}")
        return self._rows[node_id]

    def is_kind(self, *kinds: str) -> Bool[Tensor, " node"]:
        """Which nodes are of one of the kinds."""
        return torch.from_numpy(self.nodes["kind"].isin(kinds).to_numpy(dtype=bool, copy=True))

    @property
    def verified(self) -> Bool[Tensor, " edge"]:
        """Which edges carry an intervened effect."""
        return (
            torch.zeros(self.n_edges, dtype=torch.bool)
            if self.intervened is None
            else ~self.intervened.isnan()
        )

    def edge_table(self) -> pd.DataFrame:
        """One row an edge: `source`, `target` (ids), `weight`, and each of the optional tensors there is."""
        ids = np.array(self.ids, dtype=object)
        ends = {"source": ids[self.source.numpy()], "target": ids[self.target.numpy()]}
        return pd.DataFrame({**ends, **{name: t.numpy() for name, t in edge_values(self).items()}})

    def with_columns(self, **columns: Sequence[Any] | np.ndarray) -> CircuitGraph:
        """The graph with further columns of its node table, one value a node."""
        return replace(self, nodes=self.nodes.assign(**columns))

    def with_edges(self, keep: Bool[Tensor, " edge"] | Int[Tensor, " kept"]) -> CircuitGraph:
        """The same nodes with only these edges, in the order given (a mask or edge numbers)."""
        parts = {"source": self.source, "target": self.target, **edge_values(self)}
        return replace(self, **{name: tensor[keep] for name, tensor in parts.items()})

    def with_nodes(self, keep: Bool[Tensor, " node"]) -> CircuitGraph:
        """The kept nodes and the edges between them; pins and supernodes keep those that are left."""
        inside = keep[self.source.long()] & keep[self.target.long()]
        renumbered = keep.long().cumsum(0) - 1
        ends = {
            name: renumbered[ends[inside].long()].to(ends.dtype)
            for name, ends in (("source", self.source), ("target", self.target))
        }
        values = {name: tensor[inside] for name, tensor in edge_values(self).items()}
        nodes = self.nodes[keep.numpy()].reset_index(drop=True)
        return replace(self, nodes=nodes, **ends, **values, meta=_meta_of(self.meta, set(nodes["node_id"])))

    def sinks_first(self) -> Int[Tensor, " node"]:
        """The rows in an order in which each comes after all nodes that it has edges to.

        Raises:
            UserError: the graph has a cycle, which is named.
        """
        ends = self.source.numpy(), self.target.numpy()
        return torch.from_numpy(sinks_first(*ends, self.n_nodes, names=self.ids))


def node_table(
    columns: Mapping[str, Sequence[Any] | np.ndarray] | Sequence[Mapping[str, Any]],
) -> pd.DataFrame:
    """A node table of these columns (or records): absent columns and values take their defaults.

    Further columns are kept behind the known ones.
    """
    given = pd.DataFrame(columns if isinstance(columns, Mapping) else list(columns))
    known = {}
    for name, default in DEFAULTS.items():
        column = given[name] if name in given else pd.Series([default] * len(given), dtype=object)
        known[name] = column.where(column.notna(), default).astype(_dtype(default))
    rest = [name for name in given.columns if name not in DEFAULTS]
    return pd.concat([pd.DataFrame(known), given[rest]], axis=1)


def edge_values(graph: CircuitGraph) -> dict[str, Tensor]:
    """The tensors over edges beside the two ends, those that are there."""
    names = ("weight", "intervened", "low", "high", "kept")
    return {name: tensor for name in names if (tensor := getattr(graph, name)) is not None}


def check_id(node_id: object, *, what: str = "node_id") -> None:
    """Refuse a name that is no name.

    Raises:
        UserError: not a string of `ID_PATTERN`.
    """
    if not isinstance(node_id, str) or not ID_PATTERN.fullmatch(node_id):
        raise UserError(
            f"{what} {str(node_id)[:140]!r} is not a name: use 1 to 128 letters, digits and _ . : @ + -, "
            "first a letter or a digit; text for people belongs in the label"
        )


def check_nodes(nodes: pd.DataFrame) -> None:
    """Check a node table.

    Raises:
        UserError: a missing column, an id that is no name or occurs twice, an unknown kind.
    """
    missing = [name for name in DEFAULTS if name not in nodes.columns]
    if missing:
        raise UserError(f"the node table lacks {', '.join(missing)}: make it with `node_table`")
    for name in nodes["node_id"].tolist():
        check_id(name)
    twice = nodes["node_id"][nodes["node_id"].duplicated()].tolist()
    if twice:
        n = int((nodes["node_id"] == twice[0]).sum())
        raise UserError(f"node_id {twice[0]!r} occurs {n} times: an id names one node, rename the others")
    _check_kinds(nodes)


def _check_kinds(nodes: pd.DataFrame) -> None:
    known = set(KINDS)
    for name, kind in zip(nodes["node_id"].tolist(), nodes["kind"].tolist(), strict=True):
        if kind not in known:
            raise UserError(f"node {name!r} is of kind {kind!r}; {nearest(str(kind), KINDS)}")


def _check_edges(graph: CircuitGraph) -> None:
    lengths = {name: len(t) for name, t in {"target": graph.target, **edge_values(graph)}.items()}
    wrong = next((name for name, n in lengths.items() if n != graph.n_edges), None)
    if wrong is not None:
        raise UserError(
            f"source has {graph.n_edges} edges and {wrong} {lengths[wrong]}: give one number of each for every edge"
        )
    for name, ends in (("source", graph.source), ("target", graph.target)):
        outside = (ends < 0) | (ends >= graph.n_nodes)
        if outside.any():
            edge = int(outside.nonzero()[0])
            raise UserError(
                f"{name} {int(ends[edge])} of edge {edge} is no row of a table of {graph.n_nodes} nodes: "
                f"give 0 to {graph.n_nodes - 1}"
            )
    _check_weights(graph)


def _check_weights(graph: CircuitGraph) -> None:
    for what, bad, why in (
        ("the edge", graph.source == graph.target, "joins a node to itself, remove it"),
        ("the weight of", ~graph.weight.isfinite(), "is not finite, give a number"),
    ):
        if bad.any():
            edge = int(bad.nonzero()[0])
            ids = graph.nodes["node_id"]
            raise UserError(
                f"{what} {ids[int(graph.source[edge])]!r} -> {ids[int(graph.target[edge])]!r} (edge {edge}) {why}"
            )


def _meta_of(meta: Mapping[str, Any], left: Iterable[str]) -> dict[str, Any]:
    kept = set(left)
    found = dict(meta)
    if "pins" in meta:
        found["pins"] = [name for name in meta["pins"] if name in kept]
    if "supernodes" in meta:
        groups = [[label, *(n for n in members if n in kept)] for label, *members in meta["supernodes"]]
        found["supernodes"] = [group for group in groups if len(group) > 1]
    return found


def _dtype(default: Any) -> str:
    return {int: "int64", float: "float64", str: "str"}[type(default)]
