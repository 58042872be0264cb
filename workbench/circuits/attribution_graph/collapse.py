"""May a group stand for its members? The group removed as one, predicted and intervened; and the collapsed graph.

    predicted   effect on a logit of removing all members at once, by paths that do not pass a member again
    frozen      the same by intervention in the replacement model, members held at zero: must agree to rounding
    live        all members removed in the model itself, everything live
    apart       the members' live effects summed; `live` differs from it by what they do only together

A member that feeds another would be counted twice by a sum of total effects: the group's effect is that of the joint
removal. Weights of the collapsed graph are sums over the edges between two groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.attribution_graph.graph import node_name
from workbench.circuits.attribution_graph.live import live_streams, read_logits, removal
from workbench.circuits.attribution_graph.respond import responding_streams, total_effects
from workbench.circuits.attribution_graph.trace import AttributionTrace
from workbench.circuits.circuit_graph import DEFAULTS, CircuitGraph, node_table
from workbench.errors import UserError


@torch.no_grad()
def check_groups(found: AttributionTrace, groups: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Effects of removing each group, predicted and intervened, a row for each group and logit.

    Args:
        found: A trace whose features all have rows, with all their edges.
        groups: Source numbers of the members.

    Returns:
        Columns `group`, `n_members`, `logit`, `predicted`, `frozen`, `live`, `apart`, and `error_frac`,
        |predicted - live| / |live|.

    Raises:
        UserError: rows or edges were left out, or a group names no feature.

    Status: exact interventions.
    """
    n_features = found.model.sources.n_features
    if any(not group or min(group) < 0 or max(group) >= n_features for group in groups):
        raise UserError(
            f"a group names no feature of the trace: give source numbers from 0 to {n_features - 1}"
        )
    parts = [_check_group(found, [int(m) for m in group], number) for number, group in enumerate(groups)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _check_group(found: AttributionTrace, group: list[int], number: int) -> pd.DataFrame:
    model, fixed = found.model, torch.zeros(2, found.model.sources.n_features, dtype=torch.bool)
    predicted = total_effects(found, blocked=group)[:, group].sum(1)
    fixed[1, group] = True
    joint = removal(model, [[], group])
    frozen = _lost(found, responding_streams(model, joint, fixed=fixed.to(model.anatomy.device)), live=False)[
        0
    ]
    each = removal(model, [[], group, *([member] for member in group)])
    lost = _lost(found, live_streams(model, each, live_mlps=True), live=True)
    live, apart = lost[0], lost[1:].sum(0)
    values = {"predicted": predicted, "frozen": frozen, "live": live, "apart": apart}
    table = pd.DataFrame({name: value.double().cpu().numpy() for name, value in values.items()})
    error = (table["predicted"] - table["live"]).abs() / table["live"].abs()
    about = {"group": number, "n_members": len(group), "logit": found.logits.labels}
    return pd.concat([pd.DataFrame(about), table.assign(error_frac=error)], axis=1)


def _lost(found: AttributionTrace, streams: list[Tensor], *, live: bool) -> Float[Tensor, "row logit"]:
    values = read_logits(found.model, streams, found.logits, live=live)
    return values[0] - values[1:]


def collapsed_graph(
    found: AttributionTrace, graph: CircuitGraph, groups: Sequence[Sequence[int]]
) -> CircuitGraph:
    """The graph with each group as one node of kind "group"; edges between two nodes are summed.

    Members that the graph does not have are left out; edges inside a group go.

    Raises:
        UserError: a feature in two groups.
    """
    names = [[node_name(found, int(member)) for member in group] for group in groups]
    owner = {name: number for number, group in enumerate(names) for name in group}
    if len(owner) < sum(len(group) for group in names):
        raise UserError("a feature is in two groups: a collapsed graph needs groups of one level")
    single = [name for name in graph.ids if name not in owner]
    place = {name: row for row, name in enumerate(single)}
    found_groups = sorted({owner[name] for name in graph.ids if name in owner})
    place |= {name: len(single) + found_groups.index(g) for name, g in owner.items() if g in found_groups}
    rows = np.array([place[name] for name in graph.ids])
    source, target = (torch.from_numpy(rows)[end.long()] for end in (graph.source, graph.target))
    source, target, weight = _summed(source, target, graph.weight, n=len(single) + len(found_groups))
    kept = pd.DataFrame(graph.nodes.loc[[name not in owner for name in graph.ids], list(DEFAULTS)])
    labels = {g: [name for name in names[g] if name in graph.ids] for g in found_groups}
    records = [
        {"node_id": f"group{g}", "kind": "group", "label": " + ".join(labels[g])[:200]} for g in found_groups
    ]
    made = node_table(records)
    meta = {**graph.meta, "supernodes": [[f"group{g}", *labels[g]] for g in found_groups]}
    nodes = pd.concat([kept, made], ignore_index=True) if records else kept.reset_index(drop=True)
    bare = replace(graph, intervened=None, low=None, high=None, kept=None)
    return replace(bare, nodes=nodes, source=source, target=target, weight=weight, meta=meta)


def _summed(source: Tensor, target: Tensor, weight: Tensor, *, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges between different nodes, those between the same two added up."""
    between = source != target
    codes, own = (source * n + target)[between].unique(return_inverse=True)
    total = torch.zeros(len(codes), dtype=weight.dtype).index_add_(0, own, weight[between])
    return codes // n, codes % n, total
