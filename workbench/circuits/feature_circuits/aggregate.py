"""From nodes and edges at single prompts and positions to one graph.

    sum       effect of a feature = mean over prompts of the sum over positions
    aligned   the same at each position by itself, for prompts that share a template

Thresholds are applied before this (`keep_nodes`, `find_edges`), as in the paper: what is below them at a prompt
and position counts as zero, so the weights of the graph are sums of what was kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.circuit_graph import CircuitGraph, node_table
from workbench.circuits.feature_circuits.edges import Edges
from workbench.circuits.feature_circuits.kept import ERROR, LOGIT, Kept, NodeRef, node_name
from workbench.circuits.feature_circuits.sites import FeatureSites
from workbench.errors import UserError, nearest

POSITIONS = ("sum", "aligned")


@dataclass(frozen=True, eq=False)
class Part:
    """What one batch of prompts gave.

    Attributes:
        kept: Its nodes.
        edges: Edges between them.
        n_prompts: Prompts of the batch.
        n_pos: Their length.
    """

    kept: Kept
    edges: Edges
    n_prompts: int
    n_pos: int


def aggregate(
    sites: FeatureSites,
    parts: Sequence[Part],
    *,
    positions: str = "sum",
    unit: str = "logits",
    meta: Mapping[str, Any] | None = None,
) -> CircuitGraph:
    """One graph of the batches; nodes carry `effect` and `n_prompts` (in how many they were kept) beside the usual.

    Args:
        sites: The dictionaries.
        parts: The batches.
        positions: `sum` or `aligned`.
        unit: Of the metric.
        meta: Goes into the graph's.

    Raises:
        UserError: no batch, unknown `positions`, or aligned prompts of unequal length.
    """
    check_positions(positions, {part.n_pos for part in parts})
    keys = torch.cat([_keys(part.kept, positions) for part in parts])
    nodes, row = torch.unique(keys, dim=0, return_inverse=True)
    n_prompts = sum(part.n_prompts for part in parts)
    refs = [NodeRef(site, feature, pos) for site, pos, feature in nodes.tolist()]
    table = node_table(_records(sites, refs) | _columns(parts, row, len(refs), n_prompts))
    source, target, weight = _edges(parts, row, len(refs), n_prompts)
    about = {"positions": positions, "n_prompts": n_prompts, **(meta or {})}
    return CircuitGraph(table, source.cpu(), target.cpu(), weight.cpu(), unit=unit, meta=about)


def check_positions(positions: str, lengths: set[int]) -> None:
    """Refuse what cannot be aggregated.

    Raises:
        UserError: unknown `positions`, no batch, or aligned prompts of unequal length.
    """
    if positions not in POSITIONS:
        raise UserError(f"positions {positions!r} is not known; {nearest(positions, POSITIONS)}")
    if not lengths:
        raise UserError("there are no prompts: a circuit needs one batch at least")
    if positions == "aligned" and len(lengths) > 1:
        raise UserError(
            f"prompts of {', '.join(map(str, sorted(lengths)))} tokens cannot be aligned: use one length, or "
            "positions='sum'"
        )


def _keys(kept: Kept, positions: str) -> Int[Tensor, "node 3"]:
    pos = kept.pos if positions == "aligned" else torch.full_like(kept.pos, -1)
    return torch.stack([kept.site, pos, kept.feature], -1)


def _records(sites: FeatureSites, refs: Sequence[NodeRef]) -> dict[str, list[Any]]:
    """Names and places of the nodes, the metric last."""
    at = [sites[ref.site].site for ref in refs]
    return {
        "node_id": [*(node_name(sites, ref) for ref in refs), LOGIT],
        "kind": [*("error" if ref.feature == ERROR else "feature" for ref in refs), "logit"],
        "layer": [*(site.layer for site in at), -1],
        "feature": [*(ref.feature for ref in refs), -1],
        "site": [*(site.hook for site in at), ""],
        "pos": [*(ref.pos for ref in refs), -1],
    }


def _columns(parts: Sequence[Part], row: Tensor, n_nodes: int, n_prompts: int) -> dict[str, list[Any]]:
    """Mean effect, in how many prompts a node was kept, and its mean activation there."""
    effect, value = (torch.cat([getattr(part.kept, name) for part in parts]) for name in ("effect", "value"))
    first = torch.tensor([0, *(part.n_prompts for part in parts)]).cumsum(0).tolist()
    prompt = torch.cat([part.kept.prompt + start for part, start in zip(parts, first, strict=False)])
    each = torch.unique(torch.stack([row, prompt], -1), dim=0)[:, 0]
    mean = _sums(row, effect, n_nodes) / n_prompts
    activation = _sums(row, value, n_nodes) / torch.bincount(row, minlength=n_nodes)
    return {
        "effect": [*mean.tolist(), float("nan")],
        "n_prompts": [*torch.bincount(each, minlength=n_nodes).tolist(), n_prompts],
        "activation": [*activation.tolist(), float("nan")],
    }


def _sums(row: Tensor, values: Tensor, n: int) -> Float[Tensor, " node"]:
    return values.new_zeros(n).index_add_(0, row, values)


def _edges(
    parts: Sequence[Part], row: Tensor, n_nodes: int, n_prompts: int
) -> tuple[Int[Tensor, " edge"], Int[Tensor, " edge"], Float[Tensor, " edge"]]:
    """Mean weight of each pair of nodes; the metric is row `n_nodes`."""
    pairs, start = [], 0
    for part in parts:
        own = row[start : start + len(part.kept)]
        start += len(part.kept)
        own = torch.cat([own, own.new_tensor([n_nodes])])  # -1, the metric, is the last
        pairs.append(own[part.edges.source] * (n_nodes + 1) + own[part.edges.target])
    weight = torch.cat([part.edges.weight for part in parts])
    edges, column = torch.unique(torch.cat(pairs), return_inverse=True)
    return edges // (n_nodes + 1), edges % (n_nodes + 1), _sums(column, weight, len(edges)) / n_prompts


def refs_of(sites: FeatureSites, graph: CircuitGraph) -> list[NodeRef]:
    """The nodes of a graph that `aggregate` made, row by row.

    Raises:
        UserError: a node of a site that has no dictionary here.
    """
    columns = (graph.nodes[name].tolist() for name in ("kind", "site", "feature", "pos"))
    return [
        NodeRef(len(sites)) if kind == "logit" else NodeRef(sites.index(hook), feature, pos)
        for kind, hook, feature, pos in zip(*columns, strict=True)
    ]
