"""Circuits of behaviours that nobody named: next tokens that the model predicts well, grouped by what they use.

    samples       contexts whose next token the model gives a loss below a bound
    fingerprints  effects (or activations) of all features on each, summed over positions, as one vector of length 1
    groups        k-means of the fingerprints
    circuits      one of each group, without counterfactuals: every node is compared with zero

A fingerprint has an entry for each feature of each site, up to millions, nearly all zero; it is folded into
`n_dims` entries by a seeded random sign and place for every feature, which keeps inner products on average
(Charikar et al. 2002, count sketch). The share of variance that the groups explain stands beside the same
share for fingerprints whose columns are permuted, where no group exists.

Sources: Marks et al. 2024, arXiv:2403.19647, section 5; Michaud et al. 2023, arXiv:2303.13506.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.feature_circuits.circuit import FeatureCircuit, find_circuit
from workbench.circuits.feature_circuits.codes import observe
from workbench.circuits.feature_circuits.effects import MAX_TOKENS, node_effects
from workbench.circuits.feature_circuits.kmeans import Grouping, kmeans
from workbench.circuits.feature_circuits.metrics import unpaired
from workbench.circuits.feature_circuits.sites import FeatureSites
from workbench.errors import UserError, nearest

KINDS = ("effects", "activations")


@dataclass(frozen=True, eq=False)
class NextTokens:
    """Contexts and the token that follows each.

    Attributes:
        ids: First token of the text, then the last tokens before the predicted one (sample, pos).
        tokens: What follows (sample).
        loss_nats: -log p of it, given the context alone (sample).
    """

    ids: Int[Tensor, "sample pos"]
    tokens: Int[Tensor, " sample"]
    loss_nats: Float[Tensor, " sample"]

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Tensor) -> NextTokens:
        """Some of the samples."""
        return NextTokens(self.ids[rows], self.tokens[rows], self.loss_nats[rows])


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of samples.

    Attributes:
        samples: What was grouped.
        grouping: Group of each sample and the share of variance that groups explain.
        shuffled_explained_frac: The same share when each column of the fingerprints is permuted by itself.
    """

    samples: NextTokens
    grouping: Grouping
    shuffled_explained_frac: float


