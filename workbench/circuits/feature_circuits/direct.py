"""The model between sites: what a site or the metric gets by direct paths alone.

Every site's activation is held at a given value (a leaf), so what arrives at the target depends on each leaf
only along paths on which no other site lies. With dictionaries at attention, MLP and stream of every layer
these are the stop-gradient rules of the paper:

    attn_out l -> resid_post l       not through mlp_out l
    resid_post l-1 -> mlp_out l      not through attn_out l
    resid_post l-1 -> resid_post l   not through attn_out l or mlp_out l: the skip connection
    attn_out l -> mlp_out l          only where blocks are sequential

A half block without a dictionary is no node and lets paths through. Nothing is frozen inside: patterns and norm
scales are those of the values given.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Edit
from workbench.circuits.feature_circuits.codes import Seen
from workbench.circuits.feature_circuits.metrics import Metric
from workbench.circuits.feature_circuits.sites import FeatureSites, catching

Leaves = Mapping[int, Tensor]


def leaves_of(
    sites: FeatureSites, seen: Seen, target: int, prompt: Int[Tensor, " row"] | None = None
) -> dict[int, Tensor]:
    """Clean activations of the sites with a direct path to `target`, one row a prompt or as `prompt` says."""
    held = {index: seen.changes[index].clean.x for index in sites.upstream(target)}
    return {index: x if prompt is None else x[prompt] for index, x in held.items()}


def arriving(
    sites: FeatureSites, target: int, leaves: Leaves, embedded: Float[Tensor, "*batch pos d_model"]
) -> Float[Tensor, "*batch pos d_model"]:
    """The activation of site `target` when the sites before it hold the leaves. Status: exact.

    Args:
        sites: The dictionaries.
        target: Number of the site.
        leaves: Activation of each site of `sites.upstream(target)`.
        embedded: The stream at depth 0, used where no site of the stream comes before.
    """
    site, caught = sites[target].site, list[Tensor]()
    start, x, edits = _origin(sites, leaves, embedded)
    if site.is_stream:
        return sites.anatomy.run(x, start=start, stop=site.depth, edits=edits)
    sites.anatomy.run(x, start=start, stop=site.depth, edits={**edits, site.hook: catching(caught)})
    return caught[0]


def measured(
    sites: FeatureSites, metric: Metric, leaves: Leaves, embedded: Float[Tensor, "*batch pos d_model"]
) -> Float[Tensor, "*prompts"]:
    """The metric when the sites before it hold the leaves. Status: exact."""
    start, x, edits = _origin(sites, leaves, embedded)
    return metric(sites.anatomy.run(x, start=start, stop=metric.stop, edits=edits))


def _origin(sites: FeatureSites, leaves: Leaves, embedded: Tensor) -> tuple[int, Tensor, dict[str, Edit]]:
    """Where the run starts, from which stream, and the writes that it holds."""
    edits: dict[str, Edit] = {}
    start, x = 0, embedded
    for index, leaf in leaves.items():
        site = sites[index].site
        if site.is_stream:
            start, x = site.depth, leaf
        elif site.depth == 0:
            x = leaf + sites.position_part(leaf.shape[-2])
        else:
            edits[site.hook] = _constant(leaf)
    return start, x, edits


def _constant(leaf: Tensor) -> Edit:
    return lambda _: leaf


def gradients(
    out: Tensor, leaves: Leaves, upstream_gradient: Tensor
) -> dict[int, Float[Tensor, "*batch pos d_model"]]:
    """upstream_gradient . d out / d leaf for each leaf that `out` depends on. Status: exact."""
    if not out.requires_grad:
        return {}
    found = torch.autograd.grad(out, list(leaves.values()), upstream_gradient, allow_unused=True)
    return {index: g for index, g in zip(leaves, found, strict=True) if g is not None}
