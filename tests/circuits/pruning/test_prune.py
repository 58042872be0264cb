"""Pruning against the same steps on dense matrices, and the two share scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.circuits.pruning import dense
from workbench.circuits.circuit_graph import CircuitGraph, node_table
from workbench.circuits.pruning import loops
from workbench.circuits.pruning.influence import influence
from workbench.circuits.pruning.prune import prune, prune_graph
from workbench.circuits.pruning.shares import share_scores
from workbench.errors import UserError

graphs = st.builds(
    dense.random_graph, st.integers(0, 2**32 - 1), n_nodes=st.integers(2, 40), density=st.floats(0.0, 1.0)
)


def circuit_graph(graph: dense.Graph) -> CircuitGraph:
    ids = [f"n{i}" for i in range(len(graph.kinds))]
    prob = np.where(graph.kinds == "logit", graph.start, np.nan)
    return CircuitGraph(
        nodes=node_table({"node_id": ids, "kind": graph.kinds, "prob": prob}),
        source=torch.from_numpy(graph.source),
        target=torch.from_numpy(graph.target),
        weight=torch.from_numpy(graph.weight),
    )


@settings(max_examples=200, deadline=None)
@given(graph=graphs, node_frac=st.floats(0.1, 1.0), edge_frac=st.floats(0.1, 1.0))
def test_the_same_nodes_and_edges_as_with_dense_matrices(
    graph: dense.Graph, node_frac: float, edge_frac: float
) -> None:
    nodes, edges = dense.prune(graph, node_frac=node_frac, edge_frac=edge_frac)
    found = prune(
        *graph.edges, kinds=graph.kinds, start=graph.start, node_frac=node_frac, edge_frac=edge_frac
    )
    np.testing.assert_array_equal(found.nodes, nodes)
    np.testing.assert_array_equal(found.edges, edges[graph.target, graph.source])


def test_the_comparison_sees_a_pruning_that_forgets_hanging_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "drop_without_input", lambda *_: None)
    differs = 0
    for seed in range(20):
        graph = dense.random_graph(seed, n_nodes=30, density=0.15)
        nodes, _ = dense.prune(graph, node_frac=0.6, edge_frac=0.6)
        found = prune(*graph.edges, kinds=graph.kinds, start=graph.start, node_frac=0.6, edge_frac=0.6)
        differs += bool((found.nodes != nodes).any())
    assert differs > 0


@settings(max_examples=60, deadline=None)
@given(graph=graphs)
def test_nothing_hangs_and_tokens_and_logits_stay(graph: dense.Graph) -> None:
    found = prune(*graph.edges, kinds=graph.kinds, start=graph.start, node_frac=0.7, edge_frac=0.7)
    ends = set(graph.source[found.edges].tolist()), set(graph.target[found.edges].tolist())
    for row in np.flatnonzero(found.nodes):
        kind = graph.kinds[row]
        assert kind in ("token", "logit") or row in ends[0], "an edge out"
        assert kind != "feature" or row in ends[1], "an edge in"
    assert found.nodes[np.isin(graph.kinds, ["token", "logit"])].all()
    assert (found.nodes[graph.source[found.edges]] & found.nodes[graph.target[found.edges]]).all()


@settings(max_examples=60, deadline=None)
@given(graph=graphs)
def test_share_scores_are_those_of_the_dense_matrix(graph: dense.Graph) -> None:
    found = influence(*graph.edges, start=graph.start)
    scores = share_scores(*graph.edges, kinds=graph.kinds, found=found)
    node = dense.influence(graph.matrix(), graph.start)
    reaching = node + graph.start / graph.start.sum()
    errors = dense.shares(graph.matrix())[:, graph.kinds == "error"].sum(1)
    assert scores.explained_input_frac == pytest.approx(
        ((1 - errors) * reaching).sum() / reaching.sum(), abs=1e-9
    )
    tokens, lost = node[graph.kinds == "token"].sum(), node[graph.kinds == "error"].sum()
    if tokens + lost > 1e-9:
        assert scores.replacement_score_frac == pytest.approx(tokens / (tokens + lost), abs=1e-9)
    elif tokens + lost == 0:
        assert np.isnan(scores.replacement_score_frac)


def test_a_pruned_graph_carries_influence_and_both_scores() -> None:
    graph = dense.random_graph(3, n_nodes=40, density=0.4)
    result = prune_graph(circuit_graph(graph), node_frac=0.6, edge_frac=0.8)
    nodes, edges = dense.prune(graph, node_frac=0.6, edge_frac=0.8)
    kept = result.graph
    assert kept.ids == [f"n{i}" for i in np.flatnonzero(nodes)]
    assert kept.n_edges == int(edges.sum()) < result.n_edges_before == len(graph.source)
    assert result.n_nodes_before == 40 > kept.n_nodes
    expected = dense.influence(graph.matrix(), graph.start)[nodes]
    np.testing.assert_allclose(kept.nodes["influence"], expected, rtol=1e-9)
    inside = kept.nodes[kept.nodes["kind"] == "feature"]
    order = inside.sort_values("influence", ascending=False)["covered_frac"]
    assert order.is_monotonic_increasing
    assert 0 < result.before.explained_input_frac < result.after.explained_input_frac <= 1
    assert list(result.after.as_dict()) == ["replacement_score_frac", "explained_input_frac"]


def test_unlisted_input_is_taken_from_its_column() -> None:
    graph = circuit_graph(dense.random_graph(3, n_nodes=40, density=0.4))
    unlisted = np.linspace(0, 5, graph.n_nodes)
    given, column = (
        prune_graph(graph, unlisted_abs=unlisted),
        prune_graph(graph.with_columns(unlisted_abs=unlisted)),
    )
    assert column.before == given.before
    assert column.before.explained_input_frac < prune_graph(graph).before.explained_input_frac
    assert column.graph.ids == given.graph.ids


def test_a_long_chain_hanging_at_one_end_goes_whole() -> None:
    """5,000 features in a line without a token behind them: each hangs once its source has gone."""
    n = 5_000
    source, target = np.arange(n + 1), np.arange(1, n + 2)
    kinds = np.array(["feature"] * (n + 1) + ["logit"], dtype=object)
    found = prune(
        source, target, np.ones(n + 1), kinds=kinds, start=np.eye(n + 2)[-1], node_frac=1.0, edge_frac=1.0
    )
    assert found.nodes.tolist() == [False] * (n + 1) + [True]
    kinds[0] = "token"
    found = prune(
        source, target, np.ones(n + 1), kinds=kinds, start=np.eye(n + 2)[-1], node_frac=1.0, edge_frac=1.0
    )
    assert found.nodes.all()
    assert found.edges.all()


def test_a_graph_without_logits_is_refused() -> None:
    graph = circuit_graph(dense.random_graph(0, n_nodes=10, density=0.5))
    with pytest.raises(UserError, match="no node of kind 'logit': influence is on logits"):
        prune_graph(graph.with_nodes(~graph.is_kind("logit")))


def test_a_cycle_is_refused_by_name() -> None:
    nodes = node_table({"node_id": ["f0.1", "f0.2", "logit"], "kind": ["feature", "feature", "logit"]})
    ends = {"source": torch.tensor([0, 1, 1]), "target": torch.tensor([1, 0, 2])}
    with pytest.raises(UserError, match=r"cycle of 2 nodes, f0\.\d -> f0\.\d -> f0\.\d"):
        prune_graph(CircuitGraph(nodes=nodes, **ends, weight=torch.ones(3)))
