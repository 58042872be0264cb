"""The k heaviest edges of a stream that is never held whole.

Rows of an attribution graph come in parts; each part is filtered against the k-th weight seen so far and the
rest is put by. Memory is O(k + part). What is dropped is summed by target, so that input shares can still be
formed over all input (`influence(..., unlisted_abs=)`).

The result does not depend on how the stream was cut: edges of equal size are ranked by target, then source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import UserError


@dataclass(frozen=True, eq=False)
class TopEdges:
    """The heaviest edges, largest absolute weight first.

    Attributes:
        source: Row of each edge's source (edge).
        target: Row of each edge's target (edge).
        weight: Signed weight (edge).
        unlisted_abs: Sum of the absolute weights into each node that were left out (node).
        n_seen: Number of edges in the stream.
    """

    source: Int[Tensor, " edge"]
    target: Int[Tensor, " edge"]
    weight: Float[Tensor, " edge"]
    unlisted_abs: Float[Tensor, " node"]
    n_seen: int


class StreamingTopK:
    """Takes edges in parts and keeps the k of largest absolute weight. Status: exact."""

    def __init__(self, k: int, *, n_nodes: int) -> None:
        if k < 1:
            raise UserError(f"k {k} keeps no edge: give at least 1")
        self.k, self.n_nodes, self.n_seen = k, n_nodes, 0
        self.floor = 0.0
        self._unlisted = torch.zeros(n_nodes, dtype=torch.float64)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(
        self, source: Int[Tensor, " part"], target: Int[Tensor, " part"], weight: Float[Tensor, " part"]
    ) -> None:
        """Take one part of the stream, on any device; an edge may come once only.

        `floor` is the absolute weight below which an edge cannot be kept any more.

        Raises:
            UserError: a weight that is not finite.
        """
        if not bool(weight.isfinite().all()):
            edge = int((~weight.isfinite()).nonzero()[0])
            raise UserError(
                f"the weight of edge {int(source[edge])} -> {int(target[edge])} is {float(weight[edge])}: "
                "give finite numbers"
            )
        self.n_seen += len(weight)
        possible = weight.abs() >= self.floor
        self._leave_out(target[~possible], weight[~possible])
        self._parts.append((source[possible].cpu(), target[possible].cpu(), weight[possible].cpu()))
        if sum(len(part[2]) for part in self._parts) > 2 * self.k:
            self._reduce()

    def result(self) -> TopEdges:
        """The k heaviest edges of what came in so far, fewer where fewer came."""
        if not self._parts:
            none = torch.zeros(0, dtype=torch.int64)
            return TopEdges(none, none, torch.zeros(0), self._unlisted.clone(), self.n_seen)
        self._reduce()
        source, target, weight = self._parts[0]
        order = _ranked(source, target, weight, self.n_nodes)
        return TopEdges(source[order], target[order], weight[order], self._unlisted.clone(), self.n_seen)

    def _reduce(self) -> None:
        source, target, weight = (torch.cat(columns) for columns in zip(*self._parts, strict=True))
        if len(weight) > self.k:
            size = weight.abs()
            floor = size.kthvalue(len(size) - self.k + 1).values
            above, level = (size > floor).nonzero()[:, 0], (size == floor).nonzero()[:, 0]
            level = level[_ranked(source[level], target[level], weight[level], self.n_nodes)]
            n_level = self.k - len(above)
            kept, dropped = torch.cat([above, level[:n_level]]), level[n_level:]
            below = torch.cat([(size < floor).nonzero()[:, 0], dropped])
            self._leave_out(target[below], weight[below])
            source, target, weight = source[kept], target[kept], weight[kept]
            self.floor = float(floor)
        self._parts = [(source, target, weight)]

    def _leave_out(self, target: Tensor, weight: Tensor) -> None:
        if len(weight):
            self._unlisted.index_add_(0, target.cpu().long(), weight.abs().cpu().double())


def _ranked(source: Tensor, target: Tensor, weight: Tensor, n_nodes: int) -> Tensor:
    """Places sorted by absolute weight, largest first, then by target, then by source."""
    key = target.long().numpy() * n_nodes + source.long().numpy()
    return torch.from_numpy(np.lexsort((key, -weight.abs().numpy())))


def top_k(
    source: Int[Tensor, " edge"],
    target: Int[Tensor, " edge"],
    weight: Float[Tensor, " edge"],
    k: int,
    *,
    n_nodes: int,
) -> TopEdges:
    """The k heaviest edges of arrays that are there already.

    Raises:
        UserError: k below 1, or a weight that is not finite.

    Status: exact.
    """
    stream = StreamingTopK(k, n_nodes=n_nodes)
    stream.add(source, target, weight)
    return stream.result()
