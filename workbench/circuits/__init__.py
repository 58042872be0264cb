"""Circuits: which heads, MLPs and dictionary features carry a task, and the interventions that prove it.

trace(run, task="ioi")     # first-order and exact effects, edges, graph, verification
ablate(run, task="ioi")    # faithfulness and completeness against random sets, on held-out prompts
"""

from workbench.circuits.ablating import AblationResult, ablate
from workbench.circuits.exchange.validate import validate_graph
from workbench.circuits.nodes import Node, component_nodes
from workbench.circuits.tracing import TraceResult, trace

__all__ = [
    "AblationResult",
    "Node",
    "TraceResult",
    "ablate",
    "component_nodes",
    "trace",
    "validate_graph",
]
