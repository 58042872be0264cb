"""The circuit of edges in the report: its words, its chart and its drawing say what the graph holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.reports.run_folder import make_run
from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.graph_files import save_graph
from workbench.circuits.node_names import graph_of_edges
from workbench.panels.circuit_graph import CircuitGraph as Panel
from workbench.reports.edge_charts import edges_chart, edges_text
from workbench.reports.read import read_run
from workbench.reports.report import report_html

EDGES = [("embed", "a0.h1.v"), ("embed", "m0"), ("a0.h1", "a1.h2.k"), ("m0", "logit"), ("a1.h2", "logit")]


@pytest.fixture
def graph() -> CircuitGraph:
    share = {"faithfulness_frac": 0.91, "faithfulness_frac_low": 0.88, "faithfulness_frac_high": 0.93}
    left = {"completeness_frac": 0.02, "completeness_frac_low": 0.01, "completeness_frac_high": 0.03}
    agreement = {"pearson": 0.9, "pearson_low": 0.8, "pearson_high": 0.95}
    shuffled = {"shuffled_pearson": 0.0, "shuffled_pearson_low": -0.4, "shuffled_pearson_high": 0.4}
    meta = {
        "circuit": {
            **share, **left, "n_edges": 4, "edges_frac": 0.8, "n_nodes": 4, "all_nodes_needed": False,
            "reached": False, "random_as_good_frac": 0.25,
        },
        "goal": {"faithfulness_frac": 0.9, "completeness_frac": 0.1, "edges_frac": 0.05},
        "protocol": {"description": "Clean prompts run <b>."},
        "minimality": [{"node_id": "a0.h1", "minimality_logits": 1.5}],
        "agreement": {**agreement, **shuffled},
    }  # fmt: skip
    weight = torch.tensor([1.0, 0.1, -0.5, 0.2, 2.0])
    exact = torch.tensor([1.1, float("nan"), -0.4, 0.3, 1.9])
    kept = torch.tensor([True, False, True, True, True])
    return graph_of_edges(EDGES, weight, intervened=exact, kept=kept, meta=meta)


def test_the_words_are_the_figures(graph: CircuitGraph) -> None:
    text = edges_text(graph)
    assert "4 of 5 edges (80.0%) between 4 components keep 91% [88%, 93%]" in text
    assert "not every component is needed" in text
    assert "It does not reach the goal" in text
    assert "25% of random circuits" in text


def test_the_chart_has_the_verified_edges(graph: CircuitGraph) -> None:
    chart = edges_chart("ioi", graph)
    assert "4 edges of ioi" in chart.description
    assert "r = 0.90 [0.80, 0.95]" in chart.description


def test_the_panel_joins_the_inputs_of_a_head(graph: CircuitGraph) -> None:
    panel = Panel.from_wiring(graph, title="ioi")
    assert [link[:2] for link in panel.links] == [
        ["a1.h2", "logit"], ["embed", "a0.h1"], ["a0.h1", "a1.h2"], ["m0", "logit"],
    ]  # fmt: skip
    assert panel.links[1][4] == "logits into v"
    assert {node["id"]: node["patched_logits"] for node in panel.nodes}["a0.h1"] == 1.5


def test_the_report_shows_it_escaped(graph: CircuitGraph, tmp_path: Path) -> None:
    run = make_run(tmp_path / "made")
    task = next(path.name for path in (run / "circuits").iterdir())
    save_graph(graph, run / "circuits" / task / "wiring")
    page = report_html(read_run(run))
    assert "Circuit of edges: 4 of 5 edges" in page
    assert "Clean prompts run &lt;b&gt;." in page
