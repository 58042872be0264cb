"""Tracing a prompt: targets, greedy expansion, the graph and its scores, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.circuits.attribution_graph.beds import (
    READS,
    WRITES,
    bed_anatomy,
    make_cross_layer,
    make_transcoders,
    prompt,
)
from workbench.circuits.attribution_graph.graph import to_graph, unlisted
from workbench.circuits.attribution_graph.logits import likeliest
from workbench.circuits.attribution_graph.scores import prune_trace, trace_scores
from workbench.circuits.attribution_graph.trace import AttributionTrace, trace_prompt
from workbench.circuits.attribution_graph.verify import verify_edges
from workbench.circuits.graph_files import load_graph, save_graph
from workbench.errors import UserError


def again(traced: AttributionTrace, **options: Any) -> AttributionTrace:
    return trace_prompt(traced.model.anatomy, prompt(), traced.model.transcoders, **options)


def test_the_likeliest_logits_are_the_smallest_set() -> None:
    probs = torch.tensor([0.1, 0.5, 0.3, 0.06, 0.04])
    assert likeliest(probs, 0.95, 10) == [1, 2, 0, 3]
    assert likeliest(probs, 0.5, 10) == [1]
    assert likeliest(probs, 0.95, 2) == [1, 2]


def test_a_difference_is_the_difference_of_two_logits(traced: AttributionTrace) -> None:
    both = again(traced, targets=[7, 9]).effects
    n = len(traced.model.sources)
    one, two = (
        both.take(torch.tensor([row])).dense(n) for row in (len(traced.features), len(traced.features) + 1)
    )
    found = again(traced, targets=[(7, 9)]).effects
    last = found.take(torch.tensor([found.n_targets - 1])).dense(n)
    torch.testing.assert_close(last, one - two, rtol=1e-4, atol=1e-5)


def test_a_direction_is_traced_like_the_logit_that_it_is(traced: AttributionTrace) -> None:
    W_U = traced.model.anatomy.readout.W_U
    logit = again(traced, targets=[7])
    found = again(traced, targets=(W_U[:, 7] - W_U.mean(1))[None])
    assert torch.equal(found.effects.weight, logit.effects.weight)
    assert to_graph(found).ids[-1] == "direction0@8"


def test_greedy_rows_are_rows_of_the_whole(traced: AttributionTrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.circuits.attribution_graph.expand.LEAST_BATCH", 8)
    few = again(traced, max_feature_nodes=40)
    assert len(few.features) == 40
    assert (few.features.diff() > 0).all()
    n = len(traced.model.sources)
    wanted = traced.effects.take(few.features).dense(n)
    torch.testing.assert_close(few.effects.take(torch.arange(40)).dense(n), wanted, rtol=1e-4, atol=1e-6)
    ranked = prune_trace(traced).graph  # the strongest features are among those expanded
    strongest = to_graph(traced).nodes.assign(i=range(to_graph(traced).n_nodes))
    influence = (
        prune_trace(traced, node_frac=1.0).graph.nodes.query("kind == 'feature'").nlargest(10, "influence")
    )
    names = {to_graph(traced).ids[int(row)] for row in few.features}
    assert len(set(influence["node_id"]) & names) >= 9
    assert ranked.n_nodes <= len(strongest)


def test_features_without_rows_count_as_input(traced: AttributionTrace) -> None:
    few = again(traced, max_feature_nodes=30)
    graph = to_graph(few)
    assert int(graph.is_kind("feature").sum()) == 30
    listed = np.zeros(graph.n_nodes)
    np.add.at(listed, graph.target.numpy(), graph.weight.abs().double().numpy())
    kept = torch.zeros(few.n_nodes, dtype=torch.bool)
    kept[few.target_nodes] = True
    names = {name: i for i, name in enumerate(graph.ids)}
    rows = [names[name] for name in (f for f in graph.ids if f[0] == "f" or f.startswith("logit"))]
    total = few.effects.abs_total.double().numpy()
    np.testing.assert_allclose(listed[rows] + graph.nodes["unlisted_abs"].to_numpy()[rows], total, rtol=1e-4)
    assert unlisted(few).sum() > 0
    scores = trace_scores(few, prune_trace(few))
    assert 0 < scores.unlisted_input_frac < 1
    assert trace_scores(traced, prune_trace(traced)).unlisted_input_frac == 0


def test_the_graph_says_what_a_node_is(traced: AttributionTrace, tmp_path: Path) -> None:
    graph = to_graph(traced, verify_edges(traced, n_edges=20, n_resamples=20))
    sources = traced.model.sources
    row = graph.nodes[graph.nodes["kind"] == "feature"].iloc[5]
    active = sources.active
    assert row["node_id"] == f"f{active.layer[5]}.{active.latent[5]}@{active.pos[5]}"
    assert row["activation"] == pytest.approx(float(active.value[5]))
    assert row["token_id"] == -1
    tokens = graph.nodes[graph.nodes["kind"] == "token"]
    assert tokens["token_id"].tolist() == traced.model.frozen.ids.tolist()
    logits = graph.nodes[graph.nodes["kind"] == "logit"]
    assert logits["prob"].sum() <= 1.0
    assert logits["pos"].tolist() == [8] * len(logits)
    assert int(graph.verified.sum()) == 20
    assert graph.n_edges == len(traced.effects.weight)
    save_graph(graph, tmp_path / "graph")
    read = load_graph(tmp_path / "graph")
    assert read.ids == graph.ids
    assert read.meta["freeze_check"]["worst_frac"] <= 1e-4
    assert len(graph.sinks_first()) == graph.n_nodes


def test_pruning_keeps_paths_to_the_logits(traced: AttributionTrace) -> None:
    pruned = prune_trace(traced, node_frac=0.5, edge_frac=0.8)
    assert 0 < pruned.graph.n_edges < len(traced.effects.weight)
    assert 0 < pruned.before.replacement_score_frac < 1
    assert 0 < pruned.before.explained_input_frac < 1


def test_edges_are_limited_by_memory(traced: AttributionTrace) -> None:
    few = again(traced, memory_bytes=100_000)
    assert few.settings["edges_per_target"] is not None
    assert len(few.effects.weight) * 40 <= 100_000
    assert float(few.effects.kept_frac.min()) < 1


@pytest.fixture(scope="module")
def anatomy() -> Any:
    return bed_anatomy("gpt2")


def wrong_transcoders(anatomy: Any, what: str) -> Any:
    given = make_transcoders(anatomy)
    other = {
        "missing": lambda: given[:2],
        "twice": lambda: [*given, given[0]],
        "autoencoder": lambda: [replace(given[0], hook_name_out=None), *given[1:]],
        "layers": lambda: [replace(given[0], hook_name_out=WRITES.format(1)), *given[1:]],
        "unknown": lambda: [replace(given[0], hook_name=READS.format(0) + "x"), *given[1:]],
        "attention": lambda: [replace(given[0], hook_name="blocks.0.attn.hook_in"), *given[1:]],
        "output": lambda: [replace(given[0], hook_name_out="blocks.0.hook_attn_out"), *given[1:]],
        "model": lambda: [replace(t, metadata={"model_hash": "0" * 64}) for t in given],
        "width": lambda: [replace(given[0], W_enc=given[0].W_enc[:16]), *given[1:]],
        "no block": lambda: [replace(given[0], hook_name="hook_embed"), *given[1:]],
    }
    return other[what]()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", r"layer 2 has no transcoder \(1 of 3 layers have none\)"),
        ("twice", "two transcoders read layer 0"),
        ("autoencoder", "is an autoencoder: an attribution graph needs transcoders"),
        ("layers", "both hooks must be of one layer of this model, 0 to 2"),
        ("unknown", "is not a hook point of this model"),
        ("attention", "shows neither of the values that a transcoder can have for its input"),
        ("output", "shows neither of the values that a transcoder can have for its output"),
        ("model", "was trained on a model with weights 000000000000"),
        ("width", "maps 16 to 32 columns and the model's stream has 32"),
        ("no block", "is in no block"),
    ],
)
def test_transcoders_that_do_not_fit_are_refused(anatomy: Any, what: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trace_prompt(anatomy, prompt(), wrong_transcoders(anatomy, what))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_skipped": 9}, "n_skipped 9 leaves no position"),
        ({"targets": ["zwei Wörter"]}, r"is \d+ tokens \("),
        ({"targets": [10**6]}, "is outside this model's vocabulary"),
        ({"targets": [7, 7]}, "are none or name one twice"),
        ({"targets": torch.zeros(1, 5)}, "a direction of 5 entries does not fit a stream of 32"),
        ({"mass_frac": 0.0}, "choose no logits"),
        ({"max_feature_nodes": 0}, "max_feature_nodes 0 expands nothing"),
    ],
)
def test_options_that_do_not_fit_are_refused(anatomy: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trace_prompt(anatomy, prompt(), make_transcoders(anatomy), **options)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([10**6] * 4, "token ids run from 1000000"),
        (list(range(70)), r"give one prompt of 1 to 64 tokens"),
        (torch.zeros(2, 3, dtype=torch.long), r"of shape \(2, 3\)"),
        (torch.rand(4), "give one list of integers"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(anatomy: Any, ids: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trace_prompt(anatomy, ids, make_transcoders(anatomy))


def test_a_cross_layer_dictionary_traces_to_a_graph(anatomy: Any) -> None:
    graph = to_graph(trace_prompt(anatomy, prompt(), make_cross_layer(anatomy)))
    assert graph.n_edges > 1000


def test_a_text_is_a_prompt(anatomy: Any) -> None:
    found = trace_prompt(anatomy, "The cat sat", make_transcoders(anatomy), targets=[" the"])
    assert found.logits.labels == [" the"]
    assert found.model.frozen.ids.tolist() == anatomy.model.to_tokens("The cat sat")[0].tolist()
