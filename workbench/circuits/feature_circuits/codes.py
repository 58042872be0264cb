"""Features and errors of clean prompts and of what replaces them, and one clean run to patch into.

A node's value in the clean run and the value that replaces it (from the counterfactual prompt at the same
position, or zero) are merged into one sparse row for each position, so a feature that fires in both prompts is
one entry. With nothing to pair with, every feature and error becomes zero and the activation b_dec.

    x_clean - x_patch = sum over features of (clean - patch) W_dec + (error_clean - error_patch)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.feature_circuits.metrics import Prompts
from workbench.circuits.feature_circuits.sites import FeatureSite, FeatureSites, activations
from workbench.circuits.split import Codes, written_rows
from workbench.errors import UserError


@dataclass(frozen=True, eq=False)
class Change:
    """One site on a batch: clean codes, and clean minus replaced as merged sparse rows.

    Attributes:
        clean: The clean activation, its features and error.
        difference: Clean minus replaced; its indices are the features active in either (prompt, pos, slot).
        values: Clean value of each slot, 0 where only the counterfactual has the feature (prompt, pos, slot).
    """

    clean: Codes
    difference: Codes
    values: Float[Tensor, "prompt pos slot"]


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch of prompts, run once.

    Attributes:
        prompts: What was run.
        streams: The clean stream by depth, up to the metric's.
        changes: One a site.
        gradients: Gradient of the metric in the clean activation of each site (prompt, pos, d_model).
        clean_metric: Of the clean prompts, in the metric's unit.
    """

    prompts: Prompts
    streams: tuple[Tensor, ...]
    changes: tuple[Change, ...]
    gradients: tuple[Tensor, ...]
    clean_metric: Float[Tensor, " prompt"]


@torch.no_grad()
def encode(at: FeatureSite, x: Float[Tensor, "prompt pos d_model"], *, n_bos: int) -> Codes:
    """Features and error of activations; the first `n_bos` positions have no features. Status: exact."""
    indices, values = at.dictionary.encode(x.flatten(0, 1))
    indices, values = indices.unflatten(0, x.shape[:2]), values.unflatten(0, x.shape[:2]).clone()
    values[:, :n_bos] = 0
    decoded = at.dictionary.decode(indices.flatten(0, 1), values.flatten(0, 1)).view_as(x)
    return Codes(x, indices, values, x - decoded)


def observe(sites: FeatureSites, prompts: Prompts) -> Seen:
    """Run the prompts, encode every site, and take one gradient of the metric at the clean prompts.

    The gradient that reaches a reconstruction is passed on to the activation itself, and the error's own
    dependence on what is upstream is cut; x_hat + error is x, so this is the model's gradient at each site.

    Raises:
        UserError: a site lies after the point where the metric is read.
    """
    late = next((s for s in sites if s.site.depth > prompts.metric.stop), None)
    if late is not None:
        raise UserError(
            f"site {late.site.hook!r} lies after depth {prompts.metric.stop}, where the metric is read: "
            "leave its dictionary out"
        )
    streams, gradients, clean = activation_gradients(sites, prompts)
    old = [encode(s, x, n_bos=sites.n_bos) for s, x in _both(sites, prompts.clean)]
    if prompts.patch is None:
        changes = tuple(_to_zero(s, codes) for s, codes in zip(sites, old, strict=True))
    else:
        new = [encode(s, x, n_bos=sites.n_bos) for s, x in _both(sites, prompts.patch)]
        changes = tuple(merge(a, b, s.dictionary.d_sae) for s, a, b in zip(sites, old, new, strict=True))
    return Seen(prompts, streams, changes, gradients, clean)


def _both(sites: FeatureSites, ids: Int[Tensor, "prompt pos"]) -> list[tuple[FeatureSite, Tensor]]:
    return list(zip(sites, activations(sites, ids), strict=True))


def activation_gradients(
    sites: FeatureSites, prompts: Prompts
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Float[Tensor, " prompt"]]:
    """Clean streams by depth, the metric's gradient in the activation of each site, and the metric. Status: exact."""
    anatomy, metric = sites.anatomy, prompts.metric
    with torch.enable_grad():
        streams = [anatomy.embed(prompts.clean).detach().clone().requires_grad_()]
        for depth in range(metric.stop):
            streams.append(anatomy.step(streams[-1], depth))
        value = metric(streams[-1])
        found = torch.autograd.grad(value.sum(), [streams[s.site.depth] for s in sites])
    return tuple(x.detach() for x in streams), tuple(g.detach() for g in found), value.detach()


def _to_zero(at: FeatureSite, codes: Codes) -> Change:
    difference = Codes(codes.x - at.dictionary.b_dec, codes.indices, codes.values, codes.error)
    return Change(codes, difference, codes.values)


def merge(clean: Codes, patch: Codes, d_sae: int) -> Change:
    """Clean and counterfactual codes as one sparse row for each position, ascending by feature."""
    indices = torch.cat([clean.indices, patch.indices], -1)
    old = torch.cat([clean.values, torch.zeros_like(patch.values)], -1)
    new = torch.cat([torch.zeros_like(clean.values), patch.values], -1)
    keys = indices.masked_fill((old == 0) & (new == 0), d_sae)  # unused slots go last
    keys, order = keys.sort(dim=-1, stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[..., 1:] = keys[..., 1:] != keys[..., :-1]
    slot = first.long().cumsum(-1) - 1
    shape = (*keys.shape[:-1], int(slot.max()) + 1 if slot.numel() else 0)

    values, others = (v.new_zeros(shape).scatter_add_(-1, slot, v.gather(-1, order)) for v in (old, new))
    merged = keys.new_zeros(shape).scatter_(-1, slot, keys)
    merged = merged.masked_fill(merged == d_sae, 0)
    difference = Codes(clean.x - patch.x, merged, values - others, clean.error - patch.error)
    return Change(clean, difference, values)


def change_of_feature(
    at: FeatureSite, difference: Codes, feature: int
) -> Float[Tensor, "prompt pos d_model"]:
    """Clean minus replaced contribution of one feature, or of the error (feature -1), to the activation."""
    if feature < 0:
        return difference.error
    delta = (difference.values * (difference.indices == feature)).sum(-1)
    return delta.unsqueeze(-1) * at.dictionary.W_dec[feature]


def change_of_all(at: FeatureSite, difference: Codes) -> Float[Tensor, "prompt pos d_model"]:
    """Sum of the changes of all nodes of a site; equals clean minus replaced activation."""
    return written_rows(at.dictionary.W_dec, difference, difference.values) + difference.error
