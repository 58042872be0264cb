"""A graph reduced to what carries the logits: nodes, then edges, then whatever was left hanging.

1. Nodes: the fewest with `node_frac` of all influence; tokens, embeddings and logits always stay.
2. Edges: input shares are formed anew among the kept nodes, and the fewest edges with `edge_frac` of all edge
   scores stay.
3. Hanging nodes go: one that is no token, embedding or logit needs an edge out; one that is no error either needs
   an edge in. Their edges go with them, until nothing more is hanging. What is left is the union of all paths
   from tokens and errors to logits; two passes in topological order find it, however long the paths are.

The thresholds 0.8 and 0.98 are those of circuit-tracer. Source: Ameisen et al. 2025, "Circuit tracing",
section on graph pruning (transformer-circuits.pub).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool

from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.pruning import loops
from workbench.circuits.pruning.influence import (
    Influence,
    PerNode,
    Weights,
    covered_frac_at_rank,
    covering_mask,
    edge_scores,
    influence,
)
from workbench.circuits.pruning.order import Ends
from workbench.circuits.pruning.shares import ShareScores, share_scores
from workbench.errors import UserError

ALWAYS_KEPT = ("token", "embed", "logit")
SOURCES = (*ALWAYS_KEPT, "error")
NODE_FRAC, EDGE_FRAC = 0.8, 0.98

NodeMask = Bool[np.ndarray, " node"]


@dataclass(frozen=True, eq=False)
class Pruned:
    """What pruning keeps.

    Attributes:
        nodes: Kept nodes (node).
        edges: Kept edges (edge).
        influence: Influence in the whole graph, before pruning.
    """

    nodes: NodeMask
    edges: Bool[np.ndarray, " edge"]
    influence: Influence


@dataclass(frozen=True, eq=False)
class PrunedGraph:
    """A pruned graph and what was lost.

    Attributes:
        graph: Kept nodes with the columns `influence` and `covered_frac` (its rank among all nodes) and kept edges.
        n_nodes_before: Nodes of the whole graph.
        n_edges_before: Edges of the whole graph.
        node_frac: Share of influence that the kept nodes had to reach.
        edge_frac: Share of edge scores that the kept edges had to reach.
        before: Share scores of the whole graph.
        after: Share scores of the kept graph.
    """

    graph: CircuitGraph
    n_nodes_before: int
    n_edges_before: int
    node_frac: float
    edge_frac: float
    before: ShareScores
    after: ShareScores


def prune_graph(
    graph: CircuitGraph,
    *,
    node_frac: float = NODE_FRAC,
    edge_frac: float = EDGE_FRAC,
    unlisted_abs: PerNode | None = None,
) -> PrunedGraph:
    """The nodes and edges that carry the logits, with influence as columns of the node table.

    Logits weigh by their `prob` where all have one, else equally. `unlisted_abs` is the column of that name where
    it is not given and the node table has one.

    Raises:
        UserError: a cycle, no logit node, or a threshold that is no share.
    """
    start, kinds = logit_weights(graph), graph.nodes["kind"].to_numpy(dtype=object)
    if unlisted_abs is None and "unlisted_abs" in graph.nodes:
        unlisted_abs = graph.nodes["unlisted_abs"].to_numpy(dtype=np.float64)
    edges = graph.source.numpy(), graph.target.numpy(), graph.weight.numpy()
    given = {"start": start, "unlisted_abs": unlisted_abs, "names": graph.ids}
    found = prune(*edges, kinds=kinds, node_frac=node_frac, edge_frac=edge_frac, **given)
    columns = {"influence": found.influence.node, "covered_frac": covered_frac_at_rank(found.influence.node)}
    whole = graph.with_columns(**columns)
    kept = whole.with_edges(torch.from_numpy(found.edges)).with_nodes(torch.from_numpy(found.nodes))
    before = share_scores(*edges, kinds=kinds, found=found.influence)
    return PrunedGraph(kept, graph.n_nodes, graph.n_edges, node_frac, edge_frac, before, _scores_of(kept))


def prune(
    source: Ends,
    target: Ends,
    weight: Weights,
    *,
    kinds: np.ndarray,
    start: PerNode,
    node_frac: float = NODE_FRAC,
    edge_frac: float = EDGE_FRAC,
    unlisted_abs: PerNode | None = None,
    names: Sequence[str] | None = None,
) -> Pruned:
    """Which nodes and edges carry the logits.

    Equal to the same steps on dense matrices (tests/circuits/pruning/test_prune.py).

    Args:
        source: Row of each edge's source.
        target: Row of each edge's target.
        weight: Signed weight of each edge.
        kinds: Kind of each node, of `circuit_graph.KINDS` (node).
        start: Weight of each logit node, 0 for all others.
        node_frac: Share of all influence that the kept nodes reach.
        edge_frac: Share of all edge scores among the kept nodes that the kept edges reach.
        unlisted_abs: As for `influence`.
        names: What to call the nodes in a refusal.

    Raises:
        UserError: a cycle, weights that are none, or a threshold that is no share.

    Status: exact for the weights given.
    """
    found = influence(source, target, weight, start=start, unlisted_abs=unlisted_abs, names=names)
    alive = covering_mask(found.node, node_frac) | np.isin(kinds, ALWAYS_KEPT)
    kept = _kept_edges(source, target, weight, alive, start=start, edge_frac=edge_frac)
    alive = without_hanging(source, kept, alive, kinds=kinds, found=found)
    kept &= alive[source] & alive[target]
    return Pruned(alive, kept, found)


def without_hanging(
    source: Ends, kept: Bool[np.ndarray, " edge"], alive: NodeMask, *, kinds: np.ndarray, found: Influence
) -> NodeMask:
    """The living nodes without those that no path of kept edges leads to or away from."""
    alive, has_output = alive.copy(), np.zeros(len(alive), bool)
    given = (found.grouped.offsets, found.grouped.members, source, kept, found.order)
    loops.drop_without_output(*given, ~np.isin(kinds, ALWAYS_KEPT), alive, has_output)
    loops.drop_without_input(*given, ~np.isin(kinds, SOURCES), alive)
    return alive


def logit_weights(graph: CircuitGraph) -> PerNode:
    """Weight of each node as a start of influence: `prob` of the logits where all have one, else 1 each.

    Raises:
        UserError: the graph has no logit node.
    """
    logits = graph.is_kind("logit").numpy()
    if not logits.any():
        raise UserError("the graph has no node of kind 'logit': influence is on logits, add them")
    probs = graph.nodes["prob"].to_numpy(dtype=np.float64)
    known = bool(np.isfinite(probs[logits]).all())
    return np.where(logits, probs if known else 1.0, 0.0)


def _kept_edges(
    source: Ends, target: Ends, weight: Weights, alive: NodeMask, *, start: PerNode, edge_frac: float
) -> Bool[np.ndarray, " edge"]:
    inside = np.flatnonzero(alive[source] & alive[target])
    ends, weights = (source[inside], target[inside]), weight[inside]
    scores = edge_scores(ends[1], weights, influence(*ends, weights, start=start))
    kept = np.zeros(len(source), bool)
    kept[inside[covering_mask(scores, edge_frac)]] = True
    return kept


def _scores_of(graph: CircuitGraph) -> ShareScores:
    edges = graph.source.numpy(), graph.target.numpy(), graph.weight.numpy()
    found = influence(*edges, start=logit_weights(graph))
    return share_scores(*edges, kinds=graph.nodes["kind"].to_numpy(dtype=object), found=found)
