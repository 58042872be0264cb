"""The feature circuit of a set of prompts: effects, nodes above a threshold, edges, one graph, its checks.

    sites = open_sites(open_anatomy(model), dictionaries)
    found = find_circuit(sites, [paired(sites.anatomy, batch)], node_threshold=0.1, edge_threshold=0.01)
    found.graph, found.gaps, found.checks

Thresholds are in the metric's unit and so depend on it: sweep them (`logspace(-4, 0, 15)` in the paper) and read
faithfulness against size. The paper's example has 0.1 for nodes and 0.01 for edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch

from workbench.circuits.circuit_graph import CircuitGraph
from workbench.circuits.feature_circuits.aggregate import Part, aggregate, check_positions, refs_of
from workbench.circuits.feature_circuits.codes import Seen, observe
from workbench.circuits.feature_circuits.edges import find_edges
from workbench.circuits.feature_circuits.effects import (
    MAX_TOKENS,
    N_STEPS,
    SiteEffects,
    check_method,
    completeness_gap,
    node_effects,
)
from workbench.circuits.feature_circuits.exact import EdgeCheck, check_edges
from workbench.circuits.feature_circuits.kept import keep_nodes
from workbench.circuits.feature_circuits.metrics import Prompts
from workbench.circuits.feature_circuits.sites import FeatureSites
from workbench.circuits.quadrature import DEFAULT


@dataclass(frozen=True)
class Recipe:
    """How a feature circuit is made.

    Attributes:
        node_threshold: Smallest |effect| of a node at one prompt and position, in the metric's unit.
        edge_threshold: Smallest |weight| of an edge at one prompt and pair of positions.
        method: `ig` or `atp`.
        n_steps: Points of the integral.
        rule: One of `QUADRATURES`; `right` is that of the paper.
        positions: `sum` or `aligned`.
        n_checked: Largest edges that are intervened on.
        max_tokens: Largest number of tokens in one pass.
    """

    node_threshold: float
    edge_threshold: float
    method: str = "ig"
    n_steps: int = N_STEPS
    rule: str = DEFAULT
    positions: str = "sum"
    n_checked: int = 50
    max_tokens: int = MAX_TOKENS


@dataclass(frozen=True, eq=False)
class FeatureCircuit:
    """A feature circuit.

    Attributes:
        graph: Nodes and edges; `intervened` where an edge was checked, mean over prompts.
        gaps: Completeness gap of the integral at each site, by the site's name.
        checks: Predicted against intervened effects of the checked edges, without thresholds.
        recipe: How it was made.
    """

    graph: CircuitGraph
    gaps: dict[str, float]
    checks: EdgeCheck
    recipe: Recipe


def find_circuit(
    sites: FeatureSites,
    prompts: Sequence[Prompts],
    *,
    node_threshold: float,
    edge_threshold: float = 0.0,
    method: str = "ig",
    n_steps: int = N_STEPS,
    rule: str = DEFAULT,
    positions: str = "sum",
    n_checked: int = 50,
    max_tokens: int = MAX_TOKENS,
) -> FeatureCircuit:
    """The feature circuit of prompts under their metric.

    Args:
        sites: The dictionaries.
        prompts: Batches, each of one length.
        node_threshold: Smallest |effect| of a node at one prompt and position, in the metric's unit.
        edge_threshold: Smallest |weight| of an edge at one prompt and pair of positions.
        method: `ig` or `atp`.
        n_steps: Points of the integral.
        rule: One of `QUADRATURES`; `right` is that of the paper.
        positions: `sum` over them, or `aligned`.
        n_checked: Largest edges that are intervened on.
        max_tokens: Largest number of tokens in one pass.

    Raises:
        UserError: an option that does not exist, no prompts, or prompts that cannot be aligned.

    Status: nodes and edges first-order; `intervened` exact.
    """
    recipe = Recipe(node_threshold, edge_threshold, method, n_steps, rule, positions, n_checked, max_tokens)
    check_method(method, n_steps=n_steps, rule=rule)
    check_positions(positions, {batch.clean.shape[1] for batch in prompts})
    runs = [_effects_of(sites, batch, recipe) for batch in prompts]
    parts = [_part(sites, seen, effects, recipe) for seen, effects in runs]
    gaps = {at.name: completeness_gap([e[i] for _, e in runs]) for i, at in enumerate(sites)}
    meta = {"recipe": asdict(recipe), "completeness_gaps": gaps}
    graph = aggregate(sites, parts, positions=positions, unit=prompts[0].metric.unit, meta=meta)
    graph, checks = verify(sites, runs, graph, n_edges=n_checked, max_tokens=max_tokens)
    return FeatureCircuit(graph, gaps, checks, recipe)


Run = tuple[Seen, tuple[SiteEffects, ...]]


def _effects_of(sites: FeatureSites, batch: Prompts, recipe: Recipe) -> Run:
    seen = observe(sites, batch)
    options = {"method": recipe.method, "n_steps": recipe.n_steps, "rule": recipe.rule}
    return seen, node_effects(sites, seen, max_tokens=recipe.max_tokens, **options)


def _part(sites: FeatureSites, seen: Seen, effects: Sequence[SiteEffects], recipe: Recipe) -> Part:
    kept = keep_nodes(sites, seen, effects, threshold=recipe.node_threshold)
    edges = find_edges(
        sites, seen, effects, kept, threshold=recipe.edge_threshold, max_tokens=recipe.max_tokens
    )
    return Part(kept, edges, *seen.prompts.clean.shape)


def verify(
    sites: FeatureSites,
    runs: Sequence[Run],
    graph: CircuitGraph,
    *,
    n_edges: int,
    max_tokens: int = MAX_TOKENS,
) -> tuple[CircuitGraph, EdgeCheck]:
    """The graph with `intervened` on its largest edges, and the figures of each prompt.

    Args:
        sites: The dictionaries.
        runs: Batches with their effects.
        graph: From `aggregate`.
        n_edges: How many edges.
        max_tokens: Largest number of tokens in one pass.
    """
    refs = refs_of(sites, graph)
    rows = graph.weight.abs().argsort(descending=True, stable=True)[:n_edges]
    edges = [(refs[graph.source[row]], refs[graph.target[row]]) for row in rows.tolist()]
    found = [check_edges(sites, seen, effects, edges, max_tokens=max_tokens) for seen, effects in runs]
    predicted, intervened = (
        torch.cat([getattr(part, name) for part in found], 1).cpu() for name in ("predicted", "intervened")
    )
    values = torch.full_like(graph.weight, torch.nan)
    values[rows] = intervened.mean(1)
    return replace(graph, intervened=values), EdgeCheck(tuple(edges), predicted, intervened)
