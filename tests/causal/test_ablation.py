"""Whole and empty circuits score 1 and 0; a hand-made circuit is found, faithful, complete, above random."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.causal.conftest import random_batch, rounding, tiny_dictionary
from tests.causal.handmade import CIRCUIT, handmade_batch, handmade_model
from workbench.anatomy import Anatomy, open_anatomy
from workbench.circuits import faithfulness as scores
from workbench.circuits.ablation import (
    ablate_components,
    ablate_features,
    codes_at,
    component_means,
    feature_means,
)
from workbench.circuits.faithfulness import faithfulness, random_sets
from workbench.circuits.metric import logit_difference
from workbench.circuits.nodes import Node, component_nodes, covering, site_of_hook
from workbench.circuits.observation import activations, observe
from workbench.circuits.patching import patch_components
from workbench.intervals import Estimate

HOOK = "blocks.0.hook_resid_post"


def parts(anatomy: Anatomy) -> list[Node]:
    return [node for node in component_nodes(anatomy.model) if node.kind != "embed"]


def component_metrics(anatomy: Anatomy, kept: list[frozenset[Node]], batch=None) -> np.ndarray:
    batch = random_batch() if batch is None else batch
    means = component_means(anatomy, activations(anatomy, batch.counterfactual))
    return ablate_components(anatomy, batch, means, kept).numpy()


def test_keeping_every_component_is_the_model(anatomy: Anatomy) -> None:
    batch = random_batch()
    wanted = logit_difference(anatomy.model(batch.clean, return_type="logits")[:, -1], batch)
    found = component_metrics(anatomy, [frozenset(parts(anatomy))])[0]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=rounding(anatomy))


def test_ablated_component_equals_a_hooked_run(native: Anatomy) -> None:
    """One ablated head against TransformerLens' own hook on the whole model."""
    batch, head = random_batch(), Node("head", 1, 2)
    mean = activations(native, batch.counterfactual).z[1].mean(0)[:, 2]

    def edit(z, hook):
        z = z.clone()
        z[:, :, 2] = mean
        return z

    logits = native.model.run_with_hooks(
        batch.clean, fwd_hooks=[("blocks.1.attn.hook_z", edit)], return_type="logits"
    )
    found = component_metrics(native, [frozenset(parts(native)) - {head}])[0]
    np.testing.assert_allclose(found, logit_difference(logits[:, -1], batch).numpy(), rtol=0, atol=1e-9)


def feature_metrics(anatomy: Anatomy, masks: list[torch.Tensor], keep_error: list[bool]) -> np.ndarray:
    batch, site = random_batch(), site_of_hook(anatomy.model, HOOK)
    dictionary = tiny_dictionary(int(anatomy.model.cfg.d_model), hook=HOOK)
    means = feature_means(
        codes_at(dictionary, activations(anatomy, batch.counterfactual), site), dictionary.d_sae
    )
    seen = activations(anatomy, batch.clean)
    found = ablate_features(anatomy, batch, seen, means, dictionary, masks, keep_error=keep_error, site=site)
    return found.numpy()


def test_keeping_every_feature_and_the_error_is_the_model(anatomy: Anatomy) -> None:
    batch = random_batch()
    wanted = logit_difference(anatomy.model(batch.clean, return_type="logits")[:, -1], batch)
    found = feature_metrics(anatomy, [torch.ones(40, dtype=torch.bool)], [True])[0]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=rounding(anatomy))


def test_ablating_every_feature_and_the_error_is_the_mean_activation(native: Anatomy) -> None:
    """With nothing kept the stream is its own mean over the counterfactuals at every position."""
    batch, site = random_batch(), site_of_hook(native.model, HOOK)
    mean = activations(native, batch.counterfactual).resid[site.depth].mean(0)
    streams = mean.expand(len(batch.answer), *mean.shape).contiguous()
    wanted = logit_difference(native.last_logits(streams, site.depth), batch)
    found = feature_metrics(native, [torch.zeros(40, dtype=torch.bool)], [False])[0]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def handmade() -> Anatomy:
    return open_anatomy(handmade_model())


