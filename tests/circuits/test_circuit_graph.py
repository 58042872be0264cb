"""The circuit graph: what it refuses, its subgraphs, and that a folder gives back what was put in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.circuits.circuit_graph import CircuitGraph, check_id, edge_values, node_table
from workbench.circuits.graph_files import load_graph, save_graph
from workbench.errors import UserError

NAN = float("nan")


def small(**changes: Any) -> CircuitGraph:
    """embed -> f0.1 -> logit, embed -> e0 -> logit, embed -> logit."""
    nodes = node_table(
        {
            "node_id": ["embed", "f0.1", "e0", "logit"],
            "kind": ["embed", "feature", "error", "logit"],
            "layer": [-1, 0, 0, 2],
            "feature": [None, 1, None, None],
            "activation": [NAN, 2.5, NAN, NAN],
        }
    )
    parts: dict[str, Any] = {
        "nodes": nodes,
        "source": torch.tensor([0, 1, 0, 2, 0]),
        "target": torch.tensor([1, 3, 2, 3, 3]),
        "weight": torch.tensor([1.0, 0.5, -2.0, 0.25, 0.125]),
        "intervened": torch.tensor([NAN, 0.5, NAN, NAN, 0.1]),
        "meta": {"pins": ["f0.1", "e0"], "supernodes": [["both", "f0.1", "e0"], ["one", "e0"]]},
    }
    return CircuitGraph(**{**parts, **changes})


def assert_same(a: CircuitGraph, b: CircuitGraph) -> None:
    pd.testing.assert_frame_equal(a.nodes, b.nodes)
    assert a.unit == b.unit
    assert dict(a.meta) == dict(b.meta)
    parts = [{"source": g.source, "target": g.target, **edge_values(g)} for g in (a, b)]
    assert parts[0].keys() == parts[1].keys()
    for name, tensor in parts[0].items():
        np.testing.assert_array_equal(tensor.numpy(), parts[1][name].numpy(), err_msg=name)


def test_absent_columns_take_their_defaults_and_others_stay() -> None:
    table = node_table([{"node_id": "m0", "kind": "mlp", "layer": 0, "influence": 0.5}])
    assert table["pos"].tolist() == [-1]
    assert table["token"].tolist() == [""]
    assert np.isnan(table["activation"][0])
    assert table["influence"].tolist() == [0.5]
    assert str(small().nodes["feature"].dtype) == "int64"


def test_rows_kinds_and_the_edge_table() -> None:
    graph = small()
    assert graph.row("e0") == 2
    assert graph.is_kind("feature", "error").tolist() == [False, True, True, False]
    assert graph.verified.tolist() == [False, True, False, False, True]
    assert not replace(graph, intervened=None).verified.any()
    assert graph.edge_table()["source"].tolist() == ["embed", "f0.1", "embed", "e0", "embed"]
    with pytest.raises(UserError, match=r"node 'f0.2' is not in the graph; the nearest: f0.1"):
        graph.row("f0.2")


def test_a_subgraph_renumbers_its_ends_and_drops_lost_names() -> None:
    cut = small().with_nodes(torch.tensor([True, True, False, True]))
    assert cut.ids == ["embed", "f0.1", "logit"]
    assert cut.edge_table()[["source", "target"]].to_numpy().tolist() == [
        ["embed", "f0.1"], ["f0.1", "logit"], ["embed", "logit"],
    ]  # fmt: skip
    assert cut.weight.tolist() == [1.0, 0.5, 0.125]
    assert cut.meta == {"pins": ["f0.1"], "supernodes": [["both", "f0.1"]]}
    assert small().with_edges(small().weight.abs() > 0.4).n_edges == 3
    assert small().with_edges(torch.tensor([3, 0])).weight.tolist() == [0.25, 1.0]


def test_the_order_puts_readers_before_writers() -> None:
    graph = small()
    place = {int(row): i for i, row in enumerate(graph.sinks_first())}
    assert all(place[int(t)] < place[int(s)] for s, t in zip(graph.source, graph.target, strict=True))


def test_a_cycle_is_named() -> None:
    looped = small(target=torch.tensor([1, 0, 2, 3, 3]))
    with pytest.raises(UserError, match=r"cycle of 2 nodes, (embed -> f0.1 -> embed|f0.1 -> embed -> f0.1):"):
        looped.sinks_first()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": torch.tensor([0, 1, 0, 4, 0])}, "source 4 of edge 3 is no row of a table of 4 nodes"),
        ({"target": torch.tensor([1, -1, 2, 3, 3])}, "target -1 of edge 1 is no row"),
        (
            {"source": torch.tensor([0, 1, 2, 2, 0])},
            r"the edge 'e0' -> 'e0' \(edge 2\) joins a node to itself",
        ),
        (
            {"weight": torch.tensor([1, NAN, 0, 0, 0])},
            r"weight of 'f0.1' -> 'logit' \(edge 1\) is not finite",
        ),
        ({"weight": torch.tensor([1, 0, 0, 0, -np.inf])}, "is not finite"),
    ],
)
def test_edges_that_are_none_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**changes)


@pytest.mark.parametrize("name", ["target", "weight", "low", "kept"])
def test_lengths_that_differ_are_refused(name: str) -> None:
    """Set past the constructor, where the type checker of the tests would see it first."""
    graph = small()
    object.__setattr__(graph, name, torch.zeros(6))
    with pytest.raises(UserError, match=f"source has 5 edges and {name} 6: give one number of each"):
        graph.__post_init__()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("node_id", "embed", "node_id 'embed' occurs 2 times"),
        ("node_id", "<b>f0</b>", "node_id '<b>f0</b>' is not a name"),
        ("node_id", "a b", "is not a name"),
        ("node_id", "f0\n", "is not a name"),
        ("node_id", "", "is not a name"),
        ("kind", "featur", "node 'f0.1' is of kind 'featur'; the nearest: feature"),
    ],
)
def test_nodes_that_are_none_are_refused(column: str, value: str, message: str) -> None:
    nodes = small().nodes.copy()
    nodes.loc[1, column] = value
    with pytest.raises(UserError, match=message):
        small(nodes=nodes)


def test_a_table_without_a_column_is_refused() -> None:
    with pytest.raises(UserError, match="lacks site, label: make it with `node_table`"):
        small(nodes=small().nodes.drop(columns=["site", "label"]))


@given(st.text(max_size=20))
def test_no_accepted_id_can_be_markup_or_a_path(text: str) -> None:
    try:
        check_id(text)
    except UserError:
        return
    assert not set(text) & set("<>&\"'`/\\ \t\r\n")


@pytest.mark.parametrize("optional", [False, True])
def test_a_folder_gives_the_graph_back(tmp_path: Path, optional: bool) -> None:
    ends = {"low": torch.full((5,), -3.0), "high": torch.full((5,), 3.0), "kept": torch.arange(5) > 2}
    graph = small(**(ends if optional else {"intervened": None}), unit="nats")
    save_graph(graph, tmp_path / "graph")
    assert sorted(p.name for p in (tmp_path / "graph").iterdir()) == [
        "edges.safetensors", "meta.json", "nodes.parquet",
    ]  # fmt: skip
    assert_same(load_graph(tmp_path / "graph"), graph)


def test_a_graph_without_edges_is_a_graph(tmp_path: Path) -> None:
    none = small().with_edges(torch.zeros(5, dtype=torch.bool))
    save_graph(none, tmp_path / "graph")
    assert_same(load_graph(tmp_path / "graph"), none)


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_graph(small(), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("name", ["nodes.parquet", "edges.safetensors"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    save_graph(small(), tmp_path / "graph")
    path = tmp_path / "graph" / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=f"{name} of 'graph' is absent or not the file that was written"):
        load_graph(tmp_path / "graph")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no meta.json: give the folder of a saved circuit graph"):
        load_graph(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps({"task": "ioi"}))
    with pytest.raises(UserError, match="does not describe a 'workbench circuit graph 1'"):
        load_graph(tmp_path)
