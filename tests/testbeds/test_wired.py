"""Planted-feature models: they compute their network, and the true features and wires are those with an effect."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.testbeds.edge_patching import edge_effects
from workbench.errors import UserError
from workbench.hooks import capture_forward
from workbench.testbeds import TestBed, make_testbed, wired
from workbench.testbeds.plain import difference, plain
from workbench.testbeds.truth import edges_of, nodes_of

N_PAIRS = 100
NETWORKS = {"moved": wired.moved_network, "tower": wired.tower_network}


def coded(dictionary: Any, x: Tensor) -> Tensor:
    """Dense codes (prompt, pos, latent)."""
    indices, values = dictionary.encode(x.flatten(0, 1))
    dense = x.new_zeros(len(values), dictionary.d_sae).scatter_add_(1, indices, values)
    return dense.unflatten(0, x.shape[:2])


def codes(bed: TestBed, ids: Tensor) -> dict[str, Tensor]:
    seen = capture_forward(bed.model, ids, list(bed.dictionaries))
    return {hook: coded(d, seen[hook]) for hook, d in bed.dictionaries.items()}


class Probe:
    """The logit difference of a bed's clean prompts, and how far additions at hooks change it."""

    def __init__(self, bed: TestBed) -> None:
        self.model, self.batch = bed.model, bed.batch(N_PAIRS, 1)
        self.clean = difference(self.model(self.batch.clean, return_type="logits")[:, -1], self.batch)

    def effect(self, hook: str, added: Tensor) -> float:
        logits = self.model.run_with_hooks(
            self.batch.clean, fwd_hooks=[(hook, lambda x, hook: x + added)], return_type="logits"
        )
        return float((self.clean - difference(logits[:, -1], self.batch)).abs().max())


def changes(bed: TestBed) -> dict[str, Tensor]:
    """Counterfactual minus clean features, by hook."""
    batch = bed.batch(N_PAIRS, 1)
    clean, other = codes(bed, batch.clean), codes(bed, batch.counterfactual)
    return {hook: other[hook] - clean[hook] for hook in clean}


def nodes_with_effect(bed: TestBed) -> set[Any]:
    """Features whose exchange for the counterfactual value changes the answer."""
    found, probe = set(), Probe(bed)
    for hook, change in changes(bed).items():
        dictionary = bed.dictionaries[hook]
        for latent in range(dictionary.d_sae) if not dictionary.is_transcoder else ():
            added = change[..., latent, None] * dictionary.W_dec[latent]
            if probe.effect(hook, added) > 1e-3:
                found.add((hook, latent))
    return found


