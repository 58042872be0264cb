"""The validator of exchange graphs: each defect it exists for is put in and must be found."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from workbench.circuits.exchange.names import cantor_pair, cantor_unpair
from workbench.circuits.exchange.validate import validate_graph
from workbench.circuits.nodes import Node
from workbench.errors import UserError


def node(node_id: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "node_id": node_id, "feature": 1, "layer": "0", "ctx_idx": 1, "feature_type": "cross layer transcoder",
        "jsNodeId": f"{node_id}-1", "clerp": "",
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


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), None, "0.5", True])
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


def broken(graph: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The graph with one value replaced; the path is keys and numbers, as in `nodes.0.layer`."""
    part: Any = graph
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in above:
        part = part[key]
    part[last] = value
    return graph


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nodes.0.node_id", "<img src=x>", "node_id '<img src=x>' is not a name"),
        ("nodes.0.node_id", ["f0.1"], "is not a name"),
        ("nodes.0.jsNodeId", 'a"b', "jsNodeId of node 'f0.1' 'a\"b' is not a name"),
        ("nodes.0.layer", "L3", "layer of node 'f0.1' is 'L3': give 'E' for an embedding or a number from 0"),
        ("nodes.0.layer", -1, "layer of node 'f0.1' is -1"),
        ("nodes.0.layer", 1.5, "layer of node 'f0.1' is 1.5"),
        ("nodes.0.layer", True, "layer of node 'f0.1' is True"),
        ("nodes.0.layer", "7", "layer 7 of node 'f0.1' is not in a model of 2 layers"),
        ("nodes.0.feature_type", "featur", "feature_type of node 'f0.1' is 'featur'; known"),
        ("nodes.0.feature_type", "logits", "feature_type of node 'f0.1' is 'logits'; the nearest: logit"),
        ("nodes.0.feature_type", {}, "feature_type of node 'f0.1' is {}"),
        ("nodes.0.feature", "1", "feature of node 'f0.1' is '1': give a whole number or null"),
        ("nodes.0.feature", True, "feature of node 'f0.1' is True"),
        ("nodes.0.ctx_idx", 2, "ctx_idx of node 'f0.1' is 2: the prompt has positions 0 to 1"),
        ("nodes.0.ctx_idx", -1, "ctx_idx of node 'f0.1' is -1"),
        ("nodes.0.clerp", None, "clerp of node 'f0.1' is None: give a string"),
        (
            "nodes.0.activation",
            float("inf"),
            "activation of node 'f0.1' is inf: give a finite number or null",
        ),
        ("nodes.0.influence", "0.5", "influence of node 'f0.1' is '0.5'"),
        ("nodes.0", "f0.1", "node 'f0.1' is 'f0.1', not an object"),
        ("nodes", {}, "nodes is {}: give a list"),
        ("links", None, "links is None: give a list"),
        ("links.0", [], r"a link is \[\], not an object"),
        ("links.0.source", ["f0.1"], "its source is no node of the graph"),
        ("links.0.intervened", "x", "intervened of link 'f0.1' -> 'logit' is 'x': give a number or null"),
        ("metadata.slug", "../../secret", "metadata.slug '../../secret' is no file name"),
        ("metadata.prompt", 3, "metadata.prompt is 3: give a string"),
        ("metadata.prompt_tokens", ["a", None], "a token of metadata.prompt_tokens is None"),
        ("metadata", [], r"metadata is \[\], not an object"),
        ("qParams.supernodes", ["x"], "a supernode is 'x': give a list"),
        ("qParams.supernodes", [[]], "the label of a supernode is None: give a string"),
        ("qParams.clickedId", "gone", "qParams names node 'gone'"),
        ("qParams.pinnedIds", [["e0"]], r"qParams names node \['e0'\]"),
    ],
)
def test_a_wrong_value_is_named(graph: dict[str, Any], path: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_graph(broken(graph, path, value), n_layers=2)


def test_markup_in_a_label_is_text_and_stays(graph: dict[str, Any]) -> None:
    validate_graph(broken(graph, "nodes.0.clerp", "<script>alert(1)</script>"))


def test_a_cycle_is_named(graph: dict[str, Any]) -> None:
    graph["links"] += [
        {"source": s, "target": t, "weight": 1.0} for s, t in (("logit", "e0"), ("e0", "f0.1"))
    ]
    with pytest.raises(
        UserError, match=r"a cycle of 3 nodes, (\S+ -> ){3}\S+: influence needs a graph without cycles"
    ):
        validate_graph(graph)


def test_a_doubled_link_is_named(graph: dict[str, Any]) -> None:
    graph["links"] += [{"source": "f0.1", "target": "logit", "weight": -0.5}]
    with pytest.raises(UserError, match=r"link 'f0.1' -> 'logit' occurs 2 times: give their sum"):
        validate_graph(graph)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (
            {"pair_wise_contributors": [["e0", "gone", 0.5]]},
            "an entry of pair_wise_contributors of .* 'f0.1' is",
        ),
        ({"pair_wise_contributors": [["e0", 0.5]]}, "give 2 node ids of the graph and a number"),
        ({"top_q_marginal_contributors": [["e0", "0.5"]]}, "give 1 node ids of the graph and a number"),
        ({"top_k_marginal_contributors": "e0"}, "give a list"),
        ([], "not an object"),
    ],
)
def test_attention_tracing_of_absent_nodes_is_found(
    graph: dict[str, Any], results: object, message: str
) -> None:
    sound = {"pair_wise_contributors": [["e0", "only", -0.5]], "top_q_marginal_contributors": [["logit", 1]]}
    graph["qk_only_nodes"] = {"only": node("only")}
    validate_graph(broken(graph, "nodes.0.qk_tracing_results", sound))
    with pytest.raises(UserError, match=message):
        validate_graph(broken(graph, "nodes.0.qk_tracing_results", results))


def test_cantor_numbers_are_unique() -> None:
    """Hand-worked: (2, 3) -> 5 * 6 / 2 + 3 = 18."""
    assert cantor_pair(2, 3) == 18
    assert len({cantor_pair(x, y) for x in range(40) for y in range(40)}) == 1600


def test_cantor_numbers_are_read_back() -> None:
    assert all(cantor_unpair(cantor_pair(x, y)) == (x, y) for x in range(40) for y in range(40))
    assert cantor_unpair(cantor_pair(25, 2**40)) == (25, 2**40)
