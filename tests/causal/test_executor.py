"""Re-running from the residual stream is the model itself, and is refused where it would not be."""

from __future__ import annotations

import torch

from tests.causal.conftest import random_batch, rounding
from workbench.anatomy import Anatomy, self_check
from workbench.circuits.metric import logit_difference, metric_of_streams
from workbench.circuits.nodes import Node, component_nodes
from workbench.circuits.observation import activations, observe
from workbench.circuits.patching import patch_components


def test_the_anatomy_computes_what_the_bridge_computes(anatomy: Anatomy) -> None:
    assert self_check(anatomy, random_batch().clean) < rounding(anatomy)


def test_last_logits_from_every_depth_equal_the_whole_model(anatomy: Anatomy) -> None:
    ids = random_batch().clean
    wanted = anatomy.model(ids, return_type="logits")[:, -1]
    for depth, stream in enumerate(activations(anatomy, ids).resid):
        torch.testing.assert_close(anatomy.last_logits(stream, depth), wanted, rtol=0, atol=rounding(anatomy))


def test_patching_the_embedding_gives_the_counterfactual(anatomy: Anatomy) -> None:
    seen = observe(anatomy, random_batch())
    effect = patch_components(anatomy, seen, [Node("embed")])[0]
    torch.testing.assert_close(
        effect, seen.clean_logits - seen.counterfactual_logits, rtol=0, atol=rounding(anatomy)
    )


def test_patched_heads_and_mlps_equal_hooks_on_the_whole_model(anatomy: Anatomy) -> None:
    """The additive patch against TransformerLens' own hooks, which replace the value in a full run."""
    batch = random_batch()
    seen = observe(anatomy, batch)
    nodes = [node for node in component_nodes(anatomy.model) if node.kind != "embed"]
    found = patch_components(anatomy, seen, nodes)
    for node, effect in zip(nodes, found, strict=True):
        metric = logit_difference(_hooked_logits(anatomy, batch, node), batch)
        torch.testing.assert_close(effect, seen.clean_logits - metric, rtol=0, atol=rounding(anatomy))


def _hooked_logits(anatomy: Anatomy, batch, node: Node) -> torch.Tensor:
    model = anatomy.model
    name = f"blocks.{node.layer}." + ("attn.hook_z" if node.kind == "head" else "hook_mlp_out")
    _, cache = model.run_with_cache(batch.counterfactual, names_filter=[name])
    other = cache[name].clone()

    def replace(value, hook):
        if node.kind == "mlp":
            return other
        value = value.clone()
        value[:, :, node.head] = other[:, :, node.head]
        return value

    return model.run_with_hooks(batch.clean, fwd_hooks=[(name, replace)], return_type="logits")[:, -1]


def test_several_streams_at_once_equal_one_at_a_time(native: Anatomy) -> None:
    batch = random_batch()
    streams = torch.stack([native.embed(batch.clean), native.embed(batch.counterfactual)])
    both = metric_of_streams(native, streams, 0, batch)
    single = torch.cat([metric_of_streams(native, s[None], 0, batch) for s in streams])
    torch.testing.assert_close(both, single, rtol=0, atol=1e-12)
