"""A dictionary at its hook, split into features and error, for both prompts of a batch.

x = decode(encode(x)) + error on each side. The features are the active latents, kept as (indices, values);
the error node is what they leave over, so features and error always sum to the activation itself
(tests/causal/test_feature_patching.py). Position 0 holds the same token in every prompt and is left out of
dictionary training, so there everything belongs to the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.nodes import Site
from workbench.circuits.observation import Activations, Observation
from workbench.dictionaries import Dictionary
from workbench.kernels import sparse_decode

GATHER_FLOATS = 2**25


@dataclass(frozen=True)
class Codes:
    """Sparse features of a batch of prompts, zero at position 0.

    Attributes:
        x: The activation at the hook (prompt, pos, d_model).
        indices: Feature of each active latent (prompt, pos, k).
        values: Its activation, zero where the slot is unused (prompt, pos, k).
        error: x minus the decoded features (prompt, pos, d_model).
    """

    x: Float[Tensor, "prompt pos d_model"]
    indices: Int[Tensor, "prompt pos k"]
    values: Float[Tensor, "prompt pos k"]
    error: Float[Tensor, "prompt pos d_model"]


@dataclass(frozen=True)
class Split:
    """Features and error of both prompts of a batch."""

    clean: Codes
    counterfactual: Codes


def activation_at(seen: Activations, site: Site) -> Float[Tensor, "prompt pos d_model"]:
    """The activation at the dictionary's hook: the stream, or what one block half adds to it."""
    if site.is_stream:
        return seen.resid[site.depth]
    written = seen.attn_out if site.hook.endswith("attn_out") else seen.mlp_out
    return written[site.layer]


@torch.no_grad()
def encode_prompts(dictionary: Dictionary, x: Float[Tensor, "prompt pos d_model"]) -> Codes:
    """Encode every position after the first. Status: exact."""
    indices, values = dictionary.encode(x.flatten(0, 1))
    indices, values = (t.unflatten(0, x.shape[:2]).clone() for t in (indices, values))
    values[:, 0] = 0
    decoded = dictionary.decode(indices.flatten(0, 1), values.flatten(0, 1)).view_as(x)
    return Codes(x, indices, values, x - decoded)


def split_pair(dictionary: Dictionary, seen: Observation, site: Site) -> Split:
    """Features and error of a batch of pairs."""
    return Split(
        encode_prompts(dictionary, activation_at(seen.clean, site)),
        encode_prompts(dictionary, activation_at(seen.counterfactual, site)),
    )


def active_features(splits: list[Split]) -> Int[Tensor, " feature"]:
    """Features that are active somewhere on either prompt, ascending."""
    codes = [c for s in splits for c in (s.clean, s.counterfactual)]
    return torch.unique(torch.cat([c.indices[c.values > 0] for c in codes]))


def feature_values(codes: Codes, feature: int) -> Float[Tensor, "prompt pos"]:
    """Activation of one feature at every position."""
    return (codes.values * (codes.indices == feature)).sum(-1)


def feature_change(split: Split, feature: int) -> Float[Tensor, "prompt pos"]:
    """Counterfactual minus clean activation of one feature."""
    return feature_values(split.counterfactual, feature) - feature_values(split.clean, feature)


def written_rows(
    W_dec: Float[Tensor, "d_sae d_model"], codes: Codes, values: Float[Tensor, "prompt pos k"]
) -> Float[Tensor, "prompt pos d_model"]:
    """Sum of decoder rows of the active latents, weighted by `values`; no bias."""
    return sparse_decode(codes.indices.flatten(0, 1), values.flatten(0, 1), W_dec).view_as(codes.x)


def project_active(
    codes: Codes, W_dec: Float[Tensor, "d_sae d_model"], direction: Float[Tensor, "prompt pos d_model"]
) -> Float[Tensor, "prompt pos k"]:
    """value . (decoder row . direction) of each active latent, a slice of prompts at a time."""
    n_prompts, n_pos, k = codes.values.shape
    step = max(1, GATHER_FLOATS // (n_pos * k * W_dec.shape[1]))
    parts = []
    for start in range(0, n_prompts, step):
        here = slice(start, start + step)
        rows = W_dec[codes.indices[here]]
        parts.append(codes.values[here] * torch.einsum("npkd,npd->npk", rows, direction[here]))
    return torch.cat(parts)
