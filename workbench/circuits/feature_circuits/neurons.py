"""Coordinates of the same activations in place of features: the skyline of SHIFT.

The effect of a coordinate on a probe is its first-order one, gradient . (value - mean value), summed over positions
and averaged over texts; the largest are set to their mean at every position after the first.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Edit, Edits
from workbench.circuits.feature_circuits.codes import activation_gradients
from workbench.circuits.feature_circuits.effects import MAX_TOKENS
from workbench.circuits.feature_circuits.probe import Labelled, Probe
from workbench.circuits.feature_circuits.shift import named_edit, prompts_of
from workbench.circuits.feature_circuits.sites import FeatureSites, activations


def neuron_edits(sites: FeatureSites, probe: Probe, texts: Labelled, depth: int, n: int) -> Edits:
    """Edits that set the `n` coordinates of largest effect on the probe of the spurious label to their mean.

    Args:
        sites: Where coordinates are taken.
        probe: Of the spurious label.
        texts: Balanced ones.
        depth: That the probe reads.
        n: Number of coordinates over all sites.
    """
    effects, means = neuron_effects(sites, probe, texts, depth)
    best = effects.flatten().argsort(descending=True, stable=True)[:n]
    edits = dict[str, Edit]()
    for index, at in enumerate(sites):
        own = best[best // sites.anatomy.d_model == index] % sites.anatomy.d_model
        if len(own):
            edits |= named_edit(sites, at, _at_mean(own, means[index], sites.n_bos))
    return edits


def neuron_effects(
    sites: FeatureSites, probe: Probe, texts: Labelled, depth: int, *, max_tokens: int = MAX_TOKENS
) -> tuple[Float[Tensor, "site d_model"], Float[Tensor, "site d_model"]]:
    """First-order effect of setting each coordinate to its mean, and the means. Status: first-order."""
    parts = torch.arange(len(texts)).split(max(1, max_tokens // texts.ids.shape[1]))
    means = _means(sites, texts, parts)
    total = torch.zeros_like(means)
    for rows in parts:
        prompts = prompts_of(sites, probe, texts, depth, "spurious", rows)
        gradients = activation_gradients(sites, prompts)[1]
        for index, x in enumerate(activations(sites, prompts.clean)):
            terms = gradients[index] * (x - means[index])
            total[index] += terms[:, sites.n_bos :].sum((0, 1))
    return total / len(texts), means


def _means(
    sites: FeatureSites, texts: Labelled, parts: tuple[Int[Tensor, " row"], ...]
) -> Float[Tensor, "site d_model"]:
    """Mean of each coordinate over the true tokens after the first."""
    device = sites.anatomy.device
    mask = texts.mask.clone().to(device)
    mask[:, : sites.n_bos] = False
    sums = torch.zeros(len(sites), sites.anatomy.d_model, device=device)
    for rows in parts:
        here = mask[rows.to(device)]
        for index, x in enumerate(activations(sites, texts.ids[rows].to(device))):
            sums[index] += x[here].sum(0)
    return sums / mask.sum()


def _at_mean(coordinates: Tensor, mean: Tensor, n_bos: int) -> Edit:
    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., n_bos:, coordinates] = mean[coordinates]
        return x

    return edit
