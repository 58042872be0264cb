"""Head loadings sum to the edges; pairs of nodes sum to a head's score."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.circuits.attribution_graph.beds import bed
from workbench.circuits.attribution_graph import frozen as frozen_module
from workbench.circuits.attribution_graph.engine import direct_effects
from workbench.circuits.attribution_graph.graph import node_name
from workbench.circuits.attribution_graph.head_loadings import (
    HeadLoadings,
    first_hop_loadings,
    layer_loadings,
)
from workbench.circuits.attribution_graph.logits import logit_targets
from workbench.circuits.attribution_graph.qk import qk_attribution
from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.circuits.attribution_graph.targets import Targets, feature_targets
from workbench.circuits.attribution_graph.trace import AttributionTrace
from workbench.errors import UserError

BEDS: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}), ("llama", {"skip": True}), ("gemma2", {"cross": True}), ("neox", {"skip": True}), ("qwen3", {}),
    ("gemma3", {}), ("native", {}),
]  # fmt: skip


def last_feature(model: Replacement) -> Targets:
    """The last active feature of the last layer."""
    return feature_targets(model).take(torch.tensor([model.sources.n_features - 1]))


def gap(found: HeadLoadings, wanted: torch.Tensor) -> float:
    return float((found.total - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize(("architecture", "options"), BEDS)
def test_head_loadings_sum_to_the_edges(architecture: str, options: dict[str, Any]) -> None:
    model = bed(architecture, **options)
    for target in (last_feature(model), logit_targets(model, [3]).targets):
        wanted = direct_effects(model, target).dense(len(model.sources))[0]
        assert gap(first_hop_loadings(model, target), wanted) <= 1e-5
        for layer in range(2):
            found = layer_loadings(model, target, layer)
            assert gap(found, wanted) <= 1e-5
            assert (found.through.abs().sum(1) > 0).all()


def test_a_heads_loading_is_what_its_pattern_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one head's pattern frozen at zero the edges lose exactly that head's loading."""
    model = bed("llama")
    target, layer, head = last_feature(model), 1, 2
    whole = direct_effects(model, target).dense(len(model.sources))[0]
    loading = layer_loadings(model, target, layer).through[head]
    mixing = model.frozen.layers[layer].mixing.clone()
    mixing[head] = 0
    monkeypatch.setitem(model.frozen.layers[layer].__dict__, "mixing", mixing)
    without = direct_effects(model, target).dense(len(model.sources))[0]
    torch.testing.assert_close(whole - without, loading, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))
    assert float(loading.abs().max()) > 1e-3 * float(whole.abs().max())


def test_loadings_of_one_edge_by_name(traced: AttributionTrace) -> None:
    target = last_feature(traced.model)
    found = first_hop_loadings(traced.model, target)
    source = int(found.total.abs().argmax())
    parts = found.of(source)
    assert set(parts) == {"rest", *(f"a{layer}.h{head}" for layer in range(3) for head in range(4))}
    assert sum(parts.values()) == pytest.approx(float(found.total[source]), rel=1e-4)


def test_loadings_of_two_targets_or_of_a_layer_above_are_refused(traced: AttributionTrace) -> None:
    model = traced.model
    with pytest.raises(UserError, match="one target at a time, not 2"):
        first_hop_loadings(model, feature_targets(model).take(torch.tensor([0, 1])))
    with pytest.raises(UserError, match="layer 2 has no attention below the target: give 0 to 0"):
        layer_loadings(model, feature_targets(model).take(torch.tensor([0])), 2)


@pytest.mark.parametrize(("architecture", "options"), BEDS)
def test_pairs_sum_to_the_score(architecture: str, options: dict[str, Any]) -> None:
    model = bed(architecture, **options)
    for layer, head, query, key in ((0, 1, 8, 5), (1, 3, 8, 8), (2, 2, 7, 1)):
        found = qk_attribution(model, layer=layer, head=head, query=query, key=key)
        size = float((found.queries @ found.keys.T).abs().sum())
        assert abs(found.total - found.score) <= 1e-5 * max(size, abs(found.score))
        assert abs(found.total - found.score) <= 1e-4 * abs(found.score) + 1e-5
        pairs = found.queries @ found.keys.T
        torch.testing.assert_close(pairs.sum(1), found.query_marginals, rtol=1e-3, atol=1e-5 * size)
        torch.testing.assert_close(pairs.sum(0), found.key_marginals, rtol=1e-3, atol=1e-5 * size)


def test_scores_give_the_frozen_pattern() -> None:
    """The softmax of the scores over all keys is the row of the pattern."""
    model = bed("llama")
    scores = torch.tensor([qk_attribution(model, layer=1, head=3, query=6, key=k).total for k in range(7)])
    torch.testing.assert_close(
        scores.softmax(0), model.frozen.layers[1].pattern[3, 6, :7], rtol=1e-4, atol=1e-6
    )


def test_top_pairs_are_those_of_the_whole_matrix(traced: AttributionTrace) -> None:
    found = qk_attribution(traced.model, layer=2, head=0, query=8, key=3)
    pairs = found.queries @ found.keys.T
    top = found.top_pairs(10)
    assert top["weight"].abs().max() == pytest.approx(float(pairs.abs().max()))
    wanted = pairs.abs().flatten().topk(10).values
    torch.testing.assert_close(torch.tensor(top["weight"].to_numpy()).abs(), wanted)
    q, k = int(top["query_node"][0]), int(top["key_node"][0])
    assert float(pairs[q, k]) == pytest.approx(float(top["weight"][0]))


def test_results_have_the_shape_of_exchanged_graphs(traced: AttributionTrace) -> None:
    found = qk_attribution(traced.model, layer=2, head=0, query=8, key=3)
    results = found.tracing_results(lambda node: node_name(traced, node), 5)
    assert set(results) == {
        "pair_wise_contributors", "top_q_marginal_contributors", "top_k_marginal_contributors",
    }  # fmt: skip
    for q, k, weight in results["pair_wise_contributors"]:
        assert q.split("@")[1] <= "8"
        assert k.split("@")[1] <= "3"
        assert isinstance(weight, float)
    assert len(results["top_q_marginal_contributors"]) == 5


def test_positions_out_of_sight_are_refused(traced: AttributionTrace) -> None:
    with pytest.raises(UserError, match="position 2 cannot look at position 5"):
        qk_attribution(traced.model, layer=0, head=0, query=2, key=5)
    with pytest.raises(UserError, match="head 9 of layer 0 is not in this model"):
        qk_attribution(traced.model, layer=0, head=9, query=2, key=1)


def test_a_forgotten_head_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of loadings notices a split that leaves one head out."""
    model = bed("gpt2")
    whole = frozen_module.FrozenLayer.by_head
    target = last_feature(model)
    wanted = direct_effects(model, target).dense(len(model.sources))[0]

    def halved(self: frozen_module.FrozenLayer, gradient: torch.Tensor) -> torch.Tensor:
        return whole(self, gradient) * torch.tensor([0.0, 1, 1, 1])[:, None]

    monkeypatch.setattr(frozen_module.FrozenLayer, "by_head_pulled", lambda self, g: torch.einsum(
        "hqk,qhd->khd", self.mixing[:, : len(g), : len(g)], halved(self, g)))  # fmt: skip
    assert gap(layer_loadings(model, target, 1), wanted) > 1e-3
