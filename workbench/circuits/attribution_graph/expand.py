"""Which features get rows: all of them, or the most influential so many, found from the logits down.

The logits' rows come first; from then on the features with the largest influence on the logits through the rows
known so far are expanded, a batch at a time, and influence is computed anew. What a row does not list (features
that were thinned away) counts in its sum and leads nowhere. The rows of expanded features are exact; which features
are expanded is a greedy choice and may miss one that only becomes influential through features not yet expanded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.attribution_graph.effects import Collector, Effects
from workbench.circuits.attribution_graph.engine import collect, direct_effects
from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.circuits.attribution_graph.targets import Targets, feature_targets
from workbench.circuits.pruning.influence import influence
from workbench.errors import UserError
from workbench.progress import Progress

N_UPDATES, LEAST_BATCH = 12, 128
EDGE_BYTES, MEMORY_BYTES = 40, 2 * 2**30  # an edge at worst, while influence is computed


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a graph.

    Attributes:
        features: Sources that have a row, ascending.
        effects: Rows of these features, then of the logits.
        edges_per_target: The limit that was used, None for none.
    """

    features: Int[Tensor, " feature"]
    effects: Effects
    edges_per_target: int | None


def all_rows(
    model: Replacement,
    logits: Targets,
    weights: Float[Tensor, " logit"],
    *,
    max_feature_nodes: int | None = None,
    edges_per_target: int | None = None,
    threshold: float = 0.0,
    memory_bytes: int = MEMORY_BYTES,
) -> Rows:
    """Effects on features and logits.

    Args:
        model: The replacement model.
        logits: The logit targets.
        weights: How much each logit counts, for the choice of features.
        max_feature_nodes: Give rows to so many features at most; None to all.
        edges_per_target: Keep so many edges of each target; by default all, or as many as `memory_bytes` hold.
        threshold: Keep edges of at least this absolute value.
        memory_bytes: Bound on the kept edges.

    Raises:
        UserError: max_feature_nodes below 1.

    Status: exact for the rows given; the choice of features is greedy.
    """
    n = model.sources.n_features
    wanted = n if max_feature_nodes is None else min(max_feature_nodes, n)
    if wanted < min(1, n):
        raise UserError(f"max_feature_nodes {max_feature_nodes} expands nothing: give at least 1")
    limit = edges_per_target or _that_fit(model, wanted + len(logits), memory_bytes)
    options = {"edges_per_target": limit, "threshold": threshold}
    with Progress(wanted + len(logits), "tracing", "targets") as progress:
        if wanted < n:
            last = direct_effects(model, logits, progress=progress, **options)
            return Rows(*_greedy(model, last, weights, wanted, options, progress), limit)
        collector = Collector(**options)
        collect(model, feature_targets(model), collector, progress=progress)
        collect(model, logits, collector, first_row=n, progress=progress)
    return Rows(torch.arange(n, device=model.anatomy.device), collector.result(), limit)


def _greedy(
    model: Replacement, last: Effects, weights: Tensor, wanted: int, options: dict, progress: Progress
) -> tuple[Int[Tensor, " feature"], Effects]:
    """Features in ascending order, and their rows followed by those of the logits."""
    known = torch.zeros(0, dtype=torch.int64)
    parts: list[Effects] = []
    batch = max(LEAST_BATCH, -(-wanted // N_UPDATES))
    targets = feature_targets(model)
    while len(known) < wanted:
        scores = _influence(model, known, parts, last, weights)
        scores[known.numpy()] = -1.0
        ranked = np.argsort(-scores, kind="stable")[: min(batch, wanted - len(known))]
        chosen = torch.from_numpy(ranked).sort().values
        chosen_targets = targets.of(chosen.to(model.anatomy.device))
        parts.append(direct_effects(model, chosen_targets, progress=progress, **options))
        known = torch.cat([known, chosen])
    order = known.argsort()
    rows = torch.cat([order, len(order) + torch.arange(last.n_targets)])
    return known[order].to(model.anatomy.device), stacked([*parts, last]).take(rows)


def _influence(
    model: Replacement, known: Int[Tensor, " known"], parts: list[Effects], last: Effects, weights: Tensor
) -> np.ndarray:
    """Influence of every feature through the rows known so far."""
    n = len(model.sources)
    rows = torch.cat([known, n + torch.arange(last.n_targets)])
    effects = stacked([*parts, last])
    start, unlisted = np.zeros(n + last.n_targets), np.zeros(n + last.n_targets)
    start[n:] = weights.double().numpy()
    kept = effects.kept_frac
    unlisted[rows.numpy()] = (effects.abs_total * (1 - kept)).clamp_min(0).double().numpy()
    ends = effects.source.long().numpy(), rows[effects.target].numpy()
    found = influence(*ends, effects.weight.numpy(), start=start, unlisted_abs=unlisted)
    return found.node[: model.sources.n_features].copy()


def stacked(parts: list[Effects]) -> Effects:
    """Rows of several results one after another."""
    if len(parts) == 1:
        return parts[0]
    offsets = [torch.zeros(1, dtype=torch.int64)]
    for part in parts:
        offsets.append(part.offsets[1:] + offsets[-1][-1])
    names = ("source", "weight", "total", "abs_total")
    return Effects(torch.cat(offsets), *(torch.cat([getattr(p, name) for p in parts]) for name in names))


def _that_fit(model: Replacement, n_targets: int, memory_bytes: int) -> int | None:
    """How many edges a target may keep so that all fit; None where there is no need for a limit."""
    sources = model.sources
    counts = torch.zeros(model.n_layers + 1, sources.n_pos)
    layer, pos = sources.layer + 1, sources.pos
    counts.index_put_((layer, pos), torch.ones(len(layer)), accumulate=True)
    before = counts.cumsum(0).cumsum(1)
    own = before[sources.active.layer.cpu(), sources.active.pos.cpu()]
    mean = float(own.mean()) if len(own) else float(len(sources))
    if n_targets * max(mean, 1.0) * EDGE_BYTES <= memory_bytes:
        return None
    return max(1, memory_bytes // (EDGE_BYTES * n_targets))
