"""Planted features with known wiring and oracle dictionaries: what is found against what is true."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from workbench.anatomy import open_anatomy
from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.feature_circuits import FeatureCircuit, FeatureSites, find_circuit, open_sites, paired
from workbench.testbeds import make_testbed
from workbench.testbeds.truth import TestBed

Feature = tuple[str, int]


@pytest.fixture(scope="module", params=["wired.moved", "wired.tower"])
def case(request: pytest.FixtureRequest) -> tuple[TestBed, FeatureSites, FeatureCircuit]:
    """A bed and its circuit without thresholds."""
    bed = make_testbed(request.param)
    anatomy = open_anatomy(bed.model)
    sites = open_sites(anatomy, [d for d in bed.dictionaries.values() if not d.is_transcoder])
    prompts = paired(anatomy, bed.batch(64, 0))
    return bed, sites, find_circuit(sites, [prompts], node_threshold=0.0, n_checked=40)


def node_scores(sites: FeatureSites, graph: CircuitGraph) -> dict[Feature, float]:
    """|mean effect| of every feature of the dictionaries, 0 for those that were never active."""
    rows = graph.nodes[graph.nodes["kind"] == "feature"]
    found = {
        (hook, f): abs(e) for hook, f, e in zip(rows["site"], rows["feature"], rows["effect"], strict=True)
    }
    return {
        (s.site.hook, f): found.get((s.site.hook, f), 0.0) for s in sites for f in range(s.dictionary.d_sae)
    }


def edge_scores(sites: FeatureSites, graph: CircuitGraph) -> dict[tuple[Feature, Feature], float]:
    """|mean weight| of every pair of features of two sites, in the order of computation."""
    names = list(zip(graph.nodes["site"], graph.nodes["feature"], strict=True))
    ends = zip(graph.source.tolist(), graph.target.tolist(), graph.weight.abs().tolist(), strict=True)
    found = {(names[s], names[t]): weight for s, t, weight in ends}
    features = [[(s.site.hook, f) for f in range(s.dictionary.d_sae)] for s in sites]
    pairs = [(a, b) for first, second in combinations(features, 2) for a in first for b in second]
    return {pair: found.get(pair, 0.0) for pair in pairs}


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a true one is above a false one."""
    ranks = pd.Series(scores).rank().to_numpy()
    n, m = int(truth.sum()), int((~truth).sum())
    return float((ranks[truth].sum() - n * (n + 1) / 2) / (n * m))


def test_the_nodes_are_found(case: tuple[TestBed, FeatureSites, FeatureCircuit]) -> None:
    """Recall at the true number; as many nodes at random recall their share only."""
    bed, sites, found = case
    scores = node_scores(sites, found.graph)
    truth = bed.feature_nodes or frozenset()
    best = sorted(scores, key=lambda feature: -scores[feature])[: len(truth)]
    assert len(truth & set(best)) / len(truth) >= 0.9
    drawn = np.random.default_rng(0).permutation(len(scores))[: len(truth)]
    assert len(truth & {list(scores)[i] for i in drawn}) / len(truth) < 0.85


def test_the_edges_are_found(case: tuple[TestBed, FeatureSites, FeatureCircuit]) -> None:
    """AUROC over all pairs of features; with shuffled truth it is chance."""
    bed, sites, found = case
    scores = edge_scores(sites, found.graph)
    truth = np.array([pair in (bed.feature_edges or ()) for pair in scores])
    assert truth.sum() == len(bed.feature_edges or ())
    values = np.array(list(scores.values()))
    assert auroc(values, truth) >= 0.95
    assert abs(auroc(values, np.random.default_rng(0).permutation(truth)) - 0.5) < 0.15


def test_predicted_effects_follow_intervened_ones(case: tuple[TestBed, FeatureSites, FeatureCircuit]) -> None:
    """Over the largest edges; the MLPs bend, so they need not be equal."""
    checks = case[2].checks
    predicted, intervened = (t.mean(1).numpy() for t in (checks.predicted, checks.intervened))
    assert np.corrcoef(predicted, intervened)[0, 1] > 0.7
    assert max(case[2].gaps.values()) < 0.05
