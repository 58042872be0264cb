"""First-order effects equal exact ones for small changes, and the check notices a wrong sign."""

from __future__ import annotations

import pytest
import torch

from tests.causal.conftest import random_batch, tiny_dictionary
from workbench.anatomy import Anatomy
from workbench.circuits import attribution
from workbench.circuits.attribution import attribute_components, attribute_error, attribute_features
from workbench.circuits.nodes import component_nodes, site_of_hook
from workbench.circuits.observation import Observation, observe_streams
from workbench.circuits.patching import patch_components, patch_error, patch_features
from workbench.circuits.split import active_features, split_pair


def near_pair(anatomy: Anatomy, *, size: float) -> Observation:
    """Pairs whose counterfactual embedding differs from the clean one by a small part of a real change."""
    batch = random_batch()
    clean, other = anatomy.embed(batch.clean), anatomy.embed(batch.counterfactual)
    return observe_streams(anatomy, batch, clean, clean + size * (other - clean))


def relative_gap(predicted: torch.Tensor, exact: torch.Tensor) -> float:
    return float((predicted - exact).abs().max() / exact.abs().max())


def component_gap(anatomy: Anatomy, size: float) -> float:
    seen, nodes = near_pair(anatomy, size=size), component_nodes(anatomy.model)
    return relative_gap(attribute_components(anatomy, seen, nodes), patch_components(anatomy, seen, nodes))


def test_components_agree_in_the_linear_regime(anatomy: Anatomy) -> None:
    assert component_gap(anatomy, 1e-5) < 1e-3


def test_the_gap_is_of_second_order(native: Anatomy) -> None:
    """Halving the change halves the relative gap: what is left out is quadratic."""
    ratio = component_gap(native, 1e-3) / component_gap(native, 5e-4)
    assert 1.8 < ratio < 2.2


def test_a_wrong_sign_is_noticed(native: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    right = attribution.linear_change
    monkeypatch.setattr(attribution, "linear_change", lambda *arguments: -right(*arguments))
    assert component_gap(native, 1e-5) > 1


@pytest.mark.parametrize(
    "hook", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_mid", "blocks.0.hook_mlp_out"]
)
def test_features_and_error_agree_in_the_linear_regime(native: Anatomy, hook: str) -> None:
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


def test_features_and_error_sum_to_the_attribution_of_the_activation(native: Anatomy) -> None:
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
