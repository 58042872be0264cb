"""Predicted against intervened: any edge, any node, under the freeze and in the live model.

    edge    A[t, s]: what removing node s changes at node t by direct paths
              frozen   patterns, norm scales and all other nodes held: must agree to rounding
              live     attention and norms live, MLP outputs held: what freezing leaves out
    node    effect of node s on a logit by all paths: direct ones and through other features
              frozen   features respond linearly, the set of active ones held: must agree to rounding
              live     the whole model live, its MLPs computing: how far the local linear model holds

An effect is what the reader loses when the node is removed, the workbench's sign. Interventions run forwards with
the model's own weights (`linear_run.py`, `live.py`); predictions come from the rows of the trace.
Status: exact interventions; the live figures say how good the first-order predictions are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.attribution_graph.agreement import EdgeAgreement, agreement
from workbench.circuits.attribution_graph.live import (
    Removal,
    frozen_streams,
    live_streams,
    read_features,
    read_logits,
    removal,
)
from workbench.circuits.attribution_graph.respond import responding_streams, total_effects
from workbench.circuits.attribution_graph.trace import AttributionTrace
from workbench.errors import UserError

N_CHECKED, RUN_BYTES = 200, 256 * 2**20


@dataclass(frozen=True, eq=False)
class Verification:
    """Effects predicted and intervened, a row each.

    Attributes:
        table: Columns `source`, `target` (node numbers), `predicted`, `frozen`, `live`; edges also `edge` (its number).
        frozen: Agreement of predicted and frozen effects.
        live: Agreement of predicted and live effects.
    """

    table: pd.DataFrame
    frozen: EdgeAgreement
    live: EdgeAgreement


def verify_edges(
    found: AttributionTrace,
    edges: Sequence[int] | None = None,
    *,
    n_edges: int = N_CHECKED,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Verification:
    """Direct effects of edges, predicted and intervened.

    Args:
        found: The trace.
        edges: Numbers of edges; by default half of `n_edges` the heaviest and half drawn at random.
        n_edges: How many are checked by default.
        seed: Decides the random half and the resamples.
        n_resamples: Bootstrap resamples of the agreement.

    Raises:
        UserError: the trace has no such edge.

    Status: exact interventions.
    """
    numbers = _default_edges(found, n_edges, seed) if edges is None else _checked(found, edges)
    source, target = (ends[numbers].numpy() for ends in found.edges)
    predicted = found.effects.weight[numbers].double().numpy()
    readers = sorted(set(target.tolist()))
    frozen, live = _both(found, sorted(set(source.tolist())), readers, _edge_runs)
    places = _places(source, sorted(set(source.tolist()))), _places(target, readers)
    columns = {"edge": numbers.numpy(), "source": source, "target": target, "predicted": predicted}
    table = pd.DataFrame({**columns, "frozen": frozen[places], "live": live[places]})
    return _verification(table, seed, n_resamples)


def verify_nodes(
    found: AttributionTrace,
    nodes: Sequence[int] | None = None,
    *,
    n_nodes: int = 50,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Verification:
    """Total effects of nodes on every logit, predicted and intervened.

    Args:
        found: A trace whose features all have rows, with all their edges.
        nodes: Numbers of sources; by default half of `n_nodes` the strongest and half drawn at random.
        n_nodes: How many are checked by default.
        seed: Decides the random half and the resamples.
        n_resamples: Bootstrap resamples of the agreement.

    Raises:
        UserError: rows or edges were left out, so that total effects are not known; or there is no such node.

    Status: exact interventions.
    """
    predicted = total_effects(found)
    n = len(found.model.sources)
    chosen = _default_nodes(predicted, n_nodes, seed) if nodes is None else [int(s) for s in nodes]
    if any(not 0 <= s < n for s in chosen):
        raise UserError(
            f"nodes {chosen[:8]} are not all sources of the trace: give numbers from 0 to {n - 1}"
        )
    readers = list(range(n, found.n_nodes))
    frozen, live = _both(found, chosen, readers, _node_runs)
    source, target = np.repeat(chosen, len(readers)), np.tile(readers, len(chosen))
    columns = {
        "source": source,
        "target": target,
        "predicted": predicted[:, chosen].T.double().numpy().ravel(),
    }
    table = pd.DataFrame({**columns, "frozen": frozen.ravel(), "live": live.ravel()})
    return _verification(table, seed, n_resamples)


Runs = Callable[[AttributionTrace, Removal], tuple[list[Tensor], list[Tensor]]]


def _edge_runs(found: AttributionTrace, removed: Removal) -> tuple[list[Tensor], list[Tensor]]:
    return frozen_streams(found.model, removed), live_streams(found.model, removed, live_mlps=False)


def _node_runs(found: AttributionTrace, removed: Removal) -> tuple[list[Tensor], list[Tensor]]:
    return responding_streams(found.model, removed), live_streams(found.model, removed, live_mlps=True)


@torch.no_grad()
def _both(
    found: AttributionTrace, sources: list[int], readers: list[int], runs: Runs
) -> tuple[np.ndarray, np.ndarray]:
    """Effects (source, reader) under the freeze and in the live model."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for groups in batches(found, sources):
        streams = runs(found, removal(found.model, [[], *([row] for row in groups)]))
        for part, stream, live in zip(parts, streams, (False, True), strict=True):
            values = read(found, stream, readers, live=live)
            part.append((values[0] - values[1:]).double().cpu())
    frozen, live = (torch.cat(part).numpy() for part in parts)
    return frozen, live


