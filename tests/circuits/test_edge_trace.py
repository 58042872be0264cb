"""The circuit of edges that `trace` writes: read back, drawn, and refused where it cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.circuits.conftest import SMALL, TASK
from workbench.circuits import TraceResult, ablate, trace
from workbench.circuits.edge_ablation import FOLDER, read_edge_circuit
from workbench.circuits.graph_files import load_graph
from workbench.circuits.metric import task_batches
from workbench.circuits.setting import open_setting
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.replacement import replacement_run
from workbench.errors import UserError
from workbench.panels.circuit_graph import CircuitGraph as Panel
from workbench.panels.wiring_records import kept_edges
from workbench.tasks import make_task


def test_the_written_graph_is_the_result(traced: tuple[Path, TraceResult]) -> None:
    run, result = traced
    stored, found = load_graph(run / "circuits" / TASK / FOLDER), result.wiring
    assert found is not None
    assert stored.edge_table().equals(found.edge_table())
    assert stored.n_edges == Wiring(open_setting(run).anatomy).n_edges
    assert stored.kept is not None
    assert int(stored.kept.sum()) <= 0.05 * stored.n_edges + 1  # of a random model nothing need be kept
    assert int(stored.verified.sum()) >= 0.05 * stored.n_edges - 1
    assert set(stored.meta) >= {"circuit", "goal", "protocol", "minimality", "controls", "agreement"}


def test_exact_effects_are_those_of_the_executor(traced: tuple[Path, TraceResult]) -> None:
    """m(clean) - m(all edges but one) by the masked run, for the circuit's edges."""
    run, _ = traced
    setting = open_setting(run)
    wiring = Wiring(setting.anatomy)
    stored = load_graph(run / "circuits" / TASK / FOLDER)
    scores = read_edge_circuit(run / "circuits" / TASK, wiring).scores
    verified = stored.edge_table()[stored.verified.numpy()]
    places = [
        (wiring.row[a], wiring.column[b]) for a, b in zip(verified["source"], verified["target"], strict=True)
    ]
    masks = wiring.allowed.repeat(len(places) + 1, 1, 1)
    for row, (w, r) in enumerate(places):
        masks[row, w, r] = False
    pairs = make_task(TASK, setting.model.tokenizer, n_pairs=SMALL["n_pairs"], seed=0)
    executor, parts = EdgeExecutor(setting.anatomy, wiring), []
    for batch in task_batches(pairs, setting.anatomy.device):
        parts.append(executor.metrics(batch, replacement_run(setting.anatomy, batch.counterfactual), masks))
    metrics = torch.cat(parts, 1)
    effects = (metrics[-1] - metrics[:-1]).mean(1)
    found = torch.stack([scores[w, r] for w, r in places])
    assert len(found) > 5
    torch.testing.assert_close(effects, found, rtol=0, atol=1e-5)


def test_the_panel_draws_the_circuit_and_nothing_else(traced: tuple[Path, TraceResult]) -> None:
    found = traced[1].wiring
    assert found is not None
    best = found.weight.abs() >= found.weight.abs().sort().values[-6]
    graph = replace(found, kept=best)
    panel, edges = Panel.from_wiring(graph, title=TASK), kept_edges(graph)
    assert len(panel.links) == len(edges) == 6
    names = {node["id"] for node in panel.nodes}
    assert {end for link in panel.links for end in link[:2]} <= names
    assert all(link[4].startswith("logits") for link in panel.links)


def test_edges_can_be_left_out(own_run: Path) -> None:
    result = trace(own_run, task=TASK, edges="none", **SMALL)
    assert result.wiring is None
    assert not (own_run / "circuits" / TASK / FOLDER).exists()
    judged = ablate(own_run, task=TASK, n_pairs=8, n_reference=16, n_random=2, n_resamples=50)
    assert not judged.table["kind"].str.startswith("edges").any()


def test_unknown_method_and_protocol_are_named(own_run: Path) -> None:
    with pytest.raises(UserError, match=r"edges 'eap-gi' is not known; .*eap-ig"):
        trace(own_run, task=TASK, edges="eap-gi", **SMALL)
    with pytest.raises(UserError, match=r"protocol 'resampel' is not known; .*resample"):
        ablate(own_run, task=TASK, n_pairs=8, n_reference=16, protocols=("resampel",))


def test_a_task_that_the_model_cannot_do_is_refused(own_run: Path) -> None:
    with pytest.raises(UserError, match=r"the model does not do 'agreement': it prefers the answer in"):
        trace(own_run, task=TASK, **{**SMALL, "allow_unsolved": False})


def test_a_table_of_pairs_is_a_task(own_run: Path, tmp_path: Path) -> None:
    tokenizer = open_setting(own_run).model.tokenizer
    pairs = make_task(TASK, tokenizer, n_pairs=10, seed=3).pairs
    columns = ("clean", "counterfactual", "answer", "counterfactual_answer")
    texts = [(p.clean_text, p.counterfactual_text, p.answer, p.counterfactual_answer) for p in pairs]
    pd.DataFrame(texts, columns=columns).to_csv(tmp_path / "mine.csv", index=False)
    table = str(tmp_path / "mine.csv")
    result = trace(own_run, task=table, **{**SMALL, "n_pairs": 6})
    assert result.folder == own_run / "circuits" / "mine"
    judged = ablate(own_run, task=table, n_random=2, n_resamples=50)  # the four rows that were not traced
    assert judged.table["n_prompts"].iloc[0] == 4
    assert judged.path == own_run / "ablations" / "mine.parquet"
    trace(own_run, task=table, **{**SMALL, "n_pairs": 9, "edges": "none"})
    with pytest.raises(UserError, match="10 different rows and 9 were traced: add rows"):
        ablate(own_run, task=table, n_random=2, n_resamples=50)