@torch.no_grad()
def predicted_tokens(
    anatomy: Anatomy,
    texts: Int[Tensor, "text pos"],
    *,
    n_samples: int,
    context_tokens: int = 32,
    max_loss_nats: float = 0.1,
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
) -> NextTokens:
    """Places in texts whose next token the model predicts well from `context_tokens` tokens.

    Args:
        anatomy: The model.
        texts: Token ids; the first of a text stands first in every context.
        n_samples: At most so many, drawn without order.
        context_tokens: Length of every context.
        max_loss_nats: Largest -log p of the next token.
        max_tokens: Largest number of tokens in one forward pass.
        seed: Decides which places are tried.

    Raises:
        UserError: texts shorter than a context and its next token, or no place that is predicted well.
    """
    if not 2 <= context_tokens < texts.shape[1]:
        raise UserError(
            f"context_tokens {context_tokens} does not fit texts of {texts.shape[1]} tokens: give 2 to "
            f"{texts.shape[1] - 1}"
        )
    n_places = texts.shape[1] - context_tokens
    places = torch.randperm(len(texts) * n_places, generator=torch.Generator().manual_seed(seed))
    found, n_found = [], 0
    for part in places.split(max(1, max_tokens // context_tokens)):
        new = _samples_at(anatomy, texts, part // n_places, part % n_places + context_tokens, context_tokens)
        found.append(new.take(new.loss_nats <= max_loss_nats))
        n_found += len(found[-1])
        if n_found >= n_samples:
            break
    if not n_found:
        raise UserError(
            f"no next token of these texts has a loss of at most {max_loss_nats} nats: raise max_loss_nats or give "
            "other texts"
        )
    whole = [torch.cat([getattr(f, name) for f in found]) for name in ("ids", "tokens", "loss_nats")]
    return NextTokens(*whole).take(torch.arange(min(n_samples, n_found)))


def _samples_at(anatomy: Anatomy, texts: Tensor, text: Tensor, pos: Tensor, length: int) -> NextTokens:
    """The contexts that end before `pos`, and the loss of the token there."""
    back = torch.arange(-length, 0)
    ids = texts[text[:, None], pos[:, None] + back].clone()
    ids[:, 0] = texts[text, 0]
    tokens = texts[text, pos]
    prompts = unpaired(anatomy, ids, tokens)
    stream = anatomy.run(anatomy.embed(prompts.clean))
    return NextTokens(ids, tokens, -prompts.metric(stream).cpu())


def fingerprints(
    sites: FeatureSites,
    samples: NextTokens,
    *,
    kind: str = "effects",
    n_dims: int = 1024,
    seed: int = 0,
    max_tokens: int = MAX_TOKENS,
) -> Float[Tensor, "sample n_dims"]:
    """One vector of length 1 a sample: its features' effects on the next token (or activations), folded.

    Args:
        sites: The dictionaries.
        samples: From `predicted_tokens`.
        kind: `effects` (by one gradient; status: first-order) or `activations`.
        n_dims: Entries of a fingerprint.
        seed: Decides sign and place of each feature.
        max_tokens: Largest number of tokens in one forward pass.

    Raises:
        UserError: the kind is not known.
    """
    if kind not in KINDS:
        raise UserError(f"fingerprint kind {kind!r} is not known; {nearest(kind, KINDS)}")
    folds = _folds(sites, n_dims, seed)
    rows = torch.arange(len(samples)).split(max(1, max_tokens // samples.ids.shape[1]))
    parts = [_fingerprint(sites, samples.take(part), kind, n_dims, folds) for part in rows]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1).cpu()


def _folds(sites: FeatureSites, n_dims: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Place and sign of every feature, by site."""
    generator, device = torch.Generator().manual_seed(seed), sites.anatomy.device
    drawn = [
        torch.randint(2 * n_dims, (at.dictionary.d_sae,), generator=generator).to(device) for at in sites
    ]
    return [(r % n_dims, 1.0 - 2.0 * (r // n_dims)) for r in drawn]


def _fingerprint(
    sites: FeatureSites, samples: NextTokens, kind: str, n_dims: int, folds: list[tuple[Tensor, Tensor]]
) -> Float[Tensor, "sample n_dims"]:
    seen = observe(sites, unpaired(sites.anatomy, samples.ids, samples.tokens))
    effects = node_effects(sites, seen, method="atp")
    out = seen.clean_metric.new_zeros(len(samples), n_dims)
    for change, own, (place, sign) in zip(seen.changes, effects, folds, strict=True):
        indices = change.difference.indices.flatten(1)
        values = (own.features if kind == "effects" else change.values).flatten(1)
        out.scatter_add_(1, place[indices], sign[indices] * values)
    return out


def cluster(
    samples: NextTokens, prints: Float[Tensor, "sample n_dims"], n_groups: int, *, seed: int = 0
) -> Clusters:
    """Groups of samples by their fingerprints, with the control.

    Raises:
        UserError: fewer different samples than groups.
    """
    n_different = len(torch.unique(prints, dim=0))
    if n_different < n_groups:
        raise UserError(
            f"n_groups {n_groups} is more than the {n_different} different fingerprints: give fewer"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(prints.shape, generator=generator).argsort(0)
    shuffled = kmeans(prints.gather(0, order), n_groups, seed=seed)
    return Clusters(samples, kmeans(prints, n_groups, seed=seed), shuffled.explained_frac)


def cluster_circuits(
    sites: FeatureSites, clusters: Clusters, *, max_samples: int = 64, **options: Any
) -> list[FeatureCircuit]:
    """One circuit a group, without counterfactuals, on its first samples.

    Args:
        sites: The dictionaries.
        clusters: From `cluster`.
        max_samples: Samples of a group that are used.
        **options: Of `find_circuit` (`node_threshold` and others), in nats.
    """
    groups = range(len(clusters.grouping.centres))
    members = [(clusters.grouping.group == g).nonzero()[:max_samples, 0] for g in groups]
    parts = [clusters.samples.take(rows) for rows in members]
    return [find_circuit(sites, [unpaired(sites.anatomy, p.ids, p.tokens)], **options) for p in parts]
