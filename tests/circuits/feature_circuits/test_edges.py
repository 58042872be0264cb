"""Edges: they add up to node effects, stop at other sites, and equal path patching where the model is linear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.circuits.feature_circuits.beds import (
    all_hooks,
    coordinates,
    loud_native,
    random_pairs,
    random_topk,
)
from workbench.anatomy import open_anatomy
from workbench.circuits.feature_circuits import (
    FeatureSites,
    NodeRef,
    check_edges,
    find_edges,
    keep_nodes,
    node_effects,
    observe,
    open_sites,
    paired,
)
from workbench.circuits.feature_circuits import edges as edges_module
from workbench.circuits.feature_circuits.codes import Seen
from workbench.circuits.feature_circuits.edges import Edges
from workbench.circuits.feature_circuits.effects import SiteEffects
from workbench.circuits.feature_circuits.kept import Kept
from workbench.errors import UserError

Run = tuple[Seen, tuple[SiteEffects, ...], Kept, Edges]


def run(sites: FeatureSites, *, threshold: float = 0.0, **options: Any) -> Run:
    """Attribution effects, nodes and edges of random pairs."""
    seen = observe(sites, paired(sites.anatomy, random_pairs()))
    effects = node_effects(sites, seen, method="atp")
    kept = keep_nodes(sites, seen, effects, threshold=threshold)
    return seen, effects, kept, find_edges(sites, seen, effects, kept, **options)


def outgoing(kept: Kept, edges: Edges) -> Tensor:
    """Sum of the edges out of each node."""
    return torch.zeros(len(kept)).index_add(0, edges.source, edges.weight)


def complete(sites: FeatureSites) -> Run:
    """Every active feature and every error a node: identities of sums hold for all edges only."""
    seen, effects, *_ = run(sites)
    used = [(c.values != 0) | (c.difference.values != 0) for c in seen.changes]
    everything = [
        replace(own, features=own.features + on, error=own.error + 1)
        for own, on in zip(effects, used, strict=True)
    ]
    rows = keep_nodes(sites, seen, everything, threshold=0.0)
    return seen, effects, rows, find_edges(sites, seen, effects, rows)


def test_edges_out_of_a_node_add_up_to_its_effect(sites: FeatureSites) -> None:
    """Over all sites and the metric: direct paths are all paths, each counted once."""
    _, _, kept, edges = complete(sites)
    effect = outgoing(kept, edges)
    assert torch.allclose(effect, kept.effect - 1, atol=2e-5)
    assert float((kept.effect - 1).abs().max()) > 0.5


@pytest.mark.parametrize(
    "parts", [("resid_pre", "attn_out", "resid_mid", "mlp_out"), ("mlp_out",), ("resid_mid",)]
)
def test_the_sum_holds_for_any_set_of_sites(models: dict[str, FeatureSites], parts: tuple[str, ...]) -> None:
    """Every kind of hook, and halves without a dictionary, through which paths go on."""
    anatomy = models["llama"].anatomy
    hooks = all_hooks(3, parts)[1:]
    sites = open_sites(anatomy, [random_topk(hook, seed=seed) for seed, hook in enumerate(hooks)])
    _, _, kept, edges = complete(sites)
    assert torch.allclose(outgoing(kept, edges), kept.effect - 1, atol=2e-5)


def test_the_sum_fails_when_errors_are_left_out(gpt2: FeatureSites, monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity sees a defect: an error node that reads nothing."""

    def nothing(*args: Any) -> Tensor:
        return torch.zeros_like(args[-1])

    monkeypatch.setattr(edges_module, "_of_error", nothing)
    _, _, kept, edges = complete(gpt2)
    assert not torch.allclose(outgoing(kept, edges), kept.effect - 1, atol=1e-2)


