"""From scores to a circuit: which edges are kept.

    top_n         the n largest, by size or by signed value
    threshold     all above a bound
    greedy        from the logits upward: always the largest edge whose reader already leads to the logits
    connected     what lies on a path from the embedding to the logits; dead ends change nothing and are dropped

With resampled values an edge that no live path reaches carries its replaced value whether it is kept or not, so
`connected` changes no metric; with means or zeros a component gives something even without live inputs, and then
only what does not lead to the logits may be dropped (`from_embedding=False`).
"""

from __future__ import annotations

import heapq

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.circuits.wiring.plan import needed_readers, reach
from workbench.errors import UserError


def top_n(scores: EdgeScores, n: int, *, signed: bool = False) -> Bool[Tensor, "writer reader"]:
    """The n edges of largest size, or largest value with `signed`; ties in the order of `Wiring.edges`.

    Raises:
        UserError: n is negative or more than there are scored edges.
    """
    values = _values(scores, signed=signed)
    n_scored = int((~values.isneginf()).sum())
    if not 0 <= n <= n_scored:
        raise UserError(
            f"n {n} is no number of edges to keep: give 0 to {n_scored}, the number of scored edges"
        )
    return _mask(scores.wiring, values.argsort(descending=True, stable=True)[:n])


def threshold(scores: EdgeScores, bound: float, *, signed: bool = False) -> Bool[Tensor, "writer reader"]:
    """Edges whose size (or value with `signed`) is at least `bound`, in the scores' unit."""
    return _mask(scores.wiring, (_values(scores, signed=signed) >= bound).nonzero().flatten())


def greedy(scores: EdgeScores, n: int, *, signed: bool = False) -> Bool[Tensor, "writer reader"]:
    """n edges chosen upward from the logits, each the largest of those whose reader leads to them.

    Raises:
        UserError: n is negative or more than there are edges.
    """
    wiring, values = scores.wiring, _values(scores, signed=signed)
    if not 0 <= n <= wiring.n_edges:
        raise UserError(f"n {n} is no number of edges to keep: give 0 to {wiring.n_edges}")
    into: dict[int, list[int]] = {}
    for edge, (_, reader) in enumerate(wiring.pairs.tolist()):
        into.setdefault(reader, []).append(edge)
    chosen: list[int] = []
    open_edges = [(-float(values[edge]), edge) for edge in into[wiring.logit]]
    heapq.heapify(open_edges)
    reached = {wiring.logit}
    while open_edges and len(chosen) < n:
        _, edge = heapq.heappop(open_edges)
        chosen.append(edge)
        for reader in wiring.read_by(int(wiring.pairs[edge, 0])):
            if reader not in reached:
                reached.add(reader)
                for other in into[reader]:
                    heapq.heappush(open_edges, (-float(values[other]), other))
    return _mask(wiring, torch.tensor(chosen, dtype=torch.long))


def connected(
    wiring: Wiring, mask: Bool[Tensor, "writer reader"], *, from_embedding: bool = True
) -> Bool[Tensor, "writer reader"]:
    """The kept edges that lead to the logits and, by default, that the embedding reaches."""
    wiring.check_masks(mask)
    mask = mask.cpu()
    embed = torch.zeros(wiring.n_writers, dtype=torch.bool)
    embed[0] = True
    found = reach(wiring, mask[None], embed)
    live = found.writer_live[0] | embed if from_embedding else torch.ones_like(embed)
    return mask & live[:, None] & needed_readers(wiring, found.writer_needed)[0]


def _values(scores: EdgeScores, *, signed: bool) -> Float[Tensor, " edge"]:
    values = scores.of_edges().double().cpu()
    values = values if signed else values.abs()
    return values.nan_to_num(float("-inf"), posinf=float("inf"), neginf=float("-inf"))


def _mask(wiring: Wiring, edges: Tensor) -> Bool[Tensor, "writer reader"]:
    mask = torch.zeros_like(wiring.allowed)
    chosen = wiring.pairs[edges]
    mask[chosen[:, 0], chosen[:, 1]] = True
    return mask
