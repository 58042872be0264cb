"""Which nodes and links of a traced circuit are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from workbench.errors import UserError
from workbench.panels import CircuitGraph
from workbench.panels.circuit_graph import link_records, node_records


@pytest.fixture
def nodes(run: Path) -> pd.DataFrame:
    """A traced node table."""
    return pd.read_parquet(run / "circuits" / "ioi" / "nodes.parquet")


def test_the_circuit_comes_first_when_there_is_no_room_for_all(nodes: pd.DataFrame):
    n_circuit = int(nodes["in_circuit"].sum())
    drawn = node_records(nodes, limit=n_circuit + 2)
    assert len(drawn) == n_circuit + 2
    assert all(node["in_circuit"] for node in drawn[:n_circuit])
    assert not drawn[-1]["in_circuit"]
    assert drawn[-1]["kind"] != "feature"


def test_numbers_that_were_not_measured_are_null(nodes: pd.DataFrame):
    drawn = {node["id"]: node for node in node_records(nodes)}
    assert drawn["logit"]["patched_logits"] is None
    assert json.loads(json.dumps(list(drawn.values()), allow_nan=False))


def test_links_of_the_two_units_are_scaled_apart_and_dangling_ones_dropped():
    links = [
        {"source": "a", "target": "logit", "weight": 0.5},
        {"source": "b", "target": "logit", "weight": -0.25},
        {"source": "a", "target": "f", "weight": 100.0},
        {"source": "a", "target": "gone", "weight": 1.0},
        {"source": "b", "target": "f", "weight": 0.0},
    ]
    found = link_records(links, {"a", "b", "f", "logit"})
    assert ["a", "logit", 0.5, 1.0, "logits"] in found
    assert ["b", "logit", -0.25, 0.5, "logits"] in found
    assert ["a", "f", 100.0, 1.0, "pre-act."] in found
    assert len(found) == 3
    assert link_records(links, {"a", "b", "f", "logit"}, limit=2) == found[:2]


def test_a_task_that_was_not_traced_is_refused(run: Path):
    with pytest.raises(UserError, match=r"task 'iois' is not traced in run 'demo'.*the nearest: ioi"):
        CircuitGraph.from_run(run, "iois")
    assert CircuitGraph.from_run(run, "ioi").n_total == 59


def test_a_table_without_a_column_is_refused(nodes: pd.DataFrame):
    with pytest.raises(UserError, match=r"the nodes table lacks in_circuit"):
        node_records(nodes.drop(columns="in_circuit"))
