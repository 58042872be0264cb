"""Edges grouped by target, and an order of the nodes in which every edge points one way.

A graph of N nodes and E edges is three arrays: `source` and `target` (rows of a node table) and `weight`.
Grouping is one counting sort and ordering one pass over the edges (Kahn 1962, "Topological sorting of large
networks", CACM 5(11)), both O(N + E), with no N x N matrix. A graph with a cycle has no such order and is
refused with the cycle's nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from workbench.circuits.pruning import loops
from workbench.errors import UserError
from workbench.kernels.latent_sum.cpu import counting_sort

Ends = Int[np.ndarray, " edge"]
SHOWN_OF_CYCLE = 6


@dataclass(frozen=True, eq=False)
class InEdges:
    """The edges of a graph grouped by target.

    Attributes:
        offsets: Where each node's incoming edges begin in `members`; the last is their number (node + 1).
        members: Edge numbers, those into one node beside each other, in the order given (edge).
    """

    offsets: Int[np.ndarray, " node_plus_one"]
    members: Int[np.ndarray, " edge"]


def in_edges(target: Ends, n_nodes: int) -> InEdges:
    """The edges grouped by target. Status: exact."""
    offsets, members = counting_sort(torch.from_numpy(np.ascontiguousarray(target)), n_nodes)
    return InEdges(offsets.numpy(), members.numpy())


def sinks_first(
    source: Ends, target: Ends, n_nodes: int, *, names: Sequence[str] | None = None
) -> Int[np.ndarray, " node"]:
    """The nodes in an order in which each comes after all nodes that it has edges to.

    Args:
        source: Row of each edge's source, in 0 .. n_nodes - 1.
        target: Row of each edge's target.
        n_nodes: Number of nodes.
        names: What to call the nodes in a refusal; by default their rows.

    Raises:
        UserError: the graph has a cycle.
    """
    return order_of(in_edges(target, n_nodes), source, target, names=names)


def order_of(
    grouped: InEdges, source: Ends, target: Ends, *, names: Sequence[str] | None = None
) -> Int[np.ndarray, " node"]:
    """`sinks_first` of edges that are grouped already."""
    n_nodes = len(grouped.offsets) - 1
    order = np.empty(n_nodes, np.int64)
    waiting = np.bincount(source, minlength=n_nodes)
    n_placed = loops.sinks_first(grouped.offsets, grouped.members, source, waiting, order)
    if n_placed < n_nodes:
        _refuse_cycle(a_cycle(source, target, waiting > 0), names)
    return order


def a_cycle(source: Ends, target: Ends, left: np.ndarray) -> list[int]:
    """The rows of one cycle among the nodes `left` over, each of which has an edge to another of them."""
    inside = left[source] & left[target]
    onward = dict(zip(source[inside].tolist(), target[inside].tolist(), strict=True))
    path, seen = [int(np.flatnonzero(left)[0])], dict[int, int]()
    while path[-1] not in seen:
        seen[path[-1]] = len(path) - 1
        path.append(onward[path[-1]])
    return path[seen[path[-1]] : -1]


def _refuse_cycle(rows: list[int], names: Sequence[str] | None) -> None:
    called = [str(row) if names is None else names[row] for row in rows]
    shown = " -> ".join(
        [*called[:SHOWN_OF_CYCLE], *(["..."] if len(called) > SHOWN_OF_CYCLE else []), called[0]]
    )
    raise UserError(
        f"the graph has a cycle of {len(rows)} nodes, {shown}: influence needs a graph without cycles, "
        "remove an edge of it"
    )
