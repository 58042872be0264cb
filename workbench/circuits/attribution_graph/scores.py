"""Influence on the logits, pruning and share scores of a trace, by `workbench.circuits.pruning`.

`replacement_score_frac` and `explained_input_frac` say how much of a graph is left to error nodes. They are no
faithfulness and no completeness in the causal sense: nothing is intervened on. What the trace did not list (thinned
edges, features without rows) counts as input that is not explained.
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.circuits.attribution_graph.graph import to_graph, unlisted
from workbench.circuits.attribution_graph.trace import AttributionTrace
from workbench.circuits.attribution_graph.verify import Verification
from workbench.circuits.pruning.prune import EDGE_FRAC, NODE_FRAC, PrunedGraph, prune_graph


@dataclass(frozen=True)
class TraceScores:
    """How much of a trace is explained by features and tokens.

    Attributes:
        replacement_score_frac: Share of influence that reaches the logits from tokens rather than errors.
        explained_input_frac: Share of input, weighted by influence, that comes from other than error nodes.
        unlisted_input_frac: Share of all absolute input that the graph does not list.
    """

    replacement_score_frac: float
    explained_input_frac: float
    unlisted_input_frac: float


def prune_trace(
    found: AttributionTrace,
    verification: Verification | None = None,
    *,
    node_frac: float = NODE_FRAC,
    edge_frac: float = EDGE_FRAC,
) -> PrunedGraph:
    """The nodes and edges that carry the logits, with node influence, and the scores before and after.

    Raises:
        UserError: a threshold that is no share.

    Status: exact for the weights given.
    """
    graph = to_graph(found, verification)
    given = graph.nodes["unlisted_abs"].to_numpy()
    return prune_graph(graph, node_frac=node_frac, edge_frac=edge_frac, unlisted_abs=given)


def trace_scores(found: AttributionTrace, pruned: PrunedGraph) -> TraceScores:
    """Scores of the whole trace. Status: exact for the weights given; correlational as a statement on the model."""
    left_out = float(unlisted(found).sum())
    every = float(found.effects.abs_total.double().sum())
    before = pruned.before
    return TraceScores(
        before.replacement_score_frac, before.explained_input_frac, left_out / every if every else 0.0
    )
