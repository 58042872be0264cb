"""A model written by hand whose features are its coordinates: nodes, edges and faithfulness are known (CHECK A1.3)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.causal.handmade import COPY, D_MODEL, OUT, TOKEN, handmade_batch, handmade_model
from tests.circuits.feature_circuits.beds import all_hooks, coordinates
from workbench.anatomy import open_anatomy
from workbench.circuits.feature_circuits import (
    Faithfulness,
    FeatureSites,
    NodeRef,
    ablate_sets,
    check_edges,
    faithfulness,
    find_circuit,
    find_edges,
    keep_nodes,
    make_replacement,
    node_effects,
    node_sets,
    observe,
    open_sites,
    paired,
    refs_of,
)
from workbench.circuits.feature_circuits.kept import Kept
from workbench.circuits.feature_circuits.node_sets import NodeSets
from workbench.circuits.graph_files import load_graph, save_graph
from workbench.tasks import Batch

Place = tuple[str, int, int]  # site, feature, position
LAST = 4
CHAIN = (
    ("embed", TOKEN, 1), ("attn_out0", COPY, 2), ("resid_post0", COPY, 2), ("attn_out1", OUT, LAST),
    ("resid_post1", OUT, LAST),
)  # fmt: skip
WIRES = (
    ("embed", "attn_out0"),
    ("attn_out0", "resid_post0"),
    ("resid_post0", "attn_out1"),
    ("attn_out1", "resid_post1"),
)


@pytest.fixture(scope="module")
def planted() -> FeatureSites:
    """Two attention layers, one feature a coordinate, a leak of 2% through everything else."""
    anatomy = open_anatomy(handmade_model())
    hooks = all_hooks(2, ("attn_out", "resid_post"))
    return open_sites(anatomy, [coordinates(hook, D_MODEL, dtype=torch.float64) for hook in hooks])


def known_nodes(token: int) -> set[Place]:
    """Where a token is, on its way to the logits."""
    return {(site, first + token, pos) for site, first, pos in CHAIN}


def found_nodes(sites: FeatureSites, kept: Kept, prompt: int) -> set[Place]:
    """Nodes kept at one prompt."""
    rows = (kept.prompt == prompt).nonzero()[:, 0].tolist()
    return {(sites[int(kept.site[r])].name, int(kept.feature[r]), int(kept.pos[r])) for r in rows}


@pytest.mark.parametrize("method", ["ig", "atp"])
def test_kept_nodes_are_the_planted_ones(planted: FeatureSites, method: str) -> None:
    """At a threshold of 5% of the largest effect, at every prompt: precision = recall = 1."""
    batch = handmade_batch()
    seen = observe(planted, paired(planted.anatomy, batch))
    effects = node_effects(planted, seen, method=method)
    largest = max(float(own.features.abs().max()) for own in effects)
    kept = keep_nodes(planted, seen, effects, threshold=0.05 * largest)
    for prompt, (answer, other) in enumerate(zip(batch.answer, batch.counterfactual_answer, strict=True)):
        assert found_nodes(planted, kept, prompt) == known_nodes(int(answer)) | known_nodes(int(other))


def test_kept_edges_are_the_planted_ones(planted: FeatureSites) -> None:
    """At 5% of the largest weight, at every prompt; the token that is off in the clean prompt reads into the error."""
    batch = handmade_batch()
    seen = observe(planted, paired(planted.anatomy, batch))
    effects = node_effects(planted, seen)
    kept = keep_nodes(planted, seen, effects, threshold=0.0)
    edges = find_edges(planted, seen, effects, kept)
    above = edges.weight.abs() > 0.05 * edges.weight.abs().max()
    found = set()
    for s, t in zip(edges.source[above].tolist(), edges.target[above].tolist(), strict=True):
        prompt, ends = int(kept.prompt[s]), [place(planted, kept, row) for row in (s, t)]
        answer, other = int(batch.answer[prompt]), int(batch.counterfactual_answer[prompt])
        assert ends[0][1:] in {(answer, True), (other, True)}
        if t >= 0:
            assert ends[1][1:] == ends[0][1:] or (ends[0][1] == other and ends[1][1] is None)
        if t >= 0 and ends[0][1] == answer:
            found.add((prompt, ends[0][0], ends[1][0]))
    assert found == {(prompt, *wire) for prompt in range(len(batch.answer)) for wire in WIRES}


def place(sites: FeatureSites, kept: Kept, row: int) -> tuple[str, int | None, bool]:
    """Site, token (None for an error), and whether the position is that of the chain."""
    site, feature = sites[int(kept.site[row])].name, int(kept.feature[row])
    first, pos = {name: (first, pos) for name, first, pos in CHAIN}[site]
    return site, None if feature < 0 else feature - first, int(kept.pos[row]) == pos


def test_planted_edges_are_what_path_patching_gives(planted: FeatureSites) -> None:
    """Every feature of the chain into the next one, all tokens; no edge between unlike tokens."""
    seen = observe(planted, paired(planted.anatomy, handmade_batch()))
    effects = node_effects(planted, seen, method="atp")
    chain = {site: first for site, first, _ in CHAIN}
    edges = [
        (NodeRef(planted.index(a), chain[a] + i), NodeRef(planted.index(b), chain[b] + j))
        for a, b in WIRES
        for i in range(3)
        for j in range(3)
    ]
    found = check_edges(planted, seen, effects, edges)
    tokens = [[ref.feature - chain[planted[ref.site].name] for ref in edge] for edge in edges]
    like = torch.tensor([a == b for a, b in tokens])
    live = clean_targets(planted, found.edges, handmade_batch())
    assert float(((found.predicted - found.intervened) * live).abs().max()) < 1e-3  # the leak bends a little
    assert float(found.predicted[like].abs().max()) > 4
    assert float(found.predicted[~like].abs().max()) < 0.2


def clean_targets(sites: FeatureSites, edges: tuple, batch: Batch) -> torch.Tensor:
    """Prompts whose token is the edge's target, where it is on in the clean prompt."""
    chain = {site: first for site, first, _ in CHAIN}
    token = torch.tensor([e[1].feature - chain[sites[e[1].site].name] for e in edges])
    return token[:, None] == batch.answer


