"""Influence against the inverse of the dense matrix, against fractions worked by hand, and on cycles."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.circuits.pruning import dense
from workbench.circuits.pruning.influence import covered_frac_at_rank, covering_mask, edge_scores, influence
from workbench.errors import UserError

graphs = st.builds(
    dense.random_graph,
    st.integers(0, 2**32 - 1),
    n_nodes=st.integers(2, 40),
    density=st.floats(0.0, 1.0),
    dtype=st.sampled_from([np.float64, np.float32]),
)


@settings(max_examples=150, deadline=None)
@given(graph=graphs)
def test_influence_is_that_of_the_dense_inverse(graph: dense.Graph) -> None:
    found = influence(*graph.edges, start=graph.start)
    np.testing.assert_allclose(
        found.node, dense.influence(graph.matrix(), graph.start), rtol=1e-9, atol=1e-12
    )


@settings(max_examples=100, deadline=None)
@given(graph=graphs)
def test_edge_scores_are_those_of_the_dense_matrix(graph: dense.Graph) -> None:
    found = influence(*graph.edges, start=graph.start)
    matrix = graph.matrix()
    reaching = dense.influence(matrix, graph.start) + graph.start / graph.start.sum()
    expected = (dense.shares(matrix) * reaching[:, None])[graph.target, graph.source]
    scores = edge_scores(graph.target, graph.weight, found)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(graph=graphs, seed=st.integers(0, 2**16))
def test_the_order_of_the_edges_does_not_matter(graph: dense.Graph, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(len(graph.source))
    plain = influence(*graph.edges, start=graph.start).node
    moved = influence(*(part[shuffled] for part in graph.edges), start=graph.start).node
    np.testing.assert_allclose(moved, plain, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(graph=graphs)
def test_what_leaves_the_logits_ends_in_nodes_without_input(graph: dense.Graph) -> None:
    """Conservation: every unit of weight ends at a root, a logit without input keeping its own."""
    found = influence(*graph.edges, start=graph.start)
    roots = found.input_sums == 0
    assert found.reaching[roots].sum() == pytest.approx(1.0, abs=1e-9)


def test_fractions_worked_by_hand() -> None:
    """Token 0 -> feature 2 (3), error 1 -> feature 2 (-1), feature 2 -> logit 3 (2), error 1 -> logit 3 (2)."""
    edges = np.array([0, 1, 2, 1]), np.array([2, 2, 3, 3]), np.array([3.0, -1.0, 2.0, 2.0])
    found = influence(*edges, start=np.array([0.0, 0, 0, 5]))
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    expected = [half * 3 * quarter, half + half * quarter, half, 0]
    assert found.node.tolist() == [float(x) for x in expected]
    scores = edge_scores(edges[1], edges[2], found)
    assert scores.tolist() == [0.375, 0.125, 0.5, 0.5]


def test_unlisted_input_takes_its_share_and_goes_nowhere() -> None:
    edges = np.array([0]), np.array([1]), np.array([1.0])
    found = influence(*edges, start=np.array([0.0, 1.0]), unlisted_abs=np.array([0.0, 3.0]))
    assert found.node.tolist() == [0.25, 0.0]


@pytest.mark.parametrize("unlisted", [np.nan, -1.0])
def test_unlisted_input_that_is_none_is_refused(unlisted: float) -> None:
    with pytest.raises(UserError, match="unlisted_abs holds numbers that are no sums"):
        influence(
            np.array([0]), np.array([1]), np.ones(1), start=np.eye(2)[1], unlisted_abs=np.array([0, unlisted])
        )


def test_a_cycle_is_refused_with_its_nodes() -> None:
    edges = np.array([0, 1, 2, 3, 4]), np.array([1, 2, 3, 1, 0]), np.ones(5)
    names = ["m0", "f1.1", "f1.2", "f1.3", "embed", "logit"]
    with pytest.raises(
        UserError, match=r"a cycle of 3 nodes, f1\.\d -> f1\.\d -> f1\.\d -> f1\.\d: influence needs"
    ):
        influence(*edges, start=np.eye(6)[5], names=names)


def test_a_long_cycle_is_named_in_part() -> None:
    n = 50
    ring = np.arange(n), (np.arange(n) + 1) % n, np.ones(n)
    with pytest.raises(UserError, match=r"a cycle of 50 nodes, (\d+ -> ){6}\.\.\. -> \d+: influence needs"):
        influence(*ring, start=np.ones(n))


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused(weight: float) -> None:
    with pytest.raises(UserError, match=f"the weight of edge 1 is {weight}: give finite numbers"):
        influence(np.array([0, 1]), np.array([1, 2]), np.array([1.0, weight]), start=np.eye(3)[2])


@pytest.mark.parametrize(
    ("start", "who"), [([0.0, 0.0], "all nodes"), ([0.5, -0.1], "m0"), ([1.0, np.nan], "m0")]
)
def test_start_weights_that_are_none_are_refused(start: list[float], who: str) -> None:
    with pytest.raises(UserError, match=f"start of {who} is no weight"):
        influence(np.array([0]), np.array([1]), np.ones(1), start=np.array(start), names=["embed", "m0"])


@settings(max_examples=100)
@given(st.lists(st.integers(0, 5), max_size=30), st.floats(0.01, 1.0))
def test_the_mask_is_the_smallest_that_covers(sizes: list[int], frac: float) -> None:
    """Equals of the last stay together; without the smallest kept ones the share is not reached."""
    scores = np.array(sizes, dtype=np.float64)
    kept = covering_mask(scores, frac)
    assert scores[kept].sum() >= frac * scores.sum() * (1 - 1e-9)
    if kept.any():
        assert scores[scores > scores[kept].min()].sum() < frac * scores.sum() or scores.sum() == 0
        assert (kept == (scores >= scores[kept].min())).all()
        assert scores[kept].min() > 0


@pytest.mark.parametrize("frac", [0.0, 1.5, -1.0])
def test_a_threshold_that_is_no_share_is_refused(frac: float) -> None:
    with pytest.raises(UserError, match=f"covered_frac {frac} is not a share"):
        covering_mask(np.ones(3), frac)


def test_ranks_are_cumulative_shares() -> None:
    assert covered_frac_at_rank(np.array([1.0, 0.0, 3.0])).tolist() == [1.0, 1.0, 0.75]
    assert covered_frac_at_rank(np.zeros(2)).tolist() == [0.0, 0.0]