def edges_with_effect(bed: TestBed) -> set[Any]:
    """Wires into MLPs, patched one by one in the model; those of a head are copies and need no patching."""
    found, moved, weights, probe = set(), changes(bed), plain(bed.model).weights, Probe(bed)
    writers = [d for d in bed.dictionaries.values() if not d.is_transcoder]
    for layer, writer in itertools.product(range(bed.model.cfg.n_layers), writers):
        if writer.hook_name != "hook_embed" and writer.hook_name >= f"blocks.{layer}.hook_mlp_out":
            continue
        gains = writer.W_dec @ weights[f"layers.{layer}.mlp.fc_in.weight"].T
        for i, j in (gains.abs() > 1e-5).nonzero().tolist():
            added = torch.zeros(*moved[writer.hook_name].shape[:2], bed.model.cfg.d_mlp)
            added[..., j] = moved[writer.hook_name][..., i] * gains[i, j]
            if probe.effect(f"blocks.{layer}.mlp.hook_pre", added) > 1e-3:
                found.add(((writer.hook_name, i), (f"blocks.{layer}.hook_mlp_out", j)))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_model_computes_the_network(name: str) -> None:
    bed, network = make_testbed(f"wired.{name}", seed=3), NETWORKS[name](3)
    ids = bed.batch(40, 0).clean
    torch.testing.assert_close(bed.model(ids, return_type="logits")[:, -1], network.logits(ids))
    found, wanted = codes(bed, ids), network.simulate(ids)
    for hook in {network.hook_of(group) for group in network.sizes}:
        features = torch.cat([wanted[group] for group in network.groups_at(hook)], -1)
        torch.testing.assert_close(found[hook][:, 2:], features[:, 2:], rtol=0.0, atol=3e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_dictionaries_reconstruct_their_hooks(name: str) -> None:
    bed = make_testbed(f"wired.{name}")
    ids = bed.batch(20, 0).clean
    for hook, dictionary in bed.dictionaries.items():
        target = dictionary.hook_name_out or hook
        seen = capture_forward(bed.model, ids, list({hook, target}))
        rebuilt = dictionary.reconstruct(seen[hook].flatten(0, 1))
        torch.testing.assert_close(rebuilt, seen[target].flatten(0, 1), rtol=0.0, atol=1e-3)
        if dictionary.is_transcoder:
            same = coded(bed.dictionaries[target], seen[target])
            torch.testing.assert_close(coded(dictionary, seen[hook]), same, rtol=0.0, atol=3e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_true_features_and_wires_are_those_with_an_effect(name: str) -> None:
    """Exactly these, so that a truth with one feature or wire more or less fails."""
    bed = make_testbed(f"wired.{name}")
    assert bed.feature_edges is not None
    assert nodes_with_effect(bed) == bed.feature_nodes
    into_mlps = {edge for edge in bed.feature_edges if edge[1][0].endswith("mlp_out")}
    assert edges_with_effect(bed) == into_mlps
    assert len(into_mlps) > 20


def test_a_cut_wire_is_found() -> None:
    """A model without one of the wires has other edges."""
    bed = make_testbed("wired.tower")
    assert bed.feature_edges is not None
    cut = min(edge for edge in bed.feature_edges if edge[0][0] == "hook_embed")
    direction = bed.dictionaries["hook_embed"].W_dec[cut[0][1]]
    row = plain(bed.model).weights[f"layers.{cut[1][0].split('.')[1]}.mlp.fc_in.weight"][cut[1][1]]
    row -= (row @ direction) * direction
    assert bed.feature_edges - edges_with_effect(bed) >= {cut}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_truth_is_a_part_of_the_wiring(name: str, seed: int) -> None:
    bed = make_testbed(f"wired.{name}", seed=seed)
    assert bed.feature_edges is not None
    assert bed.feature_wiring is not None
    assert bed.feature_nodes == {feature for edge in bed.feature_edges for feature in edge}
    assert bed.feature_edges < bed.feature_wiring
    assert bed.accuracy_frac(n_pairs=100, seed=seed) == 1.0


@pytest.mark.parametrize("name", NETWORKS)
def test_components_are_those_that_carry(name: str) -> None:
    bed = make_testbed(f"wired.{name}")
    assert bed.edges is not None
    effects = edge_effects(bed.model, bed.batch(60, 1), edges_of(bed.model))
    assert {edge for edge, effect in effects.items() if float(effect.abs().max()) > 1e-3} == bed.edges
    assert bed.nodes == nodes_of(bed.edges)


def test_overlap_makes_features_interfere() -> None:
    plain, turned = make_testbed("wired.moved"), make_testbed("wired.moved", overlap=0.5)
    cross = [bed.dictionaries["hook_embed"].W_dec for bed in (plain, turned)]
    seen = [float((W @ W.T - torch.eye(len(W))).abs().max()) for W in cross]
    assert seen[0] < 1e-5
    assert 0.05 < seen[1] < 0.9
    assert turned.accuracy_frac(n_pairs=50) > 0.5
    with pytest.raises(UserError, match=r"overlap -1\.0 is negative"):
        make_testbed("wired.moved", overlap=-1.0)
