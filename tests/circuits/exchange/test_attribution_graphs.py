"""circuit-tracer's and Neuronpedia's graph JSON: their file read, ours written, and both round trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.circuits.exchange.graphs import METADATA, N_LAYERS, made, recipes
from workbench.circuits.circuit_graph import DEFAULTS, CircuitGraph, edge_values, node_table
from workbench.circuits.exchange.names import cantor_pair, exchange_ids
from workbench.circuits.exchange.reading import FOREIGN_UNIT, graph_of_record, read_graph
from workbench.circuits.exchange.validate import validate_graph
from workbench.circuits.exchange.writing import graph_record, index_graphs, write_graph
from workbench.errors import UserError

THEIRS = Path(__file__).with_name("circuit_tracer_graph.json")


def star(n_features: int = 30) -> CircuitGraph:
    """Features of rising weight into one logit."""
    features = [
        {"node_id": f"f0.{i}@0", "kind": "feature", "layer": 0, "feature": i, "pos": 0}
        for i in range(n_features)
    ]
    logit = {"node_id": "logit.3", "kind": "logit", "token_id": 3, "pos": 1, "prob": 0.5, "token": "yes"}
    return CircuitGraph(
        nodes=node_table([*features, logit]),
        source=torch.arange(n_features),
        target=torch.full((n_features,), n_features),
        weight=torch.arange(n_features) * torch.tensor([1.0, -1.0]).repeat(n_features // 2),
        meta={"metadata": {"scan": "tiny", "prompt": "ab", "prompt_tokens": ["a", "b"]}},
    )


def test_their_file_is_read() -> None:
    graph = read_graph(THEIRS, n_layers=2)
    table = graph.nodes.set_index("node_id")
    assert table["kind"].tolist() == ["feature", "feature", "error", "token", "logit", "logit"]
    assert table["layer"].tolist() == [0, 1, 1, -1, 3, 3]
    assert table["feature"].tolist() == [7, 3, -1, -1, -1, -1]
    assert table["pos"].tolist() == [1, 3, 3, 1, 3, 3]
    assert table["token_id"].tolist() == [-1, -1, -1, 29, 9, 4]
    assert table["token"].tolist() == ["", "", "", "Dallas", " Texas", ' "Big" D']
    assert table.at["0_7_1", "label"] == "<b>Dallas</b>"
    assert table.at["0_7_1", "activation"] == 9.449039459228516
    assert table["covered_frac"].tolist()[:3] == [0.41, 0.63, 0.8]
    assert table["prob"].tolist()[4:] == [0.75, 0.125]
    assert graph.edge_table()["weight"].tolist() == [12.964216232299805, -0.7109375, 0.25, 1.3125, -0.1]
    assert graph.meta["supernodes"] == [["Texas & <neighbours>", "0_7_1", "1_3_3"]]
    assert graph.unit == FOREIGN_UNIT
    assert graph.intervened is None


def test_their_file_is_written_back_with_errors_under_names_of_their_own() -> None:
    theirs, ours = json.loads(THEIRS.read_text()), graph_record(read_graph(THEIRS))
    renamed = json.loads(THEIRS.read_text().replace('"0_1_3"', '"ERR_1_3"'))
    assert [node["node_id"] for node in ours["nodes"]] == [node["node_id"] for node in renamed["nodes"]]
    for mine, other in zip(ours["nodes"], theirs["nodes"], strict=True):
        same = (
            "feature",
            "layer",
            "ctx_idx",
            "feature_type",
            "clerp",
            "influence",
            "activation",
            "is_target_logit",
        )
        assert {key: mine[key] for key in same} == {key: other[key] for key in same}
    assert ours["links"] == renamed["links"]
    assert ours["qParams"] == theirs["qParams"]
    assert {key: ours["metadata"][key] for key in theirs["metadata"]} == theirs["metadata"]


def test_the_collision_of_their_names_does_not_occur_in_ours() -> None:
    """Feature 1 of layer 0 and the error of layer 1, both at position 3, are `0_1_3` there."""
    records = [{"node_id": "f0.1@3", "kind": "feature", "layer": 0, "feature": 1, "pos": 3},
               {"node_id": "e1@3", "kind": "error", "layer": 1, "pos": 3}]  # fmt: skip
    none = torch.zeros(0, dtype=torch.int64)
    graph = CircuitGraph(nodes=node_table(records), source=none, target=none, weight=torch.zeros(0))
    assert exchange_ids(graph, logit_layer=3) == ["0_1_3", "ERR_1_3"]
    written = graph_record(graph, metadata=METADATA, n_layers=2)
    written["nodes"][1]["node_id"] = "0_1_3"
    with pytest.raises(UserError, match="node_id '0_1_3' occurs 2 times"):
        graph_of_record(written)


def test_features_of_two_dictionaries_in_a_layer_keep_their_own_names() -> None:
    records = [{"node_id": f"f0.1{s}@3", "kind": "feature", "layer": 0, "feature": 1, "pos": 3, "site": s}
               for s in ("a", "m")]  # fmt: skip
    none = torch.zeros(0, dtype=torch.int64)
    graph = CircuitGraph(nodes=node_table(records), source=none, target=none, weight=torch.zeros(0))
    assert exchange_ids(graph, logit_layer=3) == graph.ids
    read = graph_of_record(graph_record(graph, metadata=METADATA, n_layers=2))
    assert read.nodes["site"].tolist() == ["a", "m"]
    assert read.nodes["feature"].tolist() == [1, 1]


@settings(max_examples=60, deadline=None)
@given(recipe=recipes())
def test_a_graph_comes_back_from_json(recipe: dict[str, Any]) -> None:
    graph = made(recipe)
    text = json.dumps(graph_record(graph, metadata=METADATA, n_layers=N_LAYERS), allow_nan=False)
    read = graph_of_record(json.loads(text), n_layers=N_LAYERS)
    ids = exchange_ids(graph, logit_layer=N_LAYERS + 1)
    assert read.ids == ids
    for name in set(DEFAULTS) - {"node_id", "label", "layer", "token"}:
        np.testing.assert_array_equal(read.nodes[name].to_numpy(), graph.nodes[name].to_numpy(), err_msg=name)
    shown = graph.nodes["label"] != ""
    assert (read.nodes["label"][shown] == graph.nodes["label"][shown]).all()
    assert (read.nodes["layer"] == graph.nodes["layer"])[graph.nodes["kind"] != "logit"].all()
    np.testing.assert_array_equal(read.source, graph.source)
    np.testing.assert_array_equal(read.target, graph.target)
    for name, tensor in edge_values(graph).items():
        if len(tensor):
            np.testing.assert_array_equal(edge_values(read)[name], tensor, err_msg=name)
    names = dict(zip(graph.ids, ids, strict=True))
    assert read.meta["pins"] == [names[name] for name in graph.meta["pins"]]
    assert read.meta["supernodes"] == [[g[0], *(names[n] for n in g[1:])] for g in graph.meta["supernodes"]]
    assert ("qk_tracing_results" in read.meta) == ("qk_tracing_results" in graph.meta)


@settings(max_examples=30, deadline=None)
@given(recipe=recipes())
def test_what_was_read_is_written_the_same(recipe: dict[str, Any]) -> None:
    graph = made(recipe)
    once = graph_record(graph, metadata=METADATA, n_layers=N_LAYERS)
    read = graph_of_record(once)
    if "logit_layer" in read.meta:
        assert graph_record(read) == once


def test_the_name_of_a_feature_gives_its_index_and_else_its_number_does() -> None:
    record = json.loads(THEIRS.read_text())
    record["nodes"][0] |= {"node_id": "texas", "feature": cantor_pair(0, 7)}
    record["links"][0]["target"] = record["links"][1]["source"] = "texas"
    record["qParams"] = {}
    assert graph_of_record(record).nodes["feature"][0] == 7
    record["nodes"][0]["feature"] = 253
    assert graph_of_record(record).nodes["feature"][0] == 253, "no pairing of layer 0: the index itself"


def test_a_part_of_the_links_says_what_it_left_out() -> None:
    record = graph_record(star(), n_layers=2, n_links=4)
    assert [link["weight"] for link in record["links"]] == [-29.0, 28.0, -27.0, 26.0]
    assert record["metadata"]["n_links_total"] == 30
    total = sum(range(30))
    assert record["metadata"]["left_out_abs_frac"] == pytest.approx(1 - (29 + 28 + 27 + 26) / total)
    assert "left_out_abs_frac" not in graph_record(star(), n_layers=2)["metadata"]


def test_pages_hold_the_rest_and_are_read_together(tmp_path: Path) -> None:
    files = write_graph(star(), tmp_path / "s.json", n_layers=2, page_links=12)
    assert [f.name for f in files] == ["s.json", "s.links-2.json", "s.links-3.json"]
    first = json.loads(files[0].read_text())
    validate_graph(first)
    assert len(first["links"]) == 12
    assert abs(first["links"][0]["weight"]) == 29
    read = read_graph(files[0])
    assert sorted(read.weight.tolist()) == sorted(star().weight.tolist())
    assert "link_pages" not in read.meta["metadata"]


def test_a_changed_or_foreign_page_is_refused(tmp_path: Path) -> None:
    files = write_graph(star(), tmp_path / "s.json", n_layers=2, page_links=20)
    files[1].write_text(files[1].read_text().replace("-1.0", "-9.0"))
    with pytest.raises(UserError, match=r"link page 's.links-2.json' is not the one that was written"):
        read_graph(files[0])
    record = json.loads(files[0].read_text())
    record["metadata"]["link_pages"][0]["file"] = "../s.links-2.json"
    files[0].write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"link page '../s.links-2.json' is no file name"):
        read_graph(files[0])


def test_the_index_lists_every_graph_once(tmp_path: Path) -> None:
    write_graph(star(), tmp_path / "b.json", n_layers=2, page_links=20)
    write_graph(read_graph(THEIRS), tmp_path / "a.json", metadata={"slug": "a"})
    index_graphs(tmp_path)
    found = json.loads(index_graphs(tmp_path).read_text())["graphs"]
    assert [metadata["slug"] for metadata in found] == ["a", "b"]


def refused(path: Path, text: str | bytes, message: str, **options: Any) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=message):
        read_graph(path, **options)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path, text = tmp_path / "g.json", THEIRS.read_text()
    refused(path, text.replace("0.25", "NaN"), "holds the number NaN, which JSON does not have")
    refused(path, text.replace("0.25", "-Infinity"), "holds the number -Infinity")
    refused(path, text.replace("0.25", "1e999"), "link '0_1_3' -> '3_9_3' has weight inf: give a number")
    refused(path, text[:-20], "file 'g.json' is not JSON")
    refused(path, b"\xff\xfe\x00{", "file 'g.json' is not JSON")
    refused(path, "[" * 100_000, "is not JSON|nested too deeply")
    refused(path, "[1]", "holds a list, not an object")
    refused(path, "{}", "file 'g.json' lacks metadata, qParams, nodes, links")
    refused(path, text, r"has [\d,]+ bytes, more than max_bytes 100: raise max_bytes", max_bytes=100)
    refused(path, text, "layer 1 of node '1_3_3' is not in a model of 1 layers", n_layers=1)
    with pytest.raises(UserError, match=r"file 'no.json' does not exist"):
        read_graph(tmp_path / "no.json")


def test_pages_count_into_the_size(tmp_path: Path) -> None:
    files = write_graph(star(), tmp_path / "s.json", n_layers=2, page_links=20)
    sizes = [f.stat().st_size for f in files]
    assert read_graph(files[0], max_bytes=sum(sizes)).n_edges == 30
    with pytest.raises(UserError, match=r"file 's.links-2.json' has .* more than max_bytes"):
        read_graph(files[0], max_bytes=sum(sizes) - 1)


def test_graphs_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    bare = CircuitGraph(star().nodes, star().source, star().target, star().weight)
    with pytest.raises(UserError, match="metadata lacks scan, prompt, prompt_tokens: give them"):
        write_graph(bare, path, n_layers=2)
    with pytest.raises(UserError, match="n_layers is not given and the graph does not say it"):
        write_graph(star(), path)
    with pytest.raises(UserError, match="page_links 0 is no number of links"):
        write_graph(star(), path, n_layers=2, page_links=0)
    doubled = star().with_edges(torch.tensor([0, 1, 1]))
    with pytest.raises(UserError, match=r"2 edges join 'f0.1@0' -> 'logit.3': .* add their weights"):
        write_graph(doubled, path, n_layers=2)
    looped = CircuitGraph(
        star().nodes, torch.tensor([0, 1]), torch.tensor([1, 0]), torch.ones(2), meta=star().meta
    )
    with pytest.raises(UserError, match="a cycle of 2 nodes"):
        write_graph(looped, path, n_layers=2)
    assert not list(tmp_path.iterdir()), "nothing is left behind"
