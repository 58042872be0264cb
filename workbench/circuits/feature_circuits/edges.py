"""Direct-path edges between kept nodes: how much of a node's effect arrives by one feature downstream.

    weight(a -> b) = dm/db . db/da . (a_clean - a_patch)

dm/db is the (mean) gradient that the node effects were made with; db/da is the derivative along direct paths only
(`direct.py`) at the clean prompts: attention, norms and MLPs between the two sites are linearised there, and b
by its encoder row while it is active. An error node reads what its features leave over:

    d error / dx = 1 - sum over active features of W_dec W_enc

so at any site the edges into all its active features and its error add up to the gradient of the activation, and
the edges out of a node, over all sites and the metric, to its attribution effect (tests/circuits/feature_circuits).

One backward pass serves many targets: each target node is a row of the batch of its own, with its prompt's
clean activations as leaves, and only the stretch of the model between two neighbouring streams is run. Each
leaf's gradient is contracted with the kept nodes of that prompt alone.

Status: first-order in each edge. Source: Marks et al. 2024, arXiv:2403.19647, section 3 and appendix A.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.feature_circuits.codes import Seen
from workbench.circuits.feature_circuits.direct import arriving, gradients, leaves_of, measured
from workbench.circuits.feature_circuits.effects import MAX_TOKENS, SiteEffects
from workbench.circuits.feature_circuits.kept import ERROR, Kept
from workbench.circuits.feature_circuits.sites import FeatureSites
from workbench.errors import UserError
from workbench.progress import Progress

GATHER_FLOATS = 2**24


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges between rows of `Kept`, each at one prompt.

    Attributes:
        source: Row of the node that writes (edge).
        target: Row of the node that reads; -1 for the metric (edge).
        weight: In the metric's unit; positive helps what it measures (edge).
    """

    source: Int[Tensor, " edge"]
    target: Int[Tensor, " edge"]
    weight: Float[Tensor, " edge"]


