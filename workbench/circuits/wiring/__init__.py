"""Edges between components: which there are, what the model does with any set of them, and what each is worth.

wiring = Wiring(open_anatomy(model))
executor = EdgeExecutor(wiring.anatomy, wiring)
executor.metrics(batch, replacement_run(wiring.anatomy, batch.counterfactual), masks)     # m under each mask

eap, two_point, eap_ig_inputs, eap_ig_activations     first-order scores of all edges, in a few passes
exact_edges, two_stage                                effects by intervention, of all edges or the promising ones
acdc, learn_mask                                      circuits by elimination and by training
top_n, threshold, greedy, connected                   from scores to circuits
"""

from workbench.circuits.wiring.acdc import Acdc, acdc
from workbench.circuits.wiring.catalogue import Edge, Wiring
from workbench.circuits.wiring.eap import eap, two_point
from workbench.circuits.wiring.eap_ig import eap_ig_activations, eap_ig_inputs
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.circuits.wiring.exact import exact_edges
from workbench.circuits.wiring.executor import EdgeExecutor, Session
from workbench.circuits.wiring.masks import LearnedMask, learn_mask
from workbench.circuits.wiring.replacement import Replacement, replacement_run
from workbench.circuits.wiring.selection import connected, greedy, threshold, top_n
from workbench.circuits.wiring.two_stage import two_stage

__all__ = [
    "Acdc",
    "Edge",
    "EdgeExecutor",
    "EdgeScores",
    "LearnedMask",
    "Replacement",
    "Session",
    "Wiring",
    "acdc",
    "connected",
    "eap",
    "eap_ig_activations",
    "eap_ig_inputs",
    "exact_edges",
    "greedy",
    "learn_mask",
    "replacement_run",
    "threshold",
    "top_n",
    "two_point",
    "two_stage",
]
