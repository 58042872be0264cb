"""The validator of exchange graphs: each defect it exists for is put in and must be found."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from workbench.circuits.graph import cantor_pair, validate_graph
from workbench.circuits.nodes import Node
from workbench.errors import UserError


def node(node_id: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "node_id": node_id, "feature": 1, "layer": "0", "ctx_idx": 2, "feature_type": "cross layer transcoder",
        "jsNodeId": f"{node_id}-2", "clerp": "",
    }  # fmt: skip
    return {**plain, **changes}


@pytest.fixture
def graph() -> dict[str, Any]:
    return {
        "metadata": {"slug": "s", "scan": "m", "prompt": "a b", "prompt_tokens": ["a", " b"]},
        "qParams": {"pinnedIds": ["f0.1"], "supernodes": [["both", "f0.1", "e0"]], "linkType": "both"},
        "nodes": [node("f0.1"), node("e0", feature=-1), node("logit", feature=None)],
        "links": [{"source": "f0.1", "target": "logit", "weight": 0.5}],
    }


def test_a_sound_graph_passes(graph: dict[str, Any]) -> None:
    validate_graph(graph)


def test_a_feature_and_an_error_with_one_id_are_found(graph: dict[str, Any]) -> None:
    """circuit-tracer's ids: feature 3 of layer 0 and the error of layer 3 at one position are both `0_3_2`."""
    graph["nodes"] += [node("0_3_2"), node("0_3_2", feature_type="mlp reconstruction error")]
    with pytest.raises(UserError, match="node_id '0_3_2' occurs 2 times: an id names one node"):
        validate_graph(graph)


def test_our_own_ids_cannot_collide() -> None:
    nodes = [
        *(Node(kind, layer) for kind in ("mlp", "error") for layer in range(4)),
        *(Node("head", layer, head) for layer in range(4) for head in range(12)),
        *(Node("feature", layer, feature=f) for layer in range(4) for f in range(50)),
        Node("embed"),
        Node("logit"),
    ]
    assert len({n.node_id for n in nodes}) == len(nodes)


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_dangling_link_is_found(graph: dict[str, Any], end: str) -> None:
    graph["links"][0][end] = "f9.9"
    with pytest.raises(UserError, match=f"its {end} is no node of the graph"):
        validate_graph(graph)


@pytest.mark.parametrize("weight", [float("nan"), None, "0.5", True])
def test_a_weight_that_is_no_number_is_found(graph: dict[str, Any], weight: object) -> None:
    graph["links"][0]["weight"] = weight
    with pytest.raises(UserError, match="give a number"):
        validate_graph(graph)


@pytest.mark.parametrize(
    "key", ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"]
)
def test_a_node_without_a_required_key_is_found(graph: dict[str, Any], key: str) -> None:
    broken = copy.deepcopy(graph)
    del broken["nodes"][0][key]
    with pytest.raises(UserError, match=f"lacks {key}: the exchange schema requires"):
        validate_graph(broken)


@pytest.mark.parametrize("field", ["pinnedIds", "supernodes"])
def test_a_saved_state_of_absent_nodes_is_found(graph: dict[str, Any], field: str) -> None:
    graph["qParams"][field] = ["gone"] if field == "pinnedIds" else [["label", "gone"]]
    with pytest.raises(UserError, match="qParams names node 'gone'"):
        validate_graph(graph)


def test_cantor_numbers_are_unique() -> None:
    """Hand-worked: (2, 3) -> 5 * 6 / 2 + 3 = 18."""
    assert cantor_pair(2, 3) == 18
    assert len({cantor_pair(x, y) for x in range(40) for y in range(40)}) == 1600
