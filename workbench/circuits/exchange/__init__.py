"""Exchange formats: graphs of circuit-tracer and Neuronpedia, circuits of EAP-IG and MIB. JSON only, no pickles.

read_graph(path), write_graph(graph, path, n_layers=...)               # attribution graphs, validated both ways
read_circuit(path, positive_helps=...), write_circuit(graph, path)     # edge circuits of components
"""

from workbench.circuits.exchange.mib import read_circuit, write_circuit
from workbench.circuits.exchange.mib_names import Shape
from workbench.circuits.exchange.reading import read_graph
from workbench.circuits.exchange.validate import validate_graph
from workbench.circuits.exchange.writing import graph_record, index_graphs, write_graph

__all__ = [
    "Shape",
    "graph_record",
    "index_graphs",
    "read_circuit",
    "read_graph",
    "validate_graph",
    "write_circuit",
    "write_graph",
]