def test_the_circuit_is_faithful_and_the_rest_does_nothing(planted: FeatureSites) -> None:
    batch = handmade_batch()
    prompts = paired(planted.anatomy, batch)
    found = find_circuit(planted, [prompts], node_threshold=0.25, edge_threshold=0.05, positions="aligned")
    assert found.graph.n_nodes == 5 * 6 + 1  # six tokens along the chain, and the metric
    sets = node_sets(planted, [refs_of(planted, found.graph), refs_of(planted, found.graph)[:6]], n_pos=5)
    for kind in ("resample", "position_mean"):
        judged = judge(planted, sets, kind)
        assert abs(float(judged.faithfulness_frac[0]) - 1) < 0.02
        assert abs(float(judged.completeness_frac[0])) < 0.02
        assert float(judged.faithfulness_frac[1]) < 0.2  # without the embedding's way on, nothing arrives
    # A mean over positions blurs the position code that keys read; pairs share it, so no effect shows it.
    assert float(judge(planted, sets, "mean").faithfulness_frac[0]) < 0.5


def judge(sites: FeatureSites, sets: NodeSets, kind: str) -> Faithfulness:
    """Faithfulness of node sets under one kind of replacement."""
    batch = handmade_batch()
    replacement = make_replacement(sites, batch.counterfactual, kind=kind)
    return faithfulness([ablate_sets(sites, paired(sites.anatomy, batch), replacement, sets, start_layer=-1)])


def test_checked_edges_stand_in_the_graph_on_disk(planted: FeatureSites, tmp_path: Path) -> None:
    found = find_circuit(
        planted, [paired(planted.anatomy, handmade_batch())], node_threshold=0.25, n_checked=10
    )
    assert int(found.graph.verified.sum()) == 10
    rows = found.graph.weight.abs().argsort(descending=True, stable=True)[:10]
    assert found.graph.intervened is not None
    assert torch.allclose(found.graph.intervened[rows], found.checks.intervened.mean(1))
    assert found.graph.meta["completeness_gaps"].keys() == {s.name for s in planted}
    assert int(found.graph.sinks_first()[0]) == found.graph.row("logit")
    save_graph(found.graph, tmp_path / "graph")
    again = load_graph(tmp_path / "graph")
    assert again.nodes.equals(found.graph.nodes)
    assert torch.equal(again.weight, found.graph.weight)
    assert again.meta["recipe"]["node_threshold"] == 0.25
