"""Direct effects as sparse rows: for each target the sources that have an effect on it, and how large.

Rows arrive a chunk of targets at a time and are thinned before they are kept, so that memory is bounded by what
is kept and by one chunk. Whatever is left out is counted: `total` and `abs_total` are sums over all sources of a
target, so shares of a row are shares of the whole row, and `kept_frac` says how much of it is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of sources on targets, grouped by target.

    Attributes:
        offsets: Where each target's entries begin; the last is their number (target + 1).
        source: Row of the source of each entry (entry).
        weight: Effect of the whole output of that source on what the target reads (entry).
        total: Sum of the effects of all sources, also those not kept (target).
        abs_total: Sum of their absolute values (target).
    """

    offsets: Int[Tensor, " target_plus_one"]
    source: Int[Tensor, " entry"]
    weight: Float[Tensor, " entry"]
    total: Float[Tensor, " target"]
    abs_total: Float[Tensor, " target"]

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return len(self.total)

    @property
    def target(self) -> Int[Tensor, " entry"]:
        """Row of the target of each entry."""
        return torch.arange(self.n_targets).repeat_interleave(self.offsets.diff())

    @property
    def kept_frac(self) -> Float[Tensor, " target"]:
        """Share of each target's absolute effects that is kept; 1 where it has none."""
        kept = self.abs_total.new_zeros(self.n_targets).index_add_(0, self.target, self.weight.abs())
        return torch.where(self.abs_total > 0, kept / self.abs_total, torch.ones_like(kept))

    def row(self, target: int) -> tuple[Int[Tensor, " entry"], Float[Tensor, " entry"]]:
        """Sources and effects of one target."""
        inside = slice(int(self.offsets[target]), int(self.offsets[target + 1]))
        return self.source[inside], self.weight[inside]

    def dense(self, n_sources: int) -> Float[Tensor, "target source"]:
        """All effects as a matrix, for small graphs."""
        out = self.weight.new_zeros(self.n_targets, n_sources)
        out[self.target, self.source.long()] = self.weight
        return out

    def take(self, targets: Int[Tensor, " some"]) -> Effects:
        """The rows of some targets, in that order."""
        counts = self.offsets.diff()[targets]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        entries = torch.arange(int(offsets[-1])) - (offsets[:-1] - self.offsets[targets]).repeat_interleave(
            counts
        )
        return Effects(
            offsets, self.source[entries], self.weight[entries], self.total[targets], self.abs_total[targets]
        )


@dataclass
class Collector:
    """Rows of targets in any order, thinned as they come.

    Attributes:
        edges_per_target: Keep the largest so many by absolute value; None keeps all.
        threshold: Keep those of at least this absolute value.
    """

    edges_per_target: int | None = None
    threshold: float = 0.0
    _parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, targets: Int[Tensor, " target"], rows: Float[Tensor, "source target"]) -> None:
        """Keep the effects on some targets."""
        by_target = rows.T.contiguous()
        size = by_target.abs()
        totals = by_target.sum(1), size.sum(1)
        counts, source, weight = self._thinned(by_target, size)
        kept = (targets, counts, source, weight, *totals)
        self._parts.append(tuple(t.cpu() for t in kept))  # pyright: ignore[reportArgumentType]

    def _thinned(self, rows: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers by target, sources (ascending) and effects of what is kept."""
        k = self.edges_per_target
        if k is not None and k < rows.shape[1]:
            columns = size.topk(k, dim=1).indices.sort(1).values
            rows, size = rows.gather(1, columns), size.gather(1, columns)
        else:
            columns = None
        keep = (size >= self.threshold) & (size != 0)
        place = keep.nonzero(as_tuple=True)
        source = place[1] if columns is None else columns[place]
        return keep.sum(1), source.to(torch.int32), rows[place]

    def result(self) -> Effects:
        """All rows, by target; what was collected is given up."""
        if not self._parts:
            empty = torch.zeros(0)
            return Effects(torch.zeros(1, dtype=torch.int64), empty.to(torch.int32), empty, empty, empty)
        targets, counts, totals, sizes = (torch.cat([p[i] for p in self._parts]) for i in (0, 1, 4, 5))
        order = targets.argsort()
        offsets = torch.cat([counts.new_zeros(1), counts[order].cumsum(0)])
        starts = torch.empty_like(counts)
        starts[order] = offsets[:-1]
        source = torch.empty(int(offsets[-1]), dtype=torch.int32)
        weight = torch.empty(int(offsets[-1]), dtype=self._parts[0][3].dtype)
        first = 0
        for number, (own, own_counts, own_source, own_weight, *_) in enumerate(self._parts):
            place = _places(starts[first : first + len(own)], own_counts)
            source[place], weight[place] = own_source, own_weight
            gone = own_weight.new_empty(0)
            self._parts[number] = (own, own_counts, gone, gone, gone, gone)
            first += len(own)
        return Effects(offsets, source, weight, totals[order], sizes[order])


def _places(starts: Int[Tensor, " target"], counts: Int[Tensor, " target"]) -> Int[Tensor, " entry"]:
    """Where entries go that lie target after target, each target's from its own start."""
    before = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum())) + (starts - before).repeat_interleave(counts)