def batches(found: AttributionTrace, sources: list[int]) -> Iterator[list[int]]:
    """Sources a few at a time, so that the streams of a run fit."""
    model = found.model
    wide = model.anatomy.n_heads * model.frozen.n_pos + 4 * model.anatomy.d_model * (2 * model.n_layers + 1)
    size = max(1, RUN_BYTES // (model.frozen.embedded.element_size() * model.frozen.n_pos * wide))
    for start in range(0, len(sources), size):
        yield sources[start : start + size]


def read(
    found: AttributionTrace, streams: list[Tensor], readers: list[int], *, live: bool
) -> Float[Tensor, "row reader"]:
    """What nodes read, by node number: features' pre-activations and logits."""
    n, device = found.model.sources.n_features, streams[0].device
    last = len(found.model.sources)
    features = torch.tensor([r for r in readers if r < n], dtype=torch.int64, device=device)
    logits = torch.tensor([r - last for r in readers if r >= last], dtype=torch.int64, device=device)
    parts = [read_features(found.model, streams, features, live=live)]
    parts.append(read_logits(found.model, streams, found.logits, live=live)[:, logits])
    return torch.cat(parts, dim=1)


def _verification(table: pd.DataFrame, seed: int, n_resamples: int) -> Verification:
    predicted = table["predicted"].to_numpy()
    frozen, live = (
        agreement(predicted, table[name].to_numpy(), seed=seed, n_resamples=n_resamples)
        for name in ("frozen", "live")
    )
    return Verification(table, frozen, live)


def _places(values: np.ndarray, known: list[int]) -> np.ndarray:
    return np.searchsorted(np.array(known), values)


def _default_edges(found: AttributionTrace, n: int, seed: int) -> Tensor:
    weight = found.effects.weight.abs()
    heavy = weight.topk(min(n // 2, len(weight))).indices
    drawn = torch.randperm(len(weight), generator=torch.Generator().manual_seed(seed))[: n - n // 2]
    return torch.cat([heavy, drawn]).unique()


def _default_nodes(predicted: Tensor, n: int, seed: int) -> list[int]:
    strength = predicted.abs().sum(0)
    heavy = strength.topk(min(n // 2, len(strength))).indices
    there = (strength > 0).nonzero()[:, 0]
    drawn = there[torch.randperm(len(there), generator=torch.Generator().manual_seed(seed))[: n - n // 2]]
    return torch.cat([heavy, drawn]).unique().tolist()


def _checked(found: AttributionTrace, edges: Sequence[int]) -> Tensor:
    numbers, n = torch.as_tensor(list(edges), dtype=torch.int64), len(found.effects.weight)
    if not len(numbers) or int(numbers.min()) < 0 or int(numbers.max()) >= n:
        raise UserError(f"edges {list(edges)[:8]} are not in the trace: give numbers from 0 to {n - 1}")
    return numbers
