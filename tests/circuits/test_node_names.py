"""What names say, and graphs made of named edges."""

from __future__ import annotations

import pytest
import torch

from workbench.circuits.node_names import graph_of_edges, node_record
from workbench.circuits.nodes import Node
from workbench.errors import UserError


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("embed", {"kind": "embed", "site": ""}),
        ("embed@5", {"kind": "token", "site": "", "pos": 5}),
        ("a1.h3", {"kind": "head", "site": "", "layer": 1, "head": 3}),
        ("a1.h3.q@0", {"kind": "head", "site": "q", "layer": 1, "head": 3, "pos": 0}),
        ("m12", {"kind": "mlp", "site": "", "layer": 12}),
        ("f2.103@7", {"kind": "feature", "site": "", "layer": 2, "feature": 103, "pos": 7}),
        ("e2", {"kind": "error", "site": "", "layer": 2}),
        ("logit.464", {"kind": "logit", "site": "", "token_id": 464}),
        ("logit", {"kind": "logit", "site": ""}),
    ],
)
def test_a_name_says_its_row(name: str, said: dict[str, object]) -> None:
    assert node_record(name) == {"node_id": name, **said}


@pytest.mark.parametrize("node", [Node("embed"), Node("head", 2, 7), Node("mlp", 1), Node("error", 3),
                                  Node("feature", 1, feature=8), Node("logit")])  # fmt: skip
def test_the_names_of_nodes_are_read_back(node: Node) -> None:
    said = node_record(node.node_id)
    found = Node(said["kind"], said.get("layer", -1), said.get("head", -1), said.get("feature", -1))
    assert found == node


@pytest.mark.parametrize("name", ["", "a1.h", "a1.h3.z", "f2", "input", "m1@", "logits", "m1 ", "e-1"])
def test_a_name_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"does not say what it names: write embed, a1.h3"):
        node_record(name)


def test_a_graph_of_named_edges_is_in_the_order_of_computation() -> None:
    edges = [("m0", "logit"), ("a0.h1", "m0"), ("embed", "a1.h0.k"), ("a0.h1", "a1.h0.q")]
    graph = graph_of_edges(
        edges, torch.arange(4.0), unit="nats", kept=torch.tensor([True, False, True, True])
    )
    assert graph.ids == ["embed", "a0.h1", "m0", "a1.h0.k", "a1.h0.q", "logit"]
    assert list(graph.edge_table()[["source", "target"]].itertuples(index=False, name=None)) == edges
    assert graph.nodes["site"].tolist() == ["", "", "", "k", "q", ""]
    assert graph_of_edges([], torch.zeros(0)).n_nodes == 0
