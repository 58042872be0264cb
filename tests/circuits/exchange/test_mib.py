"""EAP-IG's and MIB's circuit JSON: their file read, round trips, signs, grouped heads, and names of no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.circuits.exchange.mib import circuit_of_record, circuit_record, read_circuit, write_circuit
from workbench.circuits.exchange.mib_names import Shape, our_edge, their_edge
from workbench.circuits.node_names import graph_of_edges
from workbench.errors import UserError

THEIRS = Path(__file__).with_name("mib_circuit.json")
SHAPE = Shape(n_layers=2, n_heads=4, d_model=64)


def all_edges(shape: Shape) -> list[str]:
    """Every edge of such a model, written down from the definition."""
    found, writers = [], ["input"]
    for layer in range(shape.n_layers):
        heads = [f"a{layer}.h{h}" for h in range(shape.n_heads)]
        found += [f"{w}->{h}<{part}>" for w in writers for h in heads for part in "qkv"]
        found += [f"{w}->m{layer}" for w in [*writers, *([] if shape.parallel_attn_mlp else heads)]]
        writers += [*heads, f"m{layer}"]
    return [*found, *(f"{w}->logits" for w in writers)]


def rough_edges(shape: Shape) -> list[str]:
    """All pairs of writer and reader, most of them edges, some backwards."""
    names = shape.nodes()
    readers = [*(n for n in names if n[0] == "m"), "logits"]
    readers += [f"{n}<{part}>" for n in names if n[0] == "a" for part in "qkv"]
    return [f"{w}->{r}" for w in names[:-1] for r in readers]


@pytest.mark.parametrize("parallel", [False, True])
def test_exactly_the_edges_of_the_model_are_names(parallel: bool) -> None:
    shape = Shape(n_layers=3, n_heads=2, d_model=8, parallel_attn_mlp=parallel)
    accepted = set()
    for name in rough_edges(shape):
        try:
            edge = our_edge(name, shape)
        except UserError as error:
            assert "runs backwards" in str(error)  # noqa: PT017
            continue
        accepted.add(name)
        assert their_edge(*edge) == name
    assert accepted == set(all_edges(shape))


def test_gpt2_small_has_the_number_of_edges_that_is_published() -> None:
    assert len(all_edges(Shape(n_layers=12, n_heads=12, d_model=768))) == 32_491


def test_their_file_is_read() -> None:
    graph = read_circuit(THEIRS, positive_helps=True)
    table = graph.edge_table().set_index(["source", "target"])
    assert table.at[("embed", "a0.h1.q"), "weight"] == 0.125
    assert table.at[("a1.h3", "logit"), "weight"] == 1.5
    assert table.at[("m0", "a1.h2.k"), "kept"]
    assert not table.at[("a0.h1", "a1.h2.q"), "kept"]
    assert graph.n_edges == 10
    inside = graph.nodes.set_index("node_id")["in_circuit"]
    assert inside["a0.h1"] and not inside["a0.h0"] and inside["a0.h1.q"] and not inside["a0.h1.v"]  # noqa: PT018
    assert graph.meta["neurons"] == {"m0": {"neurons": [True, False]}}
    graph.sinks_first()


def test_their_file_is_written_back_as_it_was(tmp_path: Path) -> None:
    for positive_helps in (True, False):
        graph = read_circuit(THEIRS, positive_helps=positive_helps)
        write_circuit(graph, tmp_path / "c.json", positive_helps=positive_helps)
        assert json.loads((tmp_path / "c.json").read_text()) == json.loads(THEIRS.read_text())


def test_scores_of_a_metric_that_falls_change_sign() -> None:
    helps, hurts = (read_circuit(THEIRS, positive_helps=sign) for sign in (True, False))
    assert torch.equal(helps.weight, -hurts.weight)
    assert hurts.nodes.set_index("node_id").at["a0.h1", "score"] == -0.5


circuits = st.dictionaries(
    st.sampled_from(all_edges(SHAPE)),
    st.fixed_dictionaries({"score": st.floats(-1e9, 1e9), "in_graph": st.booleans()}),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(edges=circuits, kept=st.lists(st.sampled_from(SHAPE.nodes()), unique=True), sign=st.booleans())
def test_a_circuit_comes_back_from_json(edges: dict[str, Any], kept: list[str], sign: bool) -> None:
    nodes = {name: {"in_graph": name in kept} for name in SHAPE.nodes()}
    record = {"cfg": SHAPE.as_dict(), "nodes": nodes, "edges": edges}
    graph = circuit_of_record(record, positive_helps=sign)
    assert circuit_record(graph, positive_helps=sign) == record
    assert graph.n_edges == len(edges)


def test_key_value_heads_add_their_group_and_are_divided_among_it() -> None:
    graph = read_circuit(THEIRS, positive_helps=True, n_key_value_heads=2)
    table = graph.edge_table().set_index(["source", "target"])
    assert table.at[("m0", "a1.h1.k"), "weight"] == 0.75, "query heads 2 and 3 share key-value head 1"
    assert table.at[("embed", "a0.h0.v"), "weight"] == -0.5
    assert table.at[("embed", "a0.h1.q"), "weight"] == 0.125, "queries stay"
    written = circuit_record(graph, n_key_value_heads=2)["edges"]
    assert written["m0->a1.h2<k>"] == written["m0->a1.h3<k>"] == {"score": 0.375, "in_graph": True}
    again = circuit_of_record(
        circuit_record(graph, n_key_value_heads=2), positive_helps=True, n_key_value_heads=2
    )
    assert again.edge_table().equals(graph.edge_table())


def test_a_key_value_head_is_kept_whole_or_not_at_all() -> None:
    record = json.loads(THEIRS.read_text())
    record["edges"]["m0->a1.h3<k>"]["in_graph"] = False
    with pytest.raises(
        UserError, match=r"edge 'm0->a1.h3<k>' is not in the circuit and others of its key-value"
    ):
        circuit_of_record(record, positive_helps=True, n_key_value_heads=2)


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ("a0.h1->a1.h2", "is no name: write a0.h1->m3, m0->a2.h3<q> or m0->logits"),
        ("a0.h1->a1.h2<z>", "is no name"),
        ("a0.h1 -> m1", "is no name"),
        ("logits->m1", "is no name"),
        ("<script>", "is no name"),
        ("a0.h1->m2", "edge 'a0.h1->m2' is not in a model of 2 layers of 4 heads"),
        ("a0.h4->m1", "edge 'a0.h4->m1' is not in a model of 2 layers of 4 heads"),
        ("m1->a1.h0<q>", "edge 'm1->a1.h0<q>' runs backwards: a1.h0.q is computed before m1 writes"),
        ("a0.h1->a0.h2<q>", "runs backwards"),
        ("m0->m0", "runs backwards"),
    ],
)
def test_edges_of_no_such_model_are_refused(edge: str, message: str) -> None:
    record = json.loads(THEIRS.read_text())
    record["edges"][edge] = {"score": 1.0, "in_graph": True}
    with pytest.raises(UserError, match=message):
        circuit_of_record(record, positive_helps=True)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("edges", "m1->logits", "score"),
            None,
            "the score of edge 'm1->logits' is None: give a finite number",
        ),
        (("edges", "m1->logits", "score"), float("inf"), "the score of edge 'm1->logits' is inf"),
        (("edges", "m1->logits", "in_graph"), 1, "in_graph of edge 'm1->logits' is 1: give true or false"),
        (("nodes", "m1", "score"), "x", "the score of node 'm1' is 'x'"),
        (("nodes", "m1"), True, "node 'm1' is True, not an object"),
        (("nodes", "m7"), {"in_graph": True}, "node 'm7' is not in a model of 2 layers"),
        (("nodes", "a0"), {"in_graph": True}, "node 'a0' is no name: write input, a0.h1, m0 or logits"),
        (("cfg", "n_layers"), 0, r"cfg.n_layers is 0: give a whole number from 1"),
        (("cfg", "parallel_attn_mlp"), 0, r"cfg.parallel_attn_mlp is 0: give true or false"),
        (("cfg",), {}, "cfg lacks n_layers, n_heads, d_model, parallel_attn_mlp"),
        (("edges",), [], r"edges is \[\], not an object"),
    ],
)
def test_a_wrong_value_is_named(path: tuple[str, ...], value: object, message: str) -> None:
    record: Any = json.loads(THEIRS.read_text())
    part = record
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(UserError, match=message):
        circuit_of_record(record, positive_helps=True)


def test_what_has_no_name_there_is_refused(tmp_path: Path) -> None:
    whole = graph_of_edges([("m0", "a1.h0")], torch.ones(1))
    with pytest.raises(UserError, match=r"edge 'm0->a1.h0' is no name"):
        write_circuit(whole, tmp_path / "c.json", shape=SHAPE)
    feature = graph_of_edges([("f0.3", "logit")], torch.ones(1))
    with pytest.raises(UserError, match=r"edge 'f0.3->logits' is no name"):
        write_circuit(feature, tmp_path / "c.json", shape=SHAPE)
    with pytest.raises(UserError, match="shape is not given and the graph does not say it"):
        write_circuit(whole, tmp_path / "c.json")
    with pytest.raises(UserError, match=r"n_key_value_heads 3 does not divide 4 heads"):
        read_circuit(THEIRS, positive_helps=True, n_key_value_heads=3)


def test_the_ends_of_kept_edges_are_in_a_circuit_that_does_not_say_its_nodes() -> None:
    edges = [("embed", "a0.h1.q"), ("a0.h1", "logit"), ("m0", "logit")]
    graph = graph_of_edges(edges, torch.ones(3), kept=torch.tensor([True, True, False]))
    nodes = circuit_record(graph, shape=SHAPE)["nodes"]
    assert [name for name, info in nodes.items() if info["in_graph"]] == ["input", "a0.h1", "logits"]
    assert list(nodes) == SHAPE.nodes()