def find_edges(
    sites: FeatureSites,
    seen: Seen,
    effects: Sequence[SiteEffects],
    kept: Kept,
    *,
    threshold: float = 0.0,
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> Edges:
    """Edges with |weight| above `threshold` between kept nodes of the same prompt, and to the metric.

    Args:
        sites: The dictionaries.
        seen: The batch.
        effects: Of its nodes; their gradients are dm/db.
        kept: Nodes that edges may join.
        threshold: In the metric's unit, on the edge at one prompt and pair of positions.
        max_tokens: Largest number of tokens in one backward pass.
        progress: Advanced by one a target node.

    Raises:
        UserError: a negative threshold.
    """
    if not threshold >= 0:
        raise UserError(f"edge threshold {threshold} is negative: give 0 or a size in the metric's unit")
    found = [_to_metric(sites, seen, kept, threshold)]
    width = max(1, max_tokens // seen.prompts.clean.shape[1])
    for target in range(1, len(sites)):
        for rows in kept.rows(target).split(width):
            found += _into(sites, seen, effects[target], kept, target, rows, threshold)
            if progress is not None:
                progress.advance(len(rows))
    parts = list(zip(*found, strict=True))
    return Edges(*(torch.cat(part) for part in parts))


Found = tuple[Tensor, Tensor, Tensor]


def _to_metric(sites: FeatureSites, seen: Seen, kept: Kept, threshold: float) -> Found:
    leaves = _live(leaves_of(sites, seen, len(sites)))
    with torch.enable_grad():
        value = measured(sites, seen.prompts.metric, leaves, seen.streams[0])
        pulled = gradients(value, leaves, torch.ones_like(value))
    prompts = torch.arange(len(value), device=value.device)
    found = [_contract(sites, seen, kept, index, g, prompts, threshold) for index, g in pulled.items()]
    source, weight = (torch.cat([part[i] for part in found]) for i in (0, 2))
    return source, torch.full_like(source, -1), weight


def _into(
    sites: FeatureSites,
    seen: Seen,
    effects: SiteEffects,
    kept: Kept,
    target: int,
    rows: Tensor,
    threshold: float,
) -> Iterator[Found]:
    """Edges into some kept nodes of one site."""
    prompts, pos = kept.prompt[rows], kept.pos[rows]
    vectors = reading_vectors(sites, seen, effects, target, prompts, pos, kept.feature[rows])
    leaves = _live(leaves_of(sites, seen, target, prompts))
    with torch.enable_grad():
        out = arriving(sites, target, leaves, seen.streams[0][prompts])
        upstream = torch.zeros_like(out)
        upstream[torch.arange(len(rows), device=rows.device), pos] = vectors
        pulled = gradients(out, leaves, upstream)
    for index, gradient in pulled.items():
        source, row, weight = _contract(sites, seen, kept, index, gradient, prompts, threshold, pos)
        yield source, rows[row], weight


def _live(leaves: dict[int, Tensor]) -> dict[int, Tensor]:
    return {index: x.detach().clone().requires_grad_() for index, x in leaves.items()}


@torch.no_grad()
def reading_vectors(
    sites: FeatureSites,
    seen: Seen,
    effects: SiteEffects,
    target: int,
    prompt: Int[Tensor, " row"],
    pos: Int[Tensor, " row"],
    feature: Int[Tensor, " row"],
) -> Float[Tensor, "row d_model"]:
    """dm/db . db/dx of nodes of one site in its activation x at their prompt and position.

    Zero for features that are not active in the clean prompt. Status: exact at the clean codes.
    """
    at, codes = sites[target], seen.changes[target].clean
    gradient = effects.gradient[prompt, pos]
    rows = feature.clamp_min(0)
    mine = (codes.indices[prompt, pos] == feature[:, None]) & (codes.values[prompt, pos] > 0)
    size = (at.dictionary.W_dec[rows] * gradient).sum(-1) * mine.any(-1)
    vectors = size[:, None] * at.reads[rows]
    errors = (feature == ERROR).nonzero()[:, 0]
    for part in errors.split(_width(codes.values.shape[-1] * gradient.shape[-1])):
        vectors[part] = _of_error(sites, seen, target, prompt[part], pos[part], gradient[part])
    return vectors


def _of_error(
    sites: FeatureSites, seen: Seen, target: int, prompt: Tensor, pos: Tensor, gradient: Tensor
) -> Float[Tensor, "row d_model"]:
    """gradient . (1 - sum over active features of W_dec W_enc)."""
    at, codes = sites[target], seen.changes[target].clean
    indices, active = codes.indices[prompt, pos], codes.values[prompt, pos] > 0
    sizes = torch.einsum("rkd,rd->rk", at.dictionary.W_dec[indices], gradient) * active
    return gradient - torch.einsum("rk,rkd->rd", sizes, at.reads[indices])


@torch.no_grad()
def _contract(
    sites: FeatureSites,
    seen: Seen,
    kept: Kept,
    index: int,
    gradient: Float[Tensor, "row pos d_model"],
    prompts: Int[Tensor, " row"],
    threshold: float,
    last: Int[Tensor, " row"] | None = None,
) -> Found:
    """Edges from the kept nodes of site `index`: (source row of `kept`, row of the gradient, weight)."""
    own = kept.rows(index)
    source, row = _pairs(kept.prompt[own], prompts)
    source = own[source]
    if last is not None:  # nothing reads what comes after it
        before = kept.pos[source] <= last[row]
        source, row = source[before], row[before]
    parts = [
        _weights(sites, seen, kept, index, gradient, s, r)
        for s, r in zip(
            source.split(_width(gradient.shape[-1])), row.split(_width(gradient.shape[-1])), strict=True
        )
    ]
    weight = torch.cat(parts) if parts else gradient.new_zeros(0)
    above = weight.abs() > threshold
    return source[above], row[above], weight[above]


def _weights(
    sites: FeatureSites, seen: Seen, kept: Kept, index: int, gradient: Tensor, source: Tensor, row: Tensor
) -> Float[Tensor, " edge"]:
    """Gradient at the source's position . the change of what the source writes."""
    feature, prompt, pos = kept.feature[source], kept.prompt[source], kept.pos[source]
    written = sites[index].dictionary.W_dec[feature.clamp_min(0)] * kept.delta[source][:, None]
    is_error = feature == ERROR
    written[is_error] = seen.changes[index].difference.error[prompt[is_error], pos[is_error]]
    return (gradient[row, pos] * written).sum(-1)


def _pairs(sorted_prompts: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """All (source, row) of one prompt each; the sources are sorted by prompt."""
    start = torch.searchsorted(sorted_prompts, prompts)
    count = torch.searchsorted(sorted_prompts, prompts, right=True) - start
    row = torch.arange(len(prompts), device=prompts.device).repeat_interleave(count)
    offset = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    return start[row] + offset, row


def _width(n_floats: int) -> int:
    return max(1, GATHER_FLOATS // max(1, n_floats))
