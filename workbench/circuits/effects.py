"""Effects of all nodes of one kind over all prompts: first-order for each, exact for those worth it.

Batches of different prompt lengths are concatenated along the prompt axis, in the order of
`Task.batches()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.attribution import (
    attribute_components,
    attribute_error,
    attribute_features,
    component_terms,
)
from workbench.circuits.nodes import Node, Site
from workbench.circuits.observation import Observation
from workbench.circuits.patching import patch_components, patch_error, patch_features
from workbench.circuits.split import Split, active_features, feature_change
from workbench.dictionaries import Dictionary
from workbench.progress import Progress


@dataclass(frozen=True)
class Effects:
    """Effects of nodes on the logit difference, in logits; positive helps the answer.

    Attributes:
        nodes: The nodes, one a row.
        attributed: First-order effects (node, prompt).
        patched: Exact effects (node, prompt); rows of NaN for nodes that were not patched.
        peak_pos: Position of the largest mean absolute first-order effect, -1 where not computed (node).
    """

    nodes: tuple[Node, ...]
    attributed: Float[Tensor, "node prompt"]
    patched: Float[Tensor, "node prompt"]
    peak_pos: Int[Tensor, " node"]

    def __add__(self, other: Effects) -> Effects:
        """The nodes of both."""
        return Effects(
            self.nodes + other.nodes,
            torch.cat([self.attributed, other.attributed]),
            torch.cat([self.patched, other.patched]),
            torch.cat([self.peak_pos, other.peak_pos]),
        )

    @property
    def exact_rows(self) -> np.ndarray:
        """Rows of the nodes that were patched."""
        return np.flatnonzero(~torch.isnan(self.patched).any(1).numpy())


def largest(attributed: Float[Tensor, "node prompt"], n: int | None) -> list[int]:
    """Rows of the `n` largest absolute mean effects, ascending; all rows when `n` is None."""
    if n is None or n >= len(attributed):
        return list(range(len(attributed)))
    order = attributed.mean(1).abs().argsort(descending=True, stable=True)
    return sorted(order[:n].tolist())


def component_effects(
    anatomy: Anatomy,
    observations: Sequence[Observation],
    nodes: tuple[Node, ...],
    *,
    n_exact: int | None = None,
    progress: Progress | None = None,
) -> Effects:
    """Effects of components; exact for the `n_exact` largest first-order ones (None: for all)."""
    attributed = torch.cat([attribute_components(anatomy, seen, nodes) for seen in observations], 1).cpu()
    rows = largest(attributed, n_exact)
    patched = torch.full_like(attributed, torch.nan)
    chosen = [nodes[row] for row in rows]
    patched[rows] = torch.cat(
        [patch_components(anatomy, seen, chosen, progress=progress) for seen in observations], 1
    ).cpu()
    widest = max(observations, key=lambda seen: len(seen.clean_logits))
    peaks = [_peak(component_terms(anatomy, widest, node)) for node in nodes]
    return Effects(nodes, attributed, patched, torch.tensor(peaks))


def feature_effects(
    anatomy: Anatomy,
    observations: Sequence[Observation],
    splits: Sequence[Split],
    dictionary: Dictionary,
    *,
    site: Site,
    n_exact: int,
    progress: Progress | None = None,
) -> Effects:
    """Effects of every active feature (exact for the `n_exact` largest first-order ones) and of the error node."""
    features, both = active_features(list(splits)), list(zip(observations, splits, strict=True))
    attributed = torch.cat(
        [attribute_features(o, s, dictionary, depth=site.depth, features=features) for o, s in both], 1
    ).cpu()
    rows = largest(attributed, n_exact)
    chosen = features[rows].tolist()
    patched = torch.full_like(attributed, torch.nan)
    patched[rows] = torch.cat(
        [
            patch_features(anatomy, o, s, dictionary, depth=site.depth, features=chosen, progress=progress)
            for o, s in both
        ],
        1,
    ).cpu()
    peaks = torch.full((len(features),), -1)
    peaks[rows] = feature_peaks(observations, splits, dictionary, site=site, features=chosen)
    nodes = tuple(Node("feature", site.layer, feature=f) for f in features.tolist())
    return Effects(nodes, attributed, patched, peaks) + error_effects(
        anatomy, observations, splits, site=site
    )


def error_effects(
    anatomy: Anatomy, observations: Sequence[Observation], splits: Sequence[Split], *, site: Site
) -> Effects:
    """Effect of the dictionary's error node, first-order and exact."""
    both = list(zip(observations, splits, strict=True))
    attributed = torch.cat([attribute_error(o, s, depth=site.depth) for o, s in both]).cpu()
    patched = torch.cat([patch_error(anatomy, o, s, depth=site.depth) for o, s in both]).cpu()
    seen, split = max(both, key=lambda pair: len(pair[0].clean_logits))
    change = split.counterfactual.error - split.clean.error
    peak = _peak((change * seen.gradients[site.depth]).sum(-1))
    return Effects((Node("error", site.layer),), attributed[None], patched[None], torch.tensor([peak]))


def feature_peaks(
    observations: Sequence[Observation],
    splits: Sequence[Split],
    dictionary: Dictionary,
    *,
    site: Site,
    features: Sequence[int],
) -> Int[Tensor, " feature"]:
    """Position of the largest mean absolute first-order effect among the most common prompt length."""
    seen, split = max(zip(observations, splits, strict=True), key=lambda pair: len(pair[0].clean_logits))
    gradient = seen.gradients[site.depth]
    peaks = [_peak(feature_change(split, f) * (gradient @ dictionary.W_dec[f])) for f in features]
    return torch.tensor(peaks, dtype=torch.long)


def _peak(terms: Float[Tensor, "prompt pos"]) -> int:
    return int(terms.abs().mean(0).argmax())
