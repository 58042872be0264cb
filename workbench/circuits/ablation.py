"""Mean ablation of whole sets of nodes, many sets in one batch.

A set is what is kept; every other node of the ablated kind takes its mean over reference prompts,
position by position among prompts of the same length. Kept nodes are recomputed live, with ablated nodes
upstream of them; nothing is frozen. The embedding is always kept.

`ablate_components` ablates heads (their z) and MLPs (their output). `ablate_features` ablates features of
a dictionary at its hook, and the error node too when it is not kept; blocks before the hook are untouched.

Source of the protocol: Wang et al. 2022, arXiv:2211.00593; for features Marks et al. 2024, arXiv:2403.19647.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.metric import logit_difference, metric_of_streams
from workbench.circuits.nodes import Node, Site
from workbench.circuits.observation import Activations
from workbench.circuits.split import Codes, activation_at, encode_prompts, written_rows
from workbench.dictionaries import Dictionary
from workbench.progress import Progress
from workbench.tasks import Batch

MAX_TOKENS = 8192


@dataclass(frozen=True)
class ComponentMeans:
    """Mean outputs over reference prompts of one length.

    Attributes:
        z: Per layer (pos, head_index, d_head).
        mlp: Per layer (pos, d_model); empty for attention-only models.
    """

    z: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...]


def component_means(anatomy: Anatomy, seen: Activations) -> ComponentMeans:
    """Positional means of heads and MLPs."""
    written = seen.mlp_out if anatomy.has_mlp else ()
    return ComponentMeans(tuple(z.mean(0) for z in seen.z), tuple(w.mean(0) for w in written))


@torch.no_grad()
def ablate_components(
    anatomy: Anatomy,
    batch: Batch,
    means: ComponentMeans,
    kept: Sequence[frozenset[Node]],
    *,
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> Float[Tensor, "set prompt"]:
    """m, in logits, of the clean prompts with every head and MLP outside each kept set mean-ablated.

    Status: exact. Keeping all nodes gives the model's own logit difference (tests/causal/test_ablation.py).
    """
    embedded = anatomy.embed(batch.clean)
    width = max(1, max_tokens // embedded[..., 0].numel())
    metrics = []
    for start in range(0, len(kept), width):
        chunk = kept[start : start + width]
        metrics.append(_run_kept(anatomy, batch, means, embedded, chunk))
        if progress is not None:
            progress.advance(len(chunk))
    return torch.cat(metrics)


def _run_kept(
    anatomy: Anatomy, batch: Batch, means: ComponentMeans, embedded: Tensor, kept: Sequence[frozenset[Node]]
) -> Tensor:
    """One forward pass with the sets side by side in a leading axis."""
    edits: dict[str, Callable[[Tensor], Tensor]] = {}
    for layer in range(anatomy.n_layers):
        heads = [[Node("head", layer, h) in s for h in range(anatomy.n_heads)] for s in kept]
        keep = torch.tensor(heads, device=embedded.device)[:, None, None, :, None]
        edits[f"blocks.{layer}.attn.hook_z"] = _keep(keep, means.z[layer])
        if means.mlp:
            mlps = torch.tensor([Node("mlp", layer) in s for s in kept], device=embedded.device)
            edits[f"blocks.{layer}.hook_mlp_out"] = _keep(mlps[:, None, None, None], means.mlp[layer])
    streams = embedded.expand(len(kept), *embedded.shape)
    return logit_difference(anatomy.last_logits(streams, 0, edits), batch)


def _keep(keep: Bool[Tensor, ...], mean: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda live: torch.where(keep, live, mean)


@dataclass(frozen=True)
class FeatureMeans:
    """Mean activation of each feature and mean error over reference prompts of one length.

    Attributes:
        values: One row a position, zero for features that never fired (pos, d_sae).
        error: (pos, d_model).
    """

    values: Float[Tensor, "pos d_sae"]
    error: Float[Tensor, "pos d_model"]


def feature_means(codes: Codes, d_sae: int) -> FeatureMeans:
    """Positional means of the features and of the error."""
    n_prompts, n_pos, _ = codes.values.shape
    total = codes.values.new_zeros(n_pos, d_sae)
    position = torch.arange(n_pos, device=total.device)[None, :, None].expand_as(codes.indices)
    total.index_put_((position, codes.indices), codes.values, accumulate=True)
    return FeatureMeans(total / n_prompts, codes.error.mean(0))


def codes_at(dictionary: Dictionary, seen: Activations, site: Site) -> Codes:
    """Features and error of a batch of prompts at the dictionary's hook."""
    return encode_prompts(dictionary, activation_at(seen, site))


@torch.no_grad()
def ablate_features(
    anatomy: Anatomy,
    batch: Batch,
    seen: Activations,
    means: FeatureMeans,
    dictionary: Dictionary,
    kept: Sequence[Bool[Tensor, " d_sae"]],
    *,
    keep_error: Sequence[bool],
    site: Site,
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> Float[Tensor, "set prompt"]:
    """m, in logits, of the clean prompts with every feature outside each kept set mean-ablated.

    Args:
        anatomy: The model.
        batch: The pairs; only their clean prompts are run.
        seen: Activations of the clean prompts.
        means: What ablated nodes become.
        dictionary: Splits the activation at `site`.
        kept: Features of each set.
        keep_error: Whether each set keeps the error node.
        site: Where the dictionary's hook lies.
        max_tokens: Largest number of tokens in one forward pass.
        progress: Advanced by one a set.

    Status: exact. Keeping all features and the error gives the model's own logit difference.
    """
    codes, base = codes_at(dictionary, seen, site), seen.resid[site.depth]
    error_change = means.error - codes.error
    width = max(1, max_tokens // base[..., 0].numel())
    metrics = []
    for start in range(0, len(kept), width):
        here = slice(start, start + width)
        streams = [
            base + ablation_change(codes, means, dictionary, keep) + (0 if with_error else error_change)
            for keep, with_error in zip(kept[here], keep_error[here], strict=True)
        ]
        metrics.append(metric_of_streams(anatomy, torch.stack(streams), site.depth, batch))
        if progress is not None:
            progress.advance(len(streams))
    return torch.cat(metrics)


def ablation_change(
    codes: Codes, means: FeatureMeans, dictionary: Dictionary, keep: Bool[Tensor, " d_sae"]
) -> Float[Tensor, "prompt pos d_model"]:
    """What is added to the activation: (mean - live) decoder rows of the features that are not kept."""
    ablated = means.values.masked_fill(keep, 0) @ dictionary.W_dec
    return ablated - written_rows(dictionary.W_dec, codes, codes.values.masked_fill(keep[codes.indices], 0))
