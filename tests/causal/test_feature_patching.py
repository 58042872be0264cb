"""Features and error together are the activation: patching all of them is patching it."""

from __future__ import annotations

import pytest
import torch

from tests.causal.conftest import tiny_dictionary
from workbench.anatomy import Anatomy
from workbench.circuits.nodes import site_of_hook
from workbench.circuits.observation import Observation
from workbench.circuits.patching import patch_error, patch_features, patch_together, patch_writes
from workbench.circuits.split import Split, activation_at, active_features, split_pair, written_rows

HOOKS = (
    "blocks.0.hook_resid_post",
    "blocks.1.hook_resid_mid",
    "blocks.1.hook_attn_out",
    "blocks.0.hook_mlp_out",
)


def opened(native: Anatomy, seen: Observation, hook: str):
    site, dictionary = site_of_hook(native.model, hook), tiny_dictionary(16, hook=hook)
    return site, dictionary, split_pair(dictionary, seen, site)


@pytest.mark.parametrize("hook", HOOKS)
def test_all_features_and_the_error_are_the_activation(native: Anatomy, seen: Observation, hook: str) -> None:
    site, dictionary, split = opened(native, seen, hook)
    whole = activation_at(seen.counterfactual, site) - activation_at(seen.clean, site)
    parts = [
        sign * (written_rows(dictionary.W_dec, c, c.values) + c.error)
        for sign, c in ((1, split.counterfactual), (-1, split.clean))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole, rtol=0, atol=1e-9)
    together = patch_writes(native, seen, [lambda: parts[0] + parts[1]], depth=site.depth)
    exact = patch_writes(native, seen, [lambda: whole], depth=site.depth)
    torch.testing.assert_close(together, exact, rtol=0, atol=1e-9)


def test_the_whole_stream_patched_is_the_counterfactual(native: Anatomy, seen: Observation) -> None:
    site, dictionary, split = opened(native, seen, HOOKS[0])
    features = active_features([split])
    error = split.counterfactual.error - split.clean.error
    rows = [written_rows(dictionary.W_dec, c, c.values) for c in (split.counterfactual, split.clean)]
    effect = patch_writes(native, seen, [lambda: rows[0] - rows[1] + error], depth=site.depth)[0]
    torch.testing.assert_close(effect, seen.clean_logits - seen.counterfactual_logits, rtol=0, atol=1e-9)
    joint = patch_together(native, seen, split, dictionary, depth=site.depth, features=features)
    alone = patch_writes(native, seen, [lambda: rows[0] - rows[1]], depth=site.depth)[0]
    torch.testing.assert_close(joint, alone, rtol=0, atol=1e-9)
    assert (joint - effect).abs().max() > 1e-3, "without the error something must be missing"


def test_one_feature_patched_alone_equals_a_set_of_one(native: Anatomy, seen: Observation) -> None:
    site, dictionary, split = opened(native, seen, HOOKS[3])
    for feature in active_features([split])[:5].tolist():
        alone = patch_features(native, seen, split, dictionary, depth=site.depth, features=[feature])[0]
        chosen = torch.tensor([feature])
        joint = patch_together(native, seen, split, dictionary, depth=site.depth, features=chosen)
        torch.testing.assert_close(alone, joint, rtol=0, atol=1e-9)


def test_a_feature_with_its_own_clean_value_has_no_effect(native: Anatomy, seen: Observation) -> None:
    site, dictionary, split = opened(native, seen, HOOKS[0])
    same = Split(split.clean, split.clean)
    features = active_features([same]).tolist()
    effects = patch_features(native, seen, same, dictionary, depth=site.depth, features=features)
    assert effects.abs().max() < 1e-12
    assert patch_error(native, seen, same, depth=site.depth).abs().max() < 1e-12


def test_the_first_position_belongs_to_the_error(native: Anatomy, seen: Observation) -> None:
    site, dictionary, split = opened(native, seen, HOOKS[0])
    assert split.clean.values[:, 0].eq(0).all()
    expected = activation_at(seen.clean, site)[:, 0] - dictionary.b_dec
    torch.testing.assert_close(split.clean.error[:, 0], expected, rtol=0, atol=1e-12)
