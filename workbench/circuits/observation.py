"""One batch of pairs, seen once: streams, head outputs and metric of both prompts, gradients at the clean one.

Everything that attribution and patching need is read here in two forward passes and one backward pass.
The gradient is taken with respect to the residual stream at every depth; a node that writes w at depth d
has the gradient of that depth, because its write is added to the stream there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, recorder
from workbench.circuits.metric import logit_difference
from workbench.circuits.nodes import Node
from workbench.tasks import Batch


@dataclass(frozen=True)
class Activations:
    """What the nodes are read from, for one batch of prompts of one length.

    Attributes:
        resid: Residual stream at every depth, 2 n_layers + 1 tensors (prompt, pos, d_model).
        z: Head outputs before W_O, n_layers tensors (prompt, pos, head_index, d_head).
        attn_out: What attention adds to the stream, post-norm included, n_layers tensors.
        mlp_out: What the MLP adds to the stream, n_layers tensors; zero for attention-only models.
    """

    resid: tuple[Tensor, ...]
    z: tuple[Tensor, ...]
    attn_out: tuple[Tensor, ...]
    mlp_out: tuple[Tensor, ...]


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


def activations(anatomy: Anatomy, ids: Int[Tensor, "prompt pos"]) -> Activations:
    """Streams and node outputs of unedited prompts. Status: exact."""
    return activations_from(anatomy, anatomy.embed(ids))


@torch.no_grad()
def activations_from(anatomy: Anatomy, embedded: Float[Tensor, "prompt pos d_model"]) -> Activations:
    """The same from a stream at depth 0."""
    seen, keep = recorder()
    layers = range(anatomy.n_layers)
    parts = ("attn.hook_z", "hook_attn_out", "hook_mlp_out")
    names = {part: [f"blocks.{layer}.{part}" for layer in layers] for part in parts}
    edits, resid = {name: keep(name) for part in parts for name in names[part]}, [embedded]
    for depth in range(anatomy.last_depth):
        resid.append(anatomy.step(resid[-1], depth, edits))
    none = torch.zeros_like(embedded)
    z, attn_out, mlp_out = (tuple(seen.get(name, none) for name in names[part]) for part in parts)
    return Activations(tuple(resid), z, attn_out, mlp_out)


def observe(anatomy: Anatomy, batch: Batch) -> Observation:
    """Run both prompts of every pair. Status: exact."""
    return observe_streams(anatomy, batch, anatomy.embed(batch.clean), anatomy.embed(batch.counterfactual))


def observe_streams(
    anatomy: Anatomy,
    batch: Batch,
    clean: Float[Tensor, "prompt pos d_model"],
    counterfactual: Float[Tensor, "prompt pos d_model"],
) -> Observation:
    """The same from two streams at depth 0, for pairs that differ by any change of the embeddings."""
    old, new = activations_from(anatomy, clean), activations_from(anatomy, counterfactual)
    gradients, clean_logits = stream_gradients(anatomy, clean, batch)
    with torch.no_grad():
        other_logits = logit_difference(anatomy.last_logits(new.resid[-1], anatomy.last_depth), batch)
    return Observation(batch, old, new, gradients, clean_logits, other_logits)


def stream_gradients(
    anatomy: Anatomy, embedded: Float[Tensor, "prompt pos d_model"], batch: Batch
) -> tuple[tuple[Tensor, ...], Float[Tensor, " prompt"]]:
    """dm/d(stream) at every depth, and m, by one forward and one backward pass."""
    with torch.enable_grad():
        streams = [embedded.detach().clone().requires_grad_()]
        for depth in range(anatomy.last_depth):
            streams.append(anatomy.step(streams[-1], depth))
        metric = logit_difference(anatomy.last_logits(streams[-1], anatomy.last_depth), batch)
        gradients = torch.autograd.grad(metric.sum(), streams)
    return tuple(g.detach() for g in gradients), metric.detach()


def write_change(anatomy: Anatomy, seen: Observation, node: Node) -> Float[Tensor, "prompt pos d_model"]:
    """Counterfactual minus clean output of one component, as its share of the stream. Status: exact.

    The share of a head in front of a post-norm is its output through W_O over the norm's scale on that
    prompt, so that shares sum to what attention adds, less constants.
    """
    old, new = seen.clean, seen.counterfactual
    if node.kind == "head":
        return head_share(anatomy, new, node) - head_share(anatomy, old, node)
    if node.kind == "embed":
        return new.resid[0] - old.resid[0]
    return new.mlp_out[node.layer] - old.mlp_out[node.layer]


def head_share(anatomy: Anatomy, seen: Activations, node: Node) -> Float[Tensor, "prompt pos d_model"]:
    """What one head adds to the stream, the scale of a post-norm taken as it is."""
    block, z = anatomy.blocks[node.layer], seen.z[node.layer]
    written = z[:, :, node.head] @ block.attn.W_O[node.head]
    if block.ln1_post.identity:
        return written
    return block.ln1_post.push(written, block.ln1_post.scale(block.attn.write(z)))


def linear_change(anatomy: Anatomy, seen: Observation, node: Node) -> Float[Tensor, "prompt pos d_model"]:
    """Change of the stream for one component, post-norms linearised at the clean prompt. Status: first-order."""
    block = anatomy.blocks[node.layer] if node.kind == "head" else None
    if block is None or block.ln1_post.identity:
        return write_change(anatomy, seen, node)
    z, other = seen.clean.z[node.layer], seen.counterfactual.z[node.layer]
    change = (other - z)[:, :, node.head] @ block.attn.W_O[node.head]
    return block.ln1_post.push_live(change, block.attn.write(z))


def patch_change(anatomy: Anatomy, seen: Observation, node: Node) -> Float[Tensor, "prompt pos d_model"]:
    """Change of the stream where one component takes its counterfactual value, post-norms live. Status: exact."""
    block = anatomy.blocks[node.layer] if node.kind == "head" else None
    if block is None or block.ln1_post.identity:
        return write_change(anatomy, seen, node)
    z = seen.clean.z[node.layer].clone()
    z[:, :, node.head] = seen.counterfactual.z[node.layer][:, :, node.head]
    return block.attn_out(z) - seen.clean.attn_out[node.layer]