def test_the_handmade_model_solves_its_task(handmade: Anatomy) -> None:
    batch = handmade_batch()
    logits = handmade.model(batch.clean, return_type="logits")[:, -1]
    assert (logits.argmax(-1) == batch.answer).all()


def test_the_whole_model_scores_one_and_nothing_zero(handmade: Anatomy) -> None:
    nodes = frozenset(parts(handmade))
    full, empty = component_metrics(handmade, [nodes, frozenset()], handmade_batch())
    assert faithfulness(full, full=full, empty=empty) == Estimate(1.0, 1.0, 1.0)
    assert faithfulness(empty, full=full, empty=empty) == Estimate(0.0, 0.0, 0.0)


def test_the_handmade_circuit_is_traced_exactly(handmade: Anatomy) -> None:
    nodes = parts(handmade)
    effects = patch_components(handmade, observe(handmade, handmade_batch()), nodes).mean(1).tolist()
    assert frozenset(nodes[i] for i in covering(effects, coverage_frac=0.9)) == CIRCUIT


def held_out_scores(anatomy: Anatomy, circuit: frozenset[Node]) -> tuple[float, float, list[float]]:
    """Faithfulness of a circuit and of its complement, and of 40 random sets, on other prompts."""
    nodes, batch = parts(anatomy), handmade_batch(n_pairs=60, seed=1)
    drawn = random_sets(sorted(circuit), nodes, n_sets=40, seed=0)
    everything = frozenset(nodes)
    metrics = component_metrics(
        anatomy, [everything, frozenset(), circuit, everything - circuit, *drawn], batch
    )
    full, empty, *others = metrics
    found = [scores.faithfulness(m, full=full, empty=empty).value for m in others]
    return found[0], found[1], [f for f, s in zip(found[2:], drawn, strict=True) if s != circuit]


def test_the_handmade_circuit_is_faithful_complete_and_above_random(handmade: Anatomy) -> None:
    circuit, complement, drawn = held_out_scores(handmade, CIRCUIT)
    assert circuit == pytest.approx(1, abs=0.05)
    assert complement == pytest.approx(0, abs=0.05)
    assert len(drawn) > 20
    assert max(drawn) < 0.2


def test_half_of_the_circuit_fails_the_same_check(handmade: Anatomy) -> None:
    circuit, complement, _ = held_out_scores(handmade, frozenset({Node("head", 0, 1), Node("head", 1, 0)}))
    assert circuit < 0.2
    assert complement < 0.2, "either head alone does nothing"


def test_shuffled_node_labels_break_the_circuit(handmade: Anatomy) -> None:
    """The check itself can fail: with effects given to the wrong nodes the traced set is not faithful."""
    nodes = parts(handmade)
    effects = patch_components(handmade, observe(handmade, handmade_batch()), nodes).mean(1)
    moved = effects.roll(1).tolist()
    wrong = frozenset(nodes[i] for i in covering(moved, coverage_frac=0.9))
    assert held_out_scores(handmade, wrong)[0] < 0.2


def test_random_sets_match_sizes_within_kind(native: Anatomy) -> None:
    nodes = parts(native)
    chosen = [Node("head", 0, 1), Node("head", 1, 3), Node("mlp", 1)]
    for one in random_sets(chosen, nodes, n_sets=10, seed=0):
        assert sorted(node.kind for node in one) == ["head", "head", "mlp"]
    assert random_sets(chosen, nodes, n_sets=10, seed=0) == random_sets(chosen, nodes, n_sets=10, seed=0)


def test_an_ablation_that_does_no_harm_gives_no_ratio() -> None:
    rng = np.random.default_rng(0)
    full, empty = rng.normal(size=30), rng.normal(size=30)
    assert np.isnan(faithfulness(full, full=full, empty=empty).value)


def test_a_model_that_prefers_the_wrong_answer_has_no_ratio() -> None:
    """Ablation raises the metric: a set that keeps the mistake would score 1 without the rule."""
    full, empty = np.full(30, -2.0), np.zeros(30)
    assert np.isnan(faithfulness(full, full=full, empty=empty).value)