def test_the_sum_fails_when_paths_are_not_stopped(
    gpt2: FeatureSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identity sees a defect: writes between two streams that let gradients through are counted twice."""

    def streams_only(self: FeatureSites, target: int) -> range:
        first = [i for i in range(target) if self.sites[i].site.is_stream][-1:]
        return range(first[0], first[0] + 1) if first else range(1)

    monkeypatch.setattr(FeatureSites, "upstream", streams_only)
    _, _, kept, edges = complete(gpt2)
    assert not torch.allclose(outgoing(kept, edges), kept.effect - 1, atol=1e-2)


def test_parallel_halves_do_not_read_each_other(models: dict[str, FeatureSites]) -> None:
    """In NeoX no edge leads from attn_out to mlp_out of a block; in GPT-2 many do."""

    def between(sites: FeatureSites) -> int:
        _, _, kept, edges = run(sites)
        source, target = sites.index("attn_out1"), sites.index("mlp_out1")
        real = edges.target >= 0
        pairs = kept.site[edges.source[real]], kept.site[edges.target[real]]
        return int(((pairs[0] == source) & (pairs[1] == target)).sum())

    assert between(models["neox"]) == 0
    assert between(models["gpt2"]) > 100


def test_edges_run_forward_between_neighbours_at_one_prompt(sites: FeatureSites) -> None:
    kept, edges = run(sites)[2:]
    real = edges.target >= 0
    source, target = edges.source[real], edges.target[real]
    assert bool((kept.prompt[source] == kept.prompt[target]).all())
    assert bool((kept.pos[source] <= kept.pos[target]).all())
    pairs = {(int(a), int(b)) for a, b in zip(kept.site[source], kept.site[target], strict=True)}
    assert all(a in sites.upstream(b) for a, b in pairs)
    assert bool((kept.site[edges.source[~real]] == len(sites) - 1).all())  # behind the last stream nothing


def test_chunks_do_not_change_edges(gpt2: FeatureSites) -> None:
    whole, narrow = run(gpt2)[3], run(gpt2, max_tokens=700)[3]
    assert len(whole.weight) == len(narrow.weight)

    def order(e: Edges) -> Tensor:
        return (e.source * 10**6 + e.target).argsort()

    assert torch.allclose(whole.weight[order(whole)], narrow.weight[order(narrow)], atol=1e-5)


def test_thresholds_leave_the_larger_ones(gpt2: FeatureSites) -> None:
    every, all_edges = run(gpt2)[2:]
    fewer, edges = run(gpt2, threshold=0.1)[2:]
    assert 0 < len(fewer) == int((every.effect.abs() > 0.1).sum())
    assert len(edges.weight) < len(all_edges.weight)
    seen, effects, kept, _ = run(gpt2, threshold=0.1)
    cut = find_edges(gpt2, seen, effects, kept, threshold=0.05)
    assert len(cut.weight) == int((edges.weight.abs() > 0.05).sum()) > 0


@pytest.fixture(scope="module")
def linear() -> FeatureSites:
    """No norms, and sites around the last block, behind which everything is linear."""
    anatomy = open_anatomy(loud_native(normalization_type=None))
    hooks = [f"blocks.2.hook_{part}" for part in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    return open_sites(
        anatomy, [random_topk(hook, seed=seed, k=12, dtype=torch.float64) for seed, hook in enumerate(hooks)]
    )


def by_hand(sites: FeatureSites, seen: Seen, source: NodeRef, target: NodeRef, held: list[str]) -> Tensor:
    """Path patching with the bridge's own hooks: the source replaced, `held` clean, the target's new value put in."""
    model: Any = sites.anatomy.model
    ids = seen.prompts.clean
    names = [s.site.hook for s in sites]
    _, clean = model.run_with_cache(ids, names_filter=names)
    old, new = sites[source.site], sites[target.site]
    change = seen.changes[source.site].difference
    delta = (change.values * (change.indices == source.feature)).sum(-1)[..., None]

    def patch(value: Tensor, hook: Any) -> Tensor:
        return value - delta * old.dictionary.W_dec[source.feature]

    def hold(value: Tensor, hook: Any) -> Tensor:
        return clean[hook.name]

    caught: dict[str, Tensor] = {}

    def catch(value: Tensor, hook: Any) -> None:
        caught["x"] = value

    hooks = [(old.site.hook, patch), *((name, hold) for name in held), (new.site.hook, catch)]
    model.run_with_hooks(ids, fwd_hooks=hooks)

    def feature(x: Tensor) -> Tensor:
        indices, values = new.dictionary.encode(x.flatten(0, 1))
        return ((indices == target.feature) * values).sum(-1).view(x.shape[:2])

    def put(value: Tensor, hook: Any) -> Tensor:
        moved = feature(caught["x"]) - feature(clean[new.site.hook])
        moved[:, 0] = 0
        return value + moved[..., None] * new.dictionary.W_dec[target.feature]

    logits = model.run_with_hooks(ids, fwd_hooks=[(new.site.hook, put)])[:, -1]
    plain = model(ids)[:, -1]
    batch = random_pairs()
    rows = torch.arange(len(ids))
    m = [x[rows, batch.answer] - x[rows, batch.counterfactual_answer] for x in (plain, logits)]
    return m[0] - m[1]


def steady(sites: FeatureSites, seen: Seen, index: int) -> list[int]:
    """Features of a site that are active in the last position of every clean prompt, or else of the first."""
    codes = seen.changes[index].clean
    last = codes.indices[:, -1][codes.values[:, -1] > 0]
    return last.unique(return_counts=True)[0][
        last.unique(return_counts=True)[1].argsort(descending=True)
    ].tolist()


@pytest.mark.parametrize("source", ["resid_pre2", "attn_out2", "mlp_out2"])
def test_edges_equal_path_patching_by_hand(linear: FeatureSites, source: str) -> None:
    """Skip connection and writes into the last stream, everything else held: CHECK A1.3 and the room's own check."""
    seen = observe(linear, paired(linear.anatomy, random_pairs()))
    effects = node_effects(linear, seen, method="atp")
    a, b = linear.index(source), linear.index("resid_post2")
    held = [s.site.hook for s in linear if a < linear.index(s.name) < b]
    change = seen.changes[a].difference
    sources = change.indices[:, -1][change.values[:, -1] != 0].unique().tolist()[:6]
    edges = [(NodeRef(a, f), NodeRef(b, t)) for f in sources for t in steady(linear, seen, b)[:4]]
    found = check_edges(linear, seen, effects, edges)
    exact = torch.stack([by_hand(linear, seen, *edge, held) for edge in edges])
    assert torch.allclose(found.intervened, exact, atol=1e-9)
    stays = agree(linear, seen, edges)
    assert int(stays.sum()) > 10
    size = exact.abs().max()
    assert float(size) > 0.1
    assert float(((found.predicted - exact) * stays).abs().max()) < 1e-9


def agree(sites: FeatureSites, seen: Seen, edges: list[tuple[NodeRef, NodeRef]]) -> Tensor:
    """Where the target's code keeps its active set under the patch, so that its encoder is linear there."""
    from workbench.circuits.feature_circuits.codes import change_of_feature, encode
    from workbench.circuits.feature_circuits.direct import arriving, leaves_of

    out = []
    for a, b in edges:
        leaves = leaves_of(sites, seen, b.site)
        leaves[a.site] = leaves[a.site] - change_of_feature(
            sites[a.site], seen.changes[a.site].difference, a.feature
        )
        new = encode(sites[b.site], arriving(sites, b.site, leaves, seen.streams[0]), n_bos=1)
        old = seen.changes[b.site].clean
        on = [((c.indices == b.feature) & (c.values > 0)).any(-1) for c in (old, new)]
        out.append((on[0] == on[1]).all(-1))
    return torch.stack(out)


def test_a_path_through_attention_is_not_in_the_skip_edge() -> None:
    """With a dictionary at attn_out the edge between streams is the skip alone; without one it is more."""
    anatomy = open_anatomy(loud_native(normalization_type=None, attn_only=True))
    streams = [f"blocks.{layer}.hook_resid_post" for layer in (1, 2)]
    batch = random_pairs()
    weights = []
    for hooks in (streams, [*streams, "blocks.2.hook_attn_out"]):
        sites = open_sites(anatomy, [coordinates(hook, 32, dtype=torch.float64) for hook in hooks])
        seen = observe(sites, paired(anatomy, batch))
        effects = node_effects(sites, seen, method="atp")
        a, b = sites.index("resid_post1"), sites.index("resid_post2")
        edges = [(NodeRef(a, f), NodeRef(b, t)) for f in range(32) for t in (0, 5) if f != t]
        weights.append(check_edges(sites, seen, effects, edges))
    assert float(weights[0].predicted.abs().max()) > 1e-3
    assert float(weights[1].predicted.abs().max()) == 0
    assert float(weights[1].intervened.abs().max()) < 1e-12


def test_checked_edges_into_errors_and_the_metric(linear: FeatureSites) -> None:
    seen = observe(linear, paired(linear.anatomy, random_pairs()))
    effects = node_effects(linear, seen, method="atp")
    last, mlp, end = linear.index("resid_post2"), linear.index("mlp_out2"), len(linear)
    edges = [
        (NodeRef(last), NodeRef(end)),
        (NodeRef(last, -1, 6), NodeRef(end)),
        (NodeRef(mlp), NodeRef(last, -1, 4)),
    ]
    found = check_edges(linear, seen, effects, edges, max_tokens=28)
    assert torch.allclose(found.predicted[:2], found.intervened[:2], atol=1e-5)
    assert torch.allclose(found.predicted[0], found.predicted[1], atol=1e-6)
    assert float(found.predicted[2].abs().max()) < 1e-6  # position 4 does not reach the last logit


def test_an_edge_without_a_direct_path(gpt2: FeatureSites) -> None:
    seen = observe(gpt2, paired(gpt2.anatomy, random_pairs()))
    effects = node_effects(gpt2, seen, method="atp")
    a, b = gpt2.index("resid_post0"), gpt2.index("resid_post2")
    with pytest.raises(UserError, match="no direct path leads from resid_post0 to resid_post2"):
        check_edges(gpt2, seen, effects, [(NodeRef(a), NodeRef(b))])


def test_negative_thresholds(gpt2: FeatureSites) -> None:
    seen, effects, kept, _ = run(gpt2, threshold=0.5)
    with pytest.raises(UserError, match=r"node threshold -1\.0 is negative"):
        keep_nodes(gpt2, seen, effects, threshold=-1.0)
    with pytest.raises(UserError, match=r"edge threshold -1\.0"):
        find_edges(gpt2, seen, effects, kept, threshold=-1.0)
