"""One batch of pairs, seen once: streams, head outputs and metric of both prompts, gradients at the clean one.

Everything that attribution and patching need is read here in two forward passes and one backward pass.
The gradient is taken with respect to the residual stream at every depth; a node that writes w at depth d
has the gradient of that depth, because its write is added to the stream there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.executor import Activations, Executor
from workbench.circuits.metric import logit_difference
from workbench.circuits.nodes import Node, component_depth
from workbench.tasks import Batch


@dataclass(frozen=True)
class Observation:
    """Both prompts of a batch of pairs, unedited.

    Attributes:
        batch: The pairs.
        clean: Activations of the clean prompts.
        counterfactual: Activations of the counterfactual prompts.
        gradients: dm/d(stream) at each depth at the clean prompts, each (prompt, pos, d_model).
        clean_logits: m of the clean prompts (prompt).
        counterfactual_logits: m, with the clean pair's answers, of the counterfactual prompts (prompt).
    """

    batch: Batch
    clean: Activations
    counterfactual: Activations
    gradients: tuple[Tensor, ...]
    clean_logits: Float[Tensor, " prompt"]
    counterfactual_logits: Float[Tensor, " prompt"]


def observe(executor: Executor, batch: Batch) -> Observation:
    """Run both prompts of every pair. Status: exact."""
    return observe_streams(executor, batch, executor.embed(batch.clean), executor.embed(batch.counterfactual))


def observe_streams(
    executor: Executor,
    batch: Batch,
    clean: Float[Tensor, "prompt pos d_model"],
    counterfactual: Float[Tensor, "prompt pos d_model"],
) -> Observation:
    """The same from two streams at depth 0, for pairs that differ by any change of the embeddings."""
    old, new = executor.observe_from(clean), executor.observe_from(counterfactual)
    gradients, clean_logits = stream_gradients(executor, clean, batch)
    with torch.no_grad():
        other_logits = logit_difference(executor.last_logits(new.resid[-1], executor.last_depth), batch)
    return Observation(batch, old, new, gradients, clean_logits, other_logits)


def stream_gradients(
    executor: Executor, embedded: Float[Tensor, "prompt pos d_model"], batch: Batch
) -> tuple[tuple[Tensor, ...], Float[Tensor, " prompt"]]:
    """dm/d(stream) at every depth, and m, by one forward and one backward pass."""
    with torch.enable_grad():
        streams = [embedded.detach().clone().requires_grad_()]
        for depth in range(executor.last_depth):
            streams.append(executor.step(streams[-1], depth))
        metric = logit_difference(executor.last_logits(streams[-1], executor.last_depth), batch)
        gradients = torch.autograd.grad(metric.sum(), streams)
    return tuple(g.detach() for g in gradients), metric.detach()


def write_change(executor: Executor, seen: Observation, node: Node) -> Float[Tensor, "prompt pos d_model"]:
    """Counterfactual minus clean output of one component, as written to the stream. Status: exact."""
    old, new = seen.clean, seen.counterfactual
    depth = component_depth(node)
    if node.kind == "head":
        change = new.z[node.layer][:, :, node.head] - old.z[node.layer][:, :, node.head]
        return change @ executor.head_matrix(node.layer)[node.head]
    if node.kind == "embed":
        return new.resid[0] - old.resid[0]
    return (new.resid[depth] - new.resid[depth - 1]) - (old.resid[depth] - old.resid[depth - 1])
