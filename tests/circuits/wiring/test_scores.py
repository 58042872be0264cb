"""Attribution of edges against autograd through a graph with one copy an edge; completeness; refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.circuits.wiring.conftest import ARCHITECTURES, OpenWiring, random_pairs
from tests.circuits.wiring.forked import slow_activation_scores, slow_scores
from workbench.circuits.quadrature import quadrature
from workbench.circuits.wiring import gradients
from workbench.circuits.wiring.along import bytes_of
from workbench.circuits.wiring.eap import eap, two_point
from workbench.circuits.wiring.eap_ig import eap_ig_activations, eap_ig_inputs
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.errors import UserError
from workbench.tasks import Batch

LINE = quadrature("midpoint", 2)
POINTS = list(zip(LINE.points, LINE.weights, strict=True))


def error(found: EdgeScores, wanted: Tensor) -> float:
    """Largest difference over all edges and prompts, as a share of the largest score."""
    assert found.per_prompt is not None
    allowed = found.wiring.allowed
    assert bool(found.per_prompt[:, ~allowed].isnan().all())
    assert bool((wanted[:, ~allowed] == 0).all())
    return float((found.per_prompt - wanted)[:, allowed].abs().max() / wanted.abs().max())


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "qwen3", "attention-only"])
def test_scores_are_those_of_the_forked_graph(wiring_of: OpenWiring, architecture: str) -> None:
    wiring, pairs = wiring_of(architecture), random_pairs(n_pairs=2)
    assert error(eap(wiring, pairs, per_prompt=True), slow_scores(wiring, pairs, [(1.0, 1.0)])) < 1e-9
    assert (
        error(eap_ig_inputs(wiring, pairs, steps=2, per_prompt=True), slow_scores(wiring, pairs, POINTS))
        < 1e-9
    )


@pytest.mark.parametrize("architecture", ["native", "gemma2", "neox"])
def test_activation_paths_are_those_of_the_forked_graph(wiring_of: OpenWiring, architecture: str) -> None:
    wiring, pairs = wiring_of(architecture), random_pairs(n_pairs=2, n_pos=4)
    found = eap_ig_activations(wiring, pairs, steps=2, per_prompt=True)
    assert error(found, slow_activation_scores(wiring, pairs, POINTS)) < 1e-9


def test_two_point_is_the_mean_of_both_ends(wiring_of: OpenWiring, pairs: Batch) -> None:
    wiring = wiring_of("llama")
    wanted = slow_scores(wiring, pairs, [(1.0, 0.5), (0.0, 0.5)])
    assert error(two_point(wiring, pairs, per_prompt=True), wanted) < 1e-9


def test_a_wrong_norm_is_seen(wiring_of: OpenWiring, pairs: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holding the norm's scale frozen, the usual mistake, fails the comparison above."""
    wiring = wiring_of("llama")
    wanted = slow_scores(wiring, pairs, [(1.0, 1.0)])

    def frozen(norm, weight, gradient, x):
        return norm.pull(gradient @ weight.transpose(1, 2)[:, None], norm.scale(x))

    monkeypatch.setattr(gradients, "pull_heads", frozen)
    assert error(eap(wiring, pairs, per_prompt=True), wanted) > 1e-3


@pytest.mark.parametrize("architecture", ["native", "gemma2"])
def test_gap_closes_with_a_good_rule(wiring_of: OpenWiring, pairs: Batch, architecture: str) -> None:
    """The embedding's edges sum to m(clean) - m(counterfactual), a writer's to its effect."""
    wiring = wiring_of(architecture)
    coarse, fine = (eap_ig_inputs(wiring, pairs, rule="gauss-legendre", steps=n) for n in (2, 64))
    assert coarse.completeness_gap_logits is not None
    assert fine.completeness_gap_logits is not None
    assert fine.completeness_gap_logits < min(5e-3, coarse.completeness_gap_logits / 100)
    paths = eap_ig_activations(wiring, pairs, rule="gauss-legendre", steps=64)
    assert paths.completeness_gap_logits is not None
    assert paths.completeness_gap_logits < 2e-3


def test_rules_differ_and_are_named(wiring_of: OpenWiring, pairs: Batch) -> None:
    wiring = wiring_of("native")
    found = [eap_ig_inputs(wiring, pairs, rule=rule, steps=3) for rule in ("midpoint", "left", "right")]
    assert found[0].settings == {"quadrature": "midpoint, 3 points"}
    assert not torch.allclose(found[1].of_edges(), found[2].of_edges())


def test_chunks_and_single_prompts_agree(wiring_of: OpenWiring, pairs: Batch) -> None:
    """Means over prompts do not depend on how the prompts are cut."""
    wiring = wiring_of("gemma2")
    whole = eap_ig_inputs(wiring, pairs, per_prompt=True, steps=2)
    one = bytes_of(wiring, 5)
    cut = eap_ig_inputs(wiring, [pairs, random_pairs(seed=9)], per_prompt=True, steps=2, max_bytes=one)
    assert whole.per_prompt is not None
    assert cut.per_prompt is not None
    assert torch.allclose(cut.per_prompt[:3], whole.per_prompt, rtol=1e-10, equal_nan=True)
    assert torch.allclose(whole.scores, whole.per_prompt.mean(0), equal_nan=True)
    assert cut.n_prompts == 6


def test_float32_agrees(wiring_of: OpenWiring, pairs: Batch) -> None:
    for architecture in ("gpt2", "gemma2"):
        single, double = (
            eap_ig_inputs(wiring_of(architecture, dtype), pairs, steps=3).of_edges().double()
            for dtype in (torch.float32, torch.float64)
        )
        assert float((single - double).abs().max() / double.abs().max()) < 1e-5


def test_graph_of_scores(wiring_of: OpenWiring, pairs: Batch) -> None:
    wiring = wiring_of("llama")
    scores = eap(wiring, pairs)
    graph = scores.to_graph()
    assert graph.n_edges == wiring.n_edges
    kept = wiring.edge_mask([edge for edge, _ in scores.top(7)])
    table = scores.to_graph(kept).edge_table()
    assert set(zip(table["source"], table["target"], strict=True)) == {edge for edge, _ in scores.top(7)}
    assert graph.meta["method"] == "EAP"


def test_bad_input_is_refused(wiring_of: OpenWiring, pairs: Batch) -> None:
    wiring = wiring_of("native")
    with pytest.raises(UserError, match="batches is empty"):
        eap(wiring, [])
    with pytest.raises(UserError, match=r"quadrature 'middle' is not known.*midpoint"):
        eap_ig_inputs(wiring, pairs, rule="middle")
    with pytest.raises(UserError, match=r"max_bytes 100 is less than the \d+ bytes"):
        eap(wiring, pairs, max_bytes=100)
