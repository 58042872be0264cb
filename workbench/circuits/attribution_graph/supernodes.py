"""Supernodes: features of a trace that do one thing, grouped automatically, in nested levels.

Average-linkage clustering of the features' similarity (`similarity.py`). Two groups are merged only while the graph of
groups stays without cycles: a group that both feeds another and is fed by it would have no place in an order of
computation. Levels are cuts at falling similarities, so that every group of a level lies within one of the next.

Reference: average linkage, Sokal and Michener 1958. Whether a group may stand for its members is checked by
intervention (`collapse.py`). Status: correlational.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.circuits.attribution_graph.scores import prune_trace
from workbench.circuits.attribution_graph.similarity import WEIGHTS, feature_similarity
from workbench.circuits.attribution_graph.trace import AttributionTrace
from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.pruning.prune import NODE_FRAC
from workbench.errors import UserError

LEVELS, MAX_FEATURES = (0.7, 0.5, 0.3), 300


@dataclass(frozen=True, eq=False)
class Supernodes:
    """Groups of features at several similarities.

    Attributes:
        features: Source numbers of the features that were grouped.
        levels: Similarities of the cuts, falling.
        groups: For each level the groups of two members or more, as source numbers.
        graph: The pruned graph in which no group makes a cycle.
    """

    features: Int[Tensor, " feature"]
    levels: tuple[float, ...]
    groups: tuple[tuple[tuple[int, ...], ...], ...]
    graph: CircuitGraph


def find_supernodes(
    found: AttributionTrace,
    *,
    features: Sequence[int] | None = None,
    levels: Sequence[float] = LEVELS,
    weights: Mapping[str, float] = WEIGHTS,
    max_features: int = MAX_FEATURES,
    node_frac: float = NODE_FRAC,
    edge_frac: float = 0.9,
) -> Supernodes:
    """Groups of alike features.

    Args:
        found: The trace.
        features: Source numbers; by default the most influential that pruning keeps.
        levels: Least similarities of a group, each a cut.
        weights: Of the three similarities.
        max_features: At most so many by default.
        node_frac: Share of influence that the graph's nodes reach.
        edge_frac: Edges that carry this share of the edge scores decide what a cycle is.

    Raises:
        UserError: no level, no feature, or features without rows.

    Status: correlational.
    """
    if not levels or any(not -1 <= level <= 1 for level in levels):
        raise UserError(f"levels {list(levels)} are no similarities: give numbers from -1 to 1")
    graph = prune_trace(found, node_frac=node_frac, edge_frac=edge_frac).graph
    numbers = _feature_numbers(found, graph)
    chosen = _most_influential(graph, numbers, max_features) if features is None else sorted(set(features))
    if not chosen:
        raise UserError(
            f"no feature is left at node_frac {node_frac} and edge_frac {edge_frac}: raise them, or name features"
        )
    every = sorted({*numbers[numbers >= 0].tolist(), *chosen})
    place = np.searchsorted(np.array(every), np.array(chosen))
    alike = np.full((len(every), len(every)), -np.inf)
    rows = torch.tensor(chosen, dtype=torch.int64)
    alike[np.ix_(place, place)] = feature_similarity(found, rows, weights=weights).double().numpy()
    cuts = sorted(levels, reverse=True)
    merged = clusters(alike, _feeds(graph, numbers, every), cuts)
    groups = tuple(tuple(tuple(every[i] for i in group) for group in level) for level in merged)
    return Supernodes(rows, tuple(cuts), groups, graph)


def clusters(
    similarity: Float[np.ndarray, "n n"], feeds: Bool[np.ndarray, "n n"], levels: Sequence[float]
) -> list[list[tuple[int, ...]]]:
    """Average-linkage groups of two or more at falling levels, merged only where no cycle of groups arises."""
    n = len(similarity)
    alike, members = similarity.copy(), [[i] for i in range(n)]
    np.fill_diagonal(alike, -np.inf)
    edges, sizes = feeds.copy(), np.ones(n)
    cuts = []
    for level in levels:
        while n > 1:
            a, b = sorted(int(i) for i in np.unravel_index(int(alike.argmax()), alike.shape))
            if alike[a, b] < level:
                break
            if around(edges, a, b) or around(edges, b, a):
                alike[a, b] = alike[b, a] = -np.inf
            else:
                _merge(alike, edges, sizes, members, a, b)
        cuts.append(sorted(tuple(sorted(g)) for g in members if len(g) > 1))
    return cuts


def around(edges: Bool[np.ndarray, "n n"], a: int, b: int) -> bool:
    """Whether a path of two edges or more leads from a to b."""
    reached = np.array(edges[a])
    reached[b] = False
    seen = reached.copy()
    while reached.any():
        onward = np.any(edges[reached], axis=0)
        if bool(np.take(onward, b)):
            return True
        reached = onward & ~seen
        seen |= reached
    return False


def _merge(
    alike: np.ndarray, edges: np.ndarray, sizes: np.ndarray, members: list[list[int]], a: int, b: int
) -> None:
    """Put group b into group a; a pair that must not merge stays so."""
    joined = (sizes[a] * alike[a] + sizes[b] * alike[b]) / (sizes[a] + sizes[b])
    joined[[a, b]] = -np.inf
    alike[a] = alike[:, a] = joined
    alike[b] = alike[:, b] = -np.inf
    edges[a] |= edges[b]
    edges[:, a] |= edges[:, b]
    edges[b] = edges[:, b] = False
    edges[a, a] = False
    sizes[a] += sizes[b]
    members[a], members[b] = members[a] + members[b], []


def _feature_numbers(found: AttributionTrace, graph: CircuitGraph) -> Int[np.ndarray, " node"]:
    """Source number of each node of the graph that is a feature, else -1."""
    active = found.model.sources.active
    rows = zip(active.layer.tolist(), active.latent.tolist(), active.pos.tolist(), strict=True)
    known = {f"f{layer}.{latent}@{pos}": number for number, (layer, latent, pos) in enumerate(rows)}
    return np.array([known.get(name, -1) for name in graph.ids])


def _most_influential(graph: CircuitGraph, numbers: np.ndarray, n_max: int) -> list[int]:
    influence = np.asarray(graph.nodes["influence"], dtype=np.float64)
    ranked = np.argsort(-np.where(numbers >= 0, influence, -1.0), kind="stable")
    return sorted(numbers[ranked[: min(n_max, int((numbers >= 0).sum()))]].tolist())


def _feeds(graph: CircuitGraph, numbers: np.ndarray, every: list[int]) -> Bool[np.ndarray, "n n"]:
    """Which features have an edge to which in the graph; all its other nodes are sources or sinks."""
    place = np.where(numbers >= 0, np.searchsorted(np.array(every), numbers), -1)
    source, target = place[graph.source.numpy()], place[graph.target.numpy()]
    inside = (source >= 0) & (target >= 0)
    feeds = np.zeros((len(every), len(every)), bool)
    feeds[source[inside], target[inside]] = True
    return feeds
