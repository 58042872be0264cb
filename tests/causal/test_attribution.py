"""First-order effects equal exact ones for small changes, and the check notices a wrong sign."""

from __future__ import annotations

import pytest
import torch

from tests.causal.conftest import random_batch, tiny_dictionary
from workbench.circuits import attribution
from workbench.circuits.attribution import attribute_components, attribute_error, attribute_features
from workbench.circuits.executor import Executor
from workbench.circuits.nodes import component_nodes, site_of_hook
from workbench.circuits.observation import Observation, observe_streams
from workbench.circuits.patching import patch_components, patch_error, patch_features
from workbench.circuits.split import active_features, split_pair


def near_pair(executor: Executor, *, size: float) -> Observation:
    """Pairs whose counterfactual embedding differs from the clean one by a small part of a real change."""
    batch = random_batch()
    clean, other = executor.embed(batch.clean), executor.embed(batch.counterfactual)
    return observe_streams(executor, batch, clean, clean + size * (other - clean))


def relative_gap(predicted: torch.Tensor, exact: torch.Tensor) -> float:
    return float((predicted - exact).abs().max() / exact.abs().max())


def component_gap(executor: Executor, size: float) -> float:
    seen, nodes = near_pair(executor, size=size), component_nodes(executor.model)
    return relative_gap(attribute_components(executor, seen, nodes), patch_components(executor, seen, nodes))


def test_components_agree_in_the_linear_regime(executor: Executor) -> None:
    assert component_gap(executor, 1e-5) < 1e-3


def test_the_gap_is_of_second_order(native: Executor) -> None:
    """Halving the change halves the relative gap: what is left out is quadratic."""
    ratio = component_gap(native, 1e-3) / component_gap(native, 5e-4)
    assert 1.8 < ratio < 2.2


def test_a_wrong_sign_is_noticed(native: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    right = attribution.write_change
    monkeypatch.setattr(attribution, "write_change", lambda *arguments: -right(*arguments))
    assert component_gap(native, 1e-5) > 1


@pytest.mark.parametrize(
    "hook", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_mid", "blocks.0.hook_mlp_out"]
)
def test_features_and_error_agree_in_the_linear_regime(native: Executor, hook: str) -> None:
    seen, site = near_pair(native, size=1e-6), site_of_hook(native.model, hook)
    dictionary = tiny_dictionary(16, hook=hook)
    split = split_pair(dictionary, seen, site)
    features = active_features([split])
    predicted = attribute_features(seen, split, dictionary, depth=site.depth, features=features)
    exact = patch_features(native, seen, split, dictionary, depth=site.depth, features=features.tolist())
    assert relative_gap(predicted, exact) < 1e-3
    gap = relative_gap(
        attribute_error(seen, split, depth=site.depth), patch_error(native, seen, split, depth=site.depth)
    )
    assert gap < 1e-3


def test_features_and_error_sum_to_the_attribution_of_the_activation(native: Executor) -> None:
    """First-order effects are linear in the change, so the parts of an activation add up at any size."""
    hook = "blocks.0.hook_resid_post"
    seen, site = near_pair(native, size=1.0), site_of_hook(native.model, hook)
    dictionary = tiny_dictionary(16, hook=hook)
    split = split_pair(dictionary, seen, site)
    parts = attribute_features(
        seen, split, dictionary, depth=site.depth, features=active_features([split])
    ).sum(0)
    change = seen.clean.resid[site.depth] - seen.counterfactual.resid[site.depth]
    whole = (change * seen.gradients[site.depth]).sum((-2, -1))
    torch.testing.assert_close(
        parts + attribute_error(seen, split, depth=site.depth), whole, rtol=0, atol=1e-9
    )
