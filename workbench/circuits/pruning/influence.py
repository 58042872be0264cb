"""How much of what reaches the logits passes through each node and each edge of a sparse graph.

With A[t, s] the weight of the edge s -> t, every node's input is normalised to shares and influence is what the
logits' weights p collect over paths of any length:

    N[t, s] = |A[t, s]| / sum_s' |A[t, s']|        B = N + N^2 + N^3 + ...        influence[s] = sum_t p[t] B[t, s]

On a graph without cycles the sum is finite and equals one pass from the logits down, every node after all its
targets: influence[s] = sum_t N[t, s] (p[t] + influence[t]). That takes O(N + E) time and memory; no N x N matrix
is made. The score of an edge is N[t, s] (p[t] + influence[t]).

Limits: shares are of absolute weights, so two inputs that cancel count in full; the weights are direct effects
in a model with frozen attention and norms. Source: Ameisen et al. 2025, "Circuit tracing", section on graph
pruning (transformer-circuits.pub).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from workbench.circuits.pruning import loops
from workbench.circuits.pruning.order import Ends, InEdges, in_edges, order_of
from workbench.errors import UserError

Weights = Float[np.ndarray, " edge"]
PerNode = Float[np.ndarray, " node"]
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Influence:
    """Influence of every node, and what it was computed from.

    Attributes:
        node: Influence of each node on the logits: shares of `start`, summed over all paths (node).
        start: Weight of each logit, summing to 1; 0 elsewhere (node).
        input_sums: Sum of the absolute weights into each node, unlisted input included (node).
        grouped: The edges grouped by target.
        order: The nodes, each after all its targets (node).
    """

    node: PerNode
    start: PerNode
    input_sums: PerNode
    grouped: InEdges
    order: np.ndarray

    @property
    def reaching(self) -> PerNode:
        """Influence and own weight of each node: what it passes on to its sources."""
        return self.node + self.start


def influence(
    source: Ends,
    target: Ends,
    weight: Weights,
    *,
    start: PerNode,
    unlisted_abs: PerNode | None = None,
    names: Sequence[str] | None = None,
) -> Influence:
    """Influence of every node on the logits.

    Equal to start^T (N + N^2 + ...) of the dense matrix (tests/circuits/pruning/test_influence.py).

    Args:
        source: Row of each edge's source.
        target: Row of each edge's target.
        weight: Signed weight of each edge.
        start: Weight of each logit node, 0 for all others; normalised to sum 1.
        unlisted_abs: Absolute input of each node that no edge lists (`StreamingTopK` left it out); it belongs
            to the node's input sum and goes nowhere.
        names: What to call the nodes in a refusal.

    Raises:
        UserError: a cycle, a weight that is not finite, or start weights or unlisted input that are none.

    Status: exact for the weights given.
    """
    check_weights(weight, start, names)
    if unlisted_abs is not None and not (np.isfinite(unlisted_abs).all() and (unlisted_abs >= 0).all()):
        raise UserError(
            "unlisted_abs holds numbers that are no sums of absolute weights: give each node one from 0"
        )
    grouped = in_edges(target, len(start))
    order = order_of(grouped, source, target, names=names)
    sums = np.zeros(len(start)) if unlisted_abs is None else unlisted_abs.astype(np.float64)
    loops.input_sums(target, weight, sums)
    first, found = start.astype(np.float64) / start.sum(dtype=np.float64), np.zeros(len(start))
    loops.influence(grouped.offsets, grouped.members, source, weight, order, sums, first, found)
    return Influence(found, first, sums, grouped, order)


def edge_scores(target: Ends, weight: Weights, found: Influence) -> Float[np.ndarray, " edge"]:
    """Share of the logits' weight that passes through each edge. Status: exact for the weights given."""
    scores = np.empty(len(target))
    loops.edge_scores(target, weight, found.input_sums, found.reaching, scores)
    return scores


def covering_mask(scores: Float[np.ndarray, " item"], covered_frac: float) -> Bool[np.ndarray, " item"]:
    """The fewest items with the largest scores whose sum is `covered_frac` of all.

    Equals of the last stay too. Both comparisons allow for rounding (a relative `ROUNDING`), because the nodes
    of a chain have equal scores and rounding must not choose among them.
    """
    if not 0 < covered_frac <= 1:
        raise UserError(f"covered_frac {covered_frac} is not a share: give a number above 0, at most 1")
    falling = np.sort(scores)[::-1]
    reached = np.cumsum(falling)
    if not len(scores) or reached[-1] <= 0:
        return np.zeros(len(scores), bool)
    last = int(np.searchsorted(reached, covered_frac * reached[-1] * (1 - ROUNDING)))
    return scores >= max(falling[last] * (1 - ROUNDING), np.finfo(np.float64).tiny)


def covered_frac_at_rank(scores: PerNode) -> PerNode:
    """Share of all influence held by a node and those before it when sorted by influence, largest first.

    Nodes up to 0.8 are those that node pruning at 0.8 keeps (the last one crosses it).
    """
    order = np.argsort(-scores, kind="stable")
    total = max(float(scores.sum()), np.finfo(np.float64).tiny)
    shares = np.empty(len(scores))
    shares[order] = np.cumsum(scores[order]) / total
    return shares


def check_weights(weight: Weights, start: PerNode, names: Sequence[str] | None) -> None:
    """Refuse weights that are not finite and start weights that are none."""
    if not np.isfinite(weight).all():
        edge = int(np.flatnonzero(~np.isfinite(weight))[0])
        raise UserError(f"the weight of edge {edge} is {weight[edge]}: give finite numbers")
    if not (np.isfinite(start).all() and (start >= 0).all() and start.sum() > 0):
        bad = np.flatnonzero(~(start >= 0))
        node = "all nodes" if not len(bad) else (str(bad[0]) if names is None else names[int(bad[0])])
        raise UserError(f"start of {node} is no weight: give each logit a number from 0, not all of them 0")
