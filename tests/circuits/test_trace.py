"""The stage `trace`: what it writes, that it repeats bit for bit, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.circuits.conftest import HOOK, SMALL, TASK, write_run
from tests.models_on_disk import tiny_model_dir
from workbench.artifacts import read_json, sha256_file
from workbench.circuits import TraceResult, trace, validate_graph
from workbench.circuits.edges import PATCHED_LOGITS, PRE_ACTIVATION
from workbench.circuits.nodes import KINDS
from workbench.errors import UserError

FILES = ("edges.safetensors", "graph.json", "meta.json", "nodes.parquet", "verification.parquet", "wiring")
COLUMNS = {
    "node_id",
    "kind",
    "layer",
    "head",
    "feature",
    "pos",
    "attributed_logits",
    "patched_logits",
    "in_circuit",
}


def test_every_artefact_is_written(traced: tuple[Path, TraceResult]) -> None:
    run, result = traced
    folder = run / "circuits" / TASK
    assert result.folder == folder
    assert tuple(sorted(p.name for p in folder.iterdir())) == FILES
    assert set(pd.read_parquet(folder / "nodes.parquet").columns) >= COLUMNS


def test_nodes_cover_every_part_of_the_model_once(traced: tuple[Path, TraceResult]) -> None:
    table = traced[1].nodes
    assert table["node_id"].is_unique
    counts = table["kind"].value_counts()
    assert set(counts.index) == set(KINDS)
    assert (counts["head"], counts["mlp"], counts["embed"], counts["error"], counts["logit"]) == (
        8,
        2,
        1,
        1,
        1,
    )
    patched = table[table["patched_logits"].notna()]["kind"].value_counts()
    assert (patched["head"], patched["mlp"], patched["feature"]) == (8, 2, SMALL["n_exact_features"])


def test_intervals_hold_the_means(traced: tuple[Path, TraceResult]) -> None:
    table = traced[1].nodes.dropna(subset=["patched_logits"])
    slack = 1e-12
    assert (table["patched_low_logits"] <= table["patched_logits"] + slack).all()
    assert (table["patched_logits"] <= table["patched_high_logits"] + slack).all()


def test_the_embedding_carries_the_whole_effect(traced: tuple[Path, TraceResult]) -> None:
    result = traced[1]
    embed = result.nodes.set_index("node_id").loc["embed", "patched_logits"]
    assert embed == pytest.approx(
        result.meta["clean_logits"] - result.meta["counterfactual_logits"], abs=1e-6
    )


def test_verification_agrees_with_the_node_table(traced: tuple[Path, TraceResult]) -> None:
    result = traced[1]
    nodes = result.nodes.set_index("node_id").loc[result.verification["node_id"]]
    np.testing.assert_array_equal(nodes["patched_logits"], result.verification["intervened_logits"])
    np.testing.assert_array_equal(nodes["attributed_logits"], result.verification["predicted_logits"])


def test_attribution_beats_its_shuffled_control(traced: tuple[Path, TraceResult]) -> None:
    found = traced[1].meta["correlation"]["all"]
    assert found["n_nodes"] == len(traced[1].verification) - 1, "all but the embedding"
    assert found["pearson_low"] > found["shuffled_pearson_high"]


def test_meta_carries_protocol_baseline_controls_and_hashes(traced: tuple[Path, TraceResult]) -> None:
    run, result = traced
    meta = read_json(run / "circuits" / TASK / "meta.json")
    assert meta == result.meta
    assert meta["metric"] == "logit difference"
    assert "counterfactual" in meta["protocol"]
    assert (
        meta["dictionary_hash"] == read_json(run / "dictionary" / "cfg.json")["metadata"]["workbench"]["hash"]
    )
    assert meta["clean_logits_low"] <= meta["clean_logits"] <= meta["clean_logits_high"]
    control = meta["controls"]["random_dictionary_effect"]
    assert control["n_features"] == meta["dictionary_effect"]["n_features"] == SMALL["n_exact_features"]
    assert np.isfinite(meta["controls"]["untrained_clean_logits"])
    assert meta["self_check_frac"] < 1e-5


def test_edges_point_into_the_node_table(traced: tuple[Path, TraceResult]) -> None:
    run, result = traced
    edges = load_file(run / "circuits" / TASK / "edges.safetensors")
    kinds = result.nodes["kind"].to_numpy()
    inner = edges["kind"] == PRE_ACTIVATION
    assert set(kinds[edges["source"][inner]]) == {"embed", "head", "mlp"}
    assert set(kinds[edges["target"][inner]]) == {"feature"}
    assert int(inner.sum()) == (1 + 4 + 1) * SMALL["n_exact_features"], (
        "embedding, 4 heads and 1 MLP before the hook"
    )
    exact = edges["kind"] == PATCHED_LOGITS
    assert set(kinds[edges["target"][~inner]]) == {"logit"}
    effects = result.nodes["patched_logits"].to_numpy()[edges["source"][exact]]
    np.testing.assert_allclose(edges["weight"][exact], effects, rtol=1e-6)


def test_the_graph_is_valid_and_pins_the_circuit(traced: tuple[Path, TraceResult]) -> None:
    run, result = traced
    graph = read_json(run / "circuits" / TASK / "graph.json")
    validate_graph(graph)
    drawn = {node["node_id"] for node in graph["nodes"]}
    circuit = set(result.nodes[result.nodes["in_circuit"]]["node_id"])
    assert set(graph["qParams"]["pinnedIds"]) == circuit & drawn == circuit
    assert len(graph["metadata"]["prompt_tokens"]) > max(0, *(n["ctx_idx"] for n in graph["nodes"]))


def test_the_same_seed_gives_the_same_bytes(traced: tuple[Path, TraceResult], own_run: Path) -> None:
    again = trace(own_run, task=TASK, **SMALL)
    names = (p.relative_to(again.folder) for p in sorted(again.folder.rglob("*")) if p.is_file())
    for name in names:
        assert sha256_file(again.folder / name) == sha256_file(traced[1].folder / name), name


def test_fewer_exact_components_leave_the_rest_first_order(own_run: Path) -> None:
    table = trace(own_run, task=TASK, **{**SMALL, "n_exact_components": 3}).nodes
    parts = table[table["kind"].isin(["embed", "head", "mlp"])]
    chosen = parts[parts["patched_logits"].notna()]
    assert len(chosen) == 3
    left_out = parts[parts["patched_logits"].isna()]
    assert chosen["attributed_logits"].abs().min() >= left_out["attributed_logits"].abs().max()
    assert not left_out[left_out["kind"] != "embed"]["in_circuit"].any()


def test_an_unknown_task_names_the_nearest(own_run: Path) -> None:
    with pytest.raises(UserError, match=r"task 'agrement' is not known; the nearest: agreement"):
        trace(own_run, task="agrement", **SMALL)


def test_a_run_without_dictionary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no dictionary: train one first"):
        trace(tmp_path, task=TASK)


def test_another_hook_is_refused(own_run: Path) -> None:
    with pytest.raises(UserError, match=rf"hook 'blocks.1.hook_resid_post' is not the hook .*{HOOK}"):
        trace(own_run, task=TASK, hook="blocks.1.hook_resid_post")


def test_another_models_dictionary_is_refused(own_run: Path, tmp_path: Path) -> None:
    other = tiny_model_dir(tmp_path / "other", seed=9)
    with pytest.raises(
        UserError, match=r"has weights \w{12}, but this run's dictionary was trained on \w{12}"
    ):
        trace(own_run, task=TASK, model=str(other))


def test_a_hook_off_the_residual_stream_is_refused(tmp_path: Path, model_dir: Path) -> None:
    write_run(tmp_path, model_dir, hook="blocks.0.attn.hook_z")
    with pytest.raises(UserError, match=r"'blocks.0.attn.hook_z' does not add to the residual stream"):
        trace(tmp_path, task=TASK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_pairs": 1}, "n_pairs 1 gives no interval"),
        ({"n_exact_features": 0}, "n_exact_features 0 leaves no feature"),
        ({"n_exact_components": "some"}, "n_exact_components 'some' is no count"),
        ({"coverage_frac": 1.5}, "coverage_frac 1.5 is not a share"),
    ],
)
def test_options_out_of_range_are_refused(own_run: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trace(own_run, task=TASK, **{**SMALL, **options})
