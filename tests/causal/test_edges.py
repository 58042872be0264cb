"""Writer -> feature edges conserve: all writers together are the whole change of the pre-activation."""

from __future__ import annotations

import pytest
import torch

from tests.causal.conftest import random_batch, tiny_dictionary
from workbench.anatomy import Anatomy
from workbench.circuits import edges
from workbench.circuits.edges import active_positions, writer_contributions, writer_nodes
from workbench.circuits.nodes import component_nodes, site_of_hook
from workbench.circuits.observation import observe
from workbench.circuits.split import activation_at, active_features, split_pair


def conservation_gap(anatomy: Anatomy, hook: str) -> float:
    """Largest difference between the writers' sum and the change of the pre-activation, over its size."""
    seen, site = observe(anatomy, random_batch()), site_of_hook(anatomy.model, hook)
    dictionary = tiny_dictionary(int(anatomy.model.cfg.d_model), hook=hook)
    split = split_pair(dictionary, seen, site)
    features = active_features([split]).tolist()
    writers = writer_nodes(component_nodes(anatomy.model), site)
    parts = writer_contributions(anatomy, seen, split, dictionary, writers=writers, features=features)
    before = [
        (activation_at(a, site) - dictionary.b_dec) @ dictionary.W_enc[:, features]
        + dictionary.b_enc[features]
        for a in (seen.clean, seen.counterfactual)
    ]
    change = ((before[0] - before[1]) * active_positions(split, features)).sum(1).T
    return float((parts.sum(0) - change).abs().max() / change.abs().max())


@pytest.mark.parametrize(
    "hook", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
)
def test_writers_sum_to_the_pre_activation(anatomy: Anatomy, hook: str) -> None:
    assert conservation_gap(anatomy, hook) < 1e-9


def test_a_forgotten_writer_is_noticed(native: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    right = edges.write_change
    monkeypatch.setattr(
        edges, "write_change", lambda e, s, node: right(e, s, node) * (0 if node.node_id == "a0.h1" else 1)
    )
    assert conservation_gap(native, "blocks.1.hook_resid_post") > 1e-3


def test_a_block_output_has_no_stream_of_writers(native: Anatomy) -> None:
    site = site_of_hook(native.model, "blocks.0.hook_mlp_out")
    assert writer_nodes(component_nodes(native.model), site) == ()
    assert torch.tensor(site.depth) == 2
