"""Exact effects of chosen nodes, and edges predicted against intervened.

A node is replaced by its counterfactual value (zero without one) and everything downstream is recomputed. An edge
a -> b is intervened on by path patching: a is replaced while all other sites are held at their clean values, so
the change reaches b's site along direct paths only; b's site is encoded, b alone is set to what it became, and
everything after it is recomputed:

    effect(a -> b) = m(clean) - m(b as it is when only the direct path from a carries a_patch)

Nothing is linearised in it. The prediction beside it is the edge weight without thresholds. They agree to
rounding where the stretch between a and b, b's encoder and what is downstream of b are linear for this change.

Sources: Marks et al. 2024, arXiv:2403.19647; path patching: Wang et al. 2022, arXiv:2211.00593.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.feature_circuits.codes import Seen, change_of_feature, encode
from workbench.circuits.feature_circuits.direct import arriving, gradients, leaves_of, measured
from workbench.circuits.feature_circuits.edges import reading_vectors
from workbench.circuits.feature_circuits.effects import MAX_TOKENS, SiteEffects
from workbench.circuits.feature_circuits.kept import NodeRef, node_name
from workbench.circuits.feature_circuits.metrics import score
from workbench.circuits.feature_circuits.sites import FeatureSites
from workbench.circuits.split import Codes
from workbench.errors import UserError

EdgeRef = tuple[NodeRef, NodeRef]


@dataclass(frozen=True, eq=False)
class EdgeCheck:
    """Predicted against intervened effects of edges, in the metric's unit.

    Attributes:
        edges: (source, target), one a row.
        predicted: Edge weight without thresholds (edge, prompt).
        intervened: By path patching (edge, prompt).
    """

    edges: tuple[EdgeRef, ...]
    predicted: Float[Tensor, "edge prompt"]
    intervened: Float[Tensor, "edge prompt"]


@torch.no_grad()
def patch_nodes(
    sites: FeatureSites, seen: Seen, nodes: Sequence[NodeRef], *, max_tokens: int = MAX_TOKENS
) -> Float[Tensor, "node prompt"]:
    """Effect of replacing each node alone, in the metric's unit. Status: exact.

    Args:
        sites: The dictionaries.
        seen: The batch.
        nodes: Features or errors (feature -1), at one position or at all (pos -1).
        max_tokens: Largest number of tokens in one forward pass.
    """
    effects = seen.clean_metric.new_zeros(len(nodes), len(seen.clean_metric))
    width = max(1, max_tokens // seen.prompts.clean.numel())
    for site in sorted({ref.site for ref in nodes}):
        rows = torch.tensor([row for row, ref in enumerate(nodes) if ref.site == site])
        base = seen.streams[sites[site].site.depth]
        for part in rows.split(width):
            changed = torch.stack([base - _written(sites, seen, nodes[row]) for row in part.tolist()])
            after = score(sites.anatomy, seen.prompts.metric, changed, sites[site].site.depth)
            effects[part] = seen.clean_metric - after
    return effects


def check_edges(
    sites: FeatureSites,
    seen: Seen,
    effects: Sequence[SiteEffects],
    edges: Sequence[EdgeRef],
    *,
    max_tokens: int = MAX_TOKENS,
) -> EdgeCheck:
    """Predicted and intervened effect of each edge on each prompt.

    Args:
        sites: The dictionaries.
        seen: The batch.
        effects: Of its nodes.
        edges: (source, target); the target `NodeRef(len(sites))` is the metric.
        max_tokens: Largest number of tokens in one pass.

    Raises:
        UserError: an edge that has no direct path.
    """
    shape = len(edges), len(seen.clean_metric)
    predicted, intervened = seen.clean_metric.new_zeros(shape), seen.clean_metric.new_zeros(shape)
    width = max(1, max_tokens // seen.prompts.clean.numel())
    for pair in sorted({(a.site, b.site) for a, b in edges}):
        _check_path(sites, pair)
        rows = torch.tensor([i for i, (a, b) in enumerate(edges) if (a.site, b.site) == pair])
        for part in rows.split(width):
            chosen = [edges[row] for row in part.tolist()]
            predicted[part] = _predict(sites, seen, effects, chosen)
            intervened[part] = _intervene(sites, seen, chosen)
    return EdgeCheck(tuple(edges), predicted, intervened)


def _check_path(sites: FeatureSites, pair: tuple[int, int]) -> None:
    source, target = pair
    if source not in sites.upstream(target):
        names = [node_name(sites, NodeRef(site)).removesuffix(".error") for site in pair]
        raise UserError(
            f"no direct path leads from {names[0]} to {names[1]}: a source lies before its target, with no "
            "dictionary of the stream between them"
        )


def _at(values: Tensor, pos: int) -> Tensor:
    """Values (prompt, pos, ...) at one position only, or all for -1."""
    if pos < 0:
        return values
    out = torch.zeros_like(values)
    out[:, pos] = values[:, pos]
    return out


def _written(sites: FeatureSites, seen: Seen, ref: NodeRef) -> Float[Tensor, "prompt pos d_model"]:
    """Clean minus replaced contribution of a node."""
    difference = seen.changes[ref.site].difference
    return _at(change_of_feature(sites[ref.site], difference, ref.feature), ref.pos)


@torch.no_grad()
def _intervene(sites: FeatureSites, seen: Seen, edges: Sequence[EdgeRef]) -> Float[Tensor, "edge prompt"]:
    """Path patching of edges that join the same two sites."""
    source, target = edges[0][0].site, edges[0][1].site
    shape = (len(edges), *seen.streams[0].shape)
    leaves = {i: x.expand(shape) for i, x in leaves_of(sites, seen, target).items()}
    leaves[source] = leaves[source] - torch.stack([_written(sites, seen, a) for a, _ in edges])
    embedded, metric = seen.streams[0].expand(shape), seen.prompts.metric
    if target == len(sites):
        return seen.clean_metric - measured(sites, metric, leaves, embedded)
    at = sites[target]
    arrived = arriving(sites, target, leaves, embedded)
    changes = [_became(sites, seen, b, x) for (_, b), x in zip(edges, arrived, strict=True)]
    changed = seen.streams[at.site.depth] + torch.stack(changes)
    return seen.clean_metric - score(sites.anatomy, metric, changed, at.site.depth)


def _became(sites: FeatureSites, seen: Seen, ref: NodeRef, x: Tensor) -> Float[Tensor, "prompt pos d_model"]:
    """Change of a node's contribution when its site's activation is `x` instead of the clean one."""
    at, old = sites[ref.site], seen.changes[ref.site].clean
    new = encode(at, x, n_bos=sites.n_bos)
    if ref.feature < 0:
        return _at(new.error - old.error, ref.pos)
    delta = _value(new, ref.feature) - _value(old, ref.feature)
    return _at(delta.unsqueeze(-1) * at.dictionary.W_dec[ref.feature], ref.pos)


def _value(codes: Codes, feature: int) -> Float[Tensor, "prompt pos"]:
    return (codes.values * (codes.indices == feature)).sum(-1)


def _predict(
    sites: FeatureSites, seen: Seen, effects: Sequence[SiteEffects], edges: Sequence[EdgeRef]
) -> Float[Tensor, "edge prompt"]:
    """Edge weights of edges that join the same two sites, without thresholds."""
    source, target = edges[0][0].site, edges[0][1].site
    shape = (len(edges), *seen.streams[0].shape)
    clean = leaves_of(sites, seen, target)
    leaves = {i: x.expand(shape).clone().requires_grad_(i == source) for i, x in clean.items()}
    embedded, metric = seen.streams[0].expand(shape), seen.prompts.metric
    with torch.enable_grad():
        if target == len(sites):
            out = measured(sites, metric, leaves, embedded)
            vectors = torch.ones_like(out)
        else:
            out = arriving(sites, target, leaves, embedded)
            vectors = torch.stack([_reading(sites, seen, effects[target], b) for _, b in edges])
        pulled = gradients(out, {source: leaves[source]}, vectors)
    if not pulled:  # parallel halves of one block
        return seen.clean_metric.new_zeros(shape[:2])
    written = torch.stack([_written(sites, seen, a) for a, _ in edges])
    return (pulled[source] * written).sum((-2, -1))


def _reading(
    sites: FeatureSites, seen: Seen, effects: SiteEffects, ref: NodeRef
) -> Float[Tensor, "prompt pos d_model"]:
    """dm/db . db/dx of one node at each prompt and position."""
    shape = seen.prompts.clean.shape
    prompt, pos = (t.flatten() for t in torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    prompt, pos = prompt.to(seen.prompts.clean.device), pos.to(seen.prompts.clean.device)
    feature = torch.full_like(prompt, ref.feature)
    vectors = reading_vectors(sites, seen, effects, ref.site, prompt, pos, feature)
    return _at(vectors.unflatten(0, shape), ref.pos)
