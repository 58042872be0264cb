"""Re-running from the residual stream is the model itself, and is refused where it would not be."""

from __future__ import annotations

import pytest
import torch

from tests.causal.conftest import native_model, random_batch
from workbench.circuits.executor import TOLERANCE, Executor
from workbench.circuits.metric import logit_difference, metric_of_streams
from workbench.circuits.nodes import Node, component_nodes
from workbench.circuits.observation import observe
from workbench.circuits.patching import patch_components
from workbench.errors import UserError


def test_a_null_edit_at_any_depth_leaves_the_logits(executor: Executor) -> None:
    assert executor.self_check(random_batch().clean) < TOLERANCE


def test_last_logits_from_every_depth_equal_the_whole_model(executor: Executor) -> None:
    ids = random_batch().clean
    wanted = executor.model(ids, return_type="logits")[:, -1]
    for depth, stream in enumerate(executor.observe(ids).resid):
        torch.testing.assert_close(executor.last_logits(stream, depth), wanted, rtol=0, atol=1e-9)


def test_patching_the_embedding_gives_the_counterfactual(executor: Executor) -> None:
    seen = observe(executor, random_batch())
    effect = patch_components(executor, seen, [Node("embed")])[0]
    torch.testing.assert_close(effect, seen.clean_logits - seen.counterfactual_logits, rtol=0, atol=1e-9)


def test_patched_heads_and_mlps_equal_hooks_on_the_whole_model(executor: Executor) -> None:
    """The additive patch against TransformerLens' own hooks, which replace the value in a full run."""
    batch = random_batch()
    seen = observe(executor, batch)
    nodes = [node for node in component_nodes(executor.model) if node.kind != "embed"]
    found = patch_components(executor, seen, nodes)
    for node, effect in zip(nodes, found, strict=True):
        metric = logit_difference(_hooked_logits(executor, batch, node), batch)
        torch.testing.assert_close(effect, seen.clean_logits - metric, rtol=0, atol=1e-9)


def _hooked_logits(executor: Executor, batch, node: Node) -> torch.Tensor:
    model = executor.model
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


def test_several_streams_at_once_equal_one_at_a_time(native: Executor) -> None:
    batch = random_batch()
    streams = torch.stack([native.embed(batch.clean), native.embed(batch.counterfactual)])
    both = metric_of_streams(native, streams, 0, batch)
    single = torch.cat([metric_of_streams(native, s[None], 0, batch) for s in streams])
    torch.testing.assert_close(both, single, rtol=0, atol=1e-12)


def test_a_block_that_is_not_sequential_is_refused(native: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the executor's block by a parallel one: its own check must see that this is another model."""

    def parallel(self: Executor, x: torch.Tensor, depth: int) -> torch.Tensor:
        block = self.model.blocks[depth // 2]
        if depth % 2:
            return x
        return x + block.attn(block.ln1(x))[0] + block.mlp(block.ln2(x))

    monkeypatch.setattr(Executor, "step", parallel)
    with pytest.raises(
        UserError, match=r"cannot be re-run from the residual stream: at .* null edit changes"
    ):
        native.self_check(random_batch().clean)


def test_heads_that_do_not_sum_to_the_attention_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor(native_model())
    right = Executor.head_matrix
    monkeypatch.setattr(Executor, "head_matrix", lambda self, layer: right(self, layer).flip(0))
    with pytest.raises(UserError, match="at heads of block"):
        executor.self_check(random_batch().clean)
