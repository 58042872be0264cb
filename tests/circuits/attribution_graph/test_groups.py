"""Supernodes and their checks; graphs of many prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.circuits.attribution_graph.beds import bed_anatomy, make_transcoders, prompt
from workbench.circuits.attribution_graph.collapse import check_groups, collapsed_graph
from workbench.circuits.attribution_graph.graph import to_graph
from workbench.circuits.attribution_graph.many import intervals, trace_many
from workbench.circuits.attribution_graph.similarity import coactivation, decoder_cosine, feature_similarity
from workbench.circuits.attribution_graph.supernodes import clusters, find_supernodes
from workbench.circuits.attribution_graph.trace import AttributionTrace, trace_prompt
from workbench.circuits.attribution_graph.verify import verify_nodes
from workbench.errors import UserError


def test_clusters_merge_the_most_alike_first_and_nest() -> None:
    alike = np.array([[1.0, 0.9, 0.4, 0.1], [0.9, 1.0, 0.6, 0.1], [0.4, 0.6, 1.0, 0.1], [0.1, 0.1, 0.1, 1.0]])
    nothing = np.zeros((4, 4), bool)
    assert clusters(alike, nothing, [0.8, 0.5, 0.45]) == [[(0, 1)], [(0, 1, 2)], [(0, 1, 2)]]
    assert clusters(alike, nothing, [0.95]) == [[]]


def test_clusters_make_no_cycle() -> None:
    """0 -> 1 -> 2: 0 and 2 are the most alike, but a group of them would feed 1 and be fed by it."""
    alike = np.array([[1.0, 0.1, 0.9], [0.1, 1.0, 0.2], [0.9, 0.2, 1.0]])
    feeds = np.zeros((3, 3), bool)
    feeds[0, 1] = feeds[1, 2] = True
    assert clusters(alike, feeds, [0.5]) == [[]]
    assert clusters(alike, np.zeros((3, 3), bool), [0.5]) == [[(0, 2)]]
    assert clusters(alike, feeds, [0.15]) == [[(1, 2)]]


def test_similarities_are_cosines(traced: AttributionTrace) -> None:
    active, model = traced.model.sources.active, traced.model
    rows = torch.arange(0, 60)
    cosine = decoder_cosine(traced, rows)
    a, b = 3, 41
    wanted = [model.transcoders.layers[int(active.layer[i])].W_dec[active.latent[i]] for i in (a, b)]
    assert float(cosine[a, b]) == pytest.approx(float(torch.cosine_similarity(*wanted, dim=0)), abs=1e-5)
    together = coactivation(traced, rows)
    same = [(i, j) for i in range(60) for j in range(i) if active.latent[i] == active.latent[j]
            and active.layer[i] == active.layer[j]]  # fmt: skip
    assert same
    assert all(float(together[i, j]) == pytest.approx(1.0, abs=1e-5) for i, j in same)
    whole = feature_similarity(traced, rows)
    assert float(whole.abs().max()) <= 1.0 + 1e-5
    torch.testing.assert_close(whole.diagonal(), torch.ones(60), rtol=0, atol=1e-4)


def test_copies_of_a_latent_are_grouped() -> None:
    """Two latents with one encoder and one decoder are one thing: they are found as a group."""
    anatomy = bed_anatomy("gpt2")
    given = make_transcoders(anatomy)
    for t in given:
        for weights, rows in ((t.W_enc.T, t.W_dec),):
            weights[1] = weights[0]
            rows[1] = rows[0]
        t.b_enc[:2] = 5.0  # both active everywhere
    found = trace_prompt(anatomy, prompt(), given)
    active = found.model.sources.active
    both = [
        i
        for i in range(found.model.sources.n_features)
        if int(active.latent[i]) < 2 and int(active.layer[i]) == 1
    ]
    groups = find_supernodes(found, features=both, levels=(0.99,)).groups[0]
    place = {(int(active.pos[i]), int(active.latent[i])): i for i in both}
    pairs = {(place[p, 0], place[p, 1]) for p in range(1, 9)}
    assert all(any(set(pair) <= set(group) for group in groups) for pair in pairs)


def test_levels_nest_and_the_collapsed_graph_has_no_cycle(traced: AttributionTrace) -> None:
    found = find_supernodes(traced, levels=(0.4, 0.2, 0.05), node_frac=1.0)
    fine, middle, coarse = found.groups
    assert len(fine) > 0
    for small, large in ((fine, middle), (middle, coarse)):
        assert all(any(set(a) <= set(b) for b in large) for a in small)
    graph = collapsed_graph(traced, found.graph, coarse)
    assert len(graph.sinks_first()) == graph.n_nodes < found.graph.n_nodes
    assert int(graph.is_kind("group").sum()) == len(coarse)
    inside = sum(len(group) for group in coarse)
    assert graph.n_nodes == found.graph.n_nodes - inside + len(coarse)
    owner = {name: label for label, *names in graph.meta["supernodes"] for name in names}
    table = found.graph.edge_table()
    for name in ("source", "target"):
        table[name] = table[name].map(lambda n: owner.get(n, n))
    between = table[table["source"] != table["target"]]
    assert float(graph.weight.sum()) == pytest.approx(float(between["weight"].sum()), rel=1e-3, abs=1e-3)


def test_a_group_is_removed_as_one(traced: AttributionTrace) -> None:
    """Predicted equals the frozen intervention; a group of one is that of verify_nodes; members count once."""
    active = traced.model.sources.active
    first, last = (int((active.layer == layer).nonzero()[-1]) for layer in (0, 2))
    table = check_groups(traced, [[first, last, last - 1], [first]])
    size = table["frozen"].abs().max()
    assert ((table["predicted"] - table["frozen"]).abs() <= 1e-4 * size).all()
    alone = verify_nodes(traced, [first], n_resamples=10).table
    one = table[table["group"] == 1]
    np.testing.assert_allclose(one["live"], alone["live"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one["apart"], one["live"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one["predicted"], alone["predicted"], rtol=1e-5, atol=1e-7)
    three = table[table["group"] == 0]
    parts = verify_nodes(traced, [first, last, last - 1], n_resamples=10).table
    summed = parts.groupby("target")["predicted"].sum().to_numpy()
    assert np.abs(three["predicted"].to_numpy() - summed).max() > 1e-4 * size  # what runs through members


def test_groups_that_are_none_are_refused(traced: AttributionTrace) -> None:
    with pytest.raises(UserError, match="a group names no feature of the trace"):
        check_groups(traced, [[10**6]])
    with pytest.raises(UserError, match="a feature is in two groups"):
        collapsed_graph(traced, to_graph(traced), [[1, 2], [2, 3]])
    with pytest.raises(UserError, match=r"no feature is left at node_frac 0\.01"):
        find_supernodes(traced, node_frac=0.01)
    with pytest.raises(UserError, match="are no similarities"):
        find_supernodes(traced, levels=(2.0,))
    with pytest.raises(UserError, match="are no weights of similarities"):
        find_supernodes(traced, weights={"decoder": -1.0})


def test_a_graph_of_many_prompts_is_the_mean(traced: AttributionTrace) -> None:
    anatomy, given = traced.model.anatomy, list(traced.model.transcoders.layers)
    prompts = [prompt(8 + i, seed=i) for i in range(4)]
    graph = trace_many(anatomy, prompts, given, targets=[(3, 9)] * 4, n_edges=500, n_resamples=200)
    assert graph.n_edges == 500
    assert graph.low is not None
    assert graph.high is not None
    assert (graph.low <= graph.weight + 1e-12).all()
    assert (graph.weight <= graph.high + 1e-12).all()
    assert (graph.high > graph.low).any()
    wanted: dict[tuple[str, str], float] = {}
    for ids in prompts:
        one = to_graph(trace_prompt(anatomy, ids, given, targets=[(3, 9)]))
        for source, target, weight in one.edge_table().itertuples(index=False):
            ends = (
                source.split("@")[0],
                target.split("@")[0].split(".")[0] if "logit" in target else target.split("@")[0],
            )
            wanted[ends] = wanted.get(ends, 0.0) + weight / 4
    for source, target, weight in zip(
        graph.edge_table()["source"], graph.edge_table()["target"], graph.weight.tolist(), strict=True
    ):
        assert weight == pytest.approx(wanted[source, target], rel=1e-4, abs=1e-5)
    least = float(graph.weight.abs().min())
    assert sum(abs(w) > least + 1e-6 for w in wanted.values()) <= 500
    assert len(graph.sinks_first()) == graph.n_nodes


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    drawn = np.random.default_rng(0).normal(1.0, 1.0, size=(40, 2000))
    low, high = intervals(drawn, n_resamples=300, seed=1)
    assert 0.90 < float(((low <= 1.0) & (high >= 1.0)).mean()) < 0.97


def test_prompts_without_targets_are_refused(traced: AttributionTrace) -> None:
    with pytest.raises(UserError, match="2 prompts, 1 targets and n_edges 10000 make no graph"):
        trace_many(traced.model.anatomy, [[1, 2], [3, 4]], list(traced.model.transcoders.layers), targets=[1])
