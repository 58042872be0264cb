"""Sparse feature circuits: features and errors of dictionaries at any sites, their effects, edges and tests.

sites = open_sites(open_anatomy(model), dictionaries)
found = find_circuit(sites, [paired(sites.anatomy, batch)], node_threshold=0.1, edge_threshold=0.01)
judged = faithfulness([ablate_sets(sites, prompts, make_replacement(sites, reference), node_sets(sites, [nodes]))])
run_shift(sites, texts, depth, marked)         a classifier repaired, beside every cheaper way
"""

from workbench.circuits.feature_circuits.ablate import Ablated, Faithfulness, ablate_sets, faithfulness
from workbench.circuits.feature_circuits.aggregate import aggregate, refs_of
from workbench.circuits.feature_circuits.circuit import FeatureCircuit, find_circuit
from workbench.circuits.feature_circuits.clusters import (
    cluster,
    cluster_circuits,
    fingerprints,
    predicted_tokens,
)
from workbench.circuits.feature_circuits.codes import observe
from workbench.circuits.feature_circuits.edges import find_edges
from workbench.circuits.feature_circuits.effects import completeness_gap, node_effects
from workbench.circuits.feature_circuits.exact import check_edges, patch_nodes
from workbench.circuits.feature_circuits.kept import NodeRef, keep_nodes
from workbench.circuits.feature_circuits.metrics import paired, unpaired
from workbench.circuits.feature_circuits.node_sets import node_sets
from workbench.circuits.feature_circuits.probe import Labelled
from workbench.circuits.feature_circuits.replacement import make_replacement
from workbench.circuits.feature_circuits.shift import list_features
from workbench.circuits.feature_circuits.shift_baselines import ShiftTexts, run_shift, train_original
from workbench.circuits.feature_circuits.sites import FeatureSites, open_sites

__all__ = [
    "Ablated",
    "Faithfulness",
    "FeatureCircuit",
    "FeatureSites",
    "Labelled",
    "NodeRef",
    "ShiftTexts",
    "ablate_sets",
    "aggregate",
    "check_edges",
    "cluster",
    "cluster_circuits",
    "completeness_gap",
    "faithfulness",
    "find_circuit",
    "find_edges",
    "fingerprints",
    "keep_nodes",
    "list_features",
    "make_replacement",
    "node_effects",
    "node_sets",
    "observe",
    "open_sites",
    "paired",
    "patch_nodes",
    "predicted_tokens",
    "refs_of",
    "run_shift",
    "train_original",
    "unpaired",
]
