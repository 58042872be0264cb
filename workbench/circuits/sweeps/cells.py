"""Which cells a sweep has, and in which order they run.

A cell is a site, a unit of it and, for sweeps by position, a position. Cells that write in front of the first
difference of the prompts, or after the last attention at another position than the last, have effect 0 and are
not run. The others are sorted by the first position of their streams, then by depth, and cut into chunks of at
most `max_tokens` rows; positions fall into at most `n_buckets` buckets, and a bucket's streams begin at its
first position (few buckets: fewer, larger matrices; many: fewer rows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.sweeps.sites import SweepSite
from workbench.circuits.sweeps.wave import Launch

N_BUCKETS = 8
KEYS_PER_ROW = 4
ALL = -1


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        site: Index of the site.
        unit: Index of the unit.
        pos: Position, `ALL` for every one.
        first: First position of its stream.
        row: Where its effect stands.
    """

    site: int
    unit: int
    pos: int
    first: int
    row: int


def list_cells(
    sites: Sequence[SweepSite],
    positions: Sequence[int] | None,
    *,
    start: int | None,
    last_attention: int,
    n_buckets: int = N_BUCKETS,
) -> list[Cell]:
    """The cells that have to be run, in running order.

    Args:
        sites: The sites.
        positions: One cell a unit and position; None for one cell a unit.
        start: First position at which the prompts differ; None where a layer looks ahead and every stream is whole.
        last_attention: Depth after the last attention; cells from there on matter at the last position only.
        n_buckets: Largest number of different first positions.
    """
    length = sites[0].base.shape[1]
    swept = [ALL] if positions is None else [p for p in positions if p >= (start or 0)]
    firsts = dict.fromkeys(swept, 0) if start is None else {**_first_positions(swept, n_buckets), ALL: start}
    rows = {cell: row for row, cell in enumerate(_names(sites, [ALL] if positions is None else positions))}
    cells = [
        Cell(*name, firsts[name[2]], rows[name])
        for name in _names(sites, swept)
        if name[2] in (ALL, length - 1) or sites[name[0]].depth < last_attention
    ]
    return sorted(cells, key=lambda c: (c.first, sites[c.site].depth, c.site))


def _names(sites: Sequence[SweepSite], positions: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    return ((s, u, p) for s, site in enumerate(sites) for u in range(site.n_units) for p in positions)


def _first_positions(positions: Sequence[int], n_buckets: int) -> dict[int, int]:
    """First position of the bucket of each position; buckets hold equally many, ascending."""
    ordered = sorted(set(positions))
    width = -(-len(ordered) // n_buckets) or 1
    return {p: ordered[i - i % width] for i, p in enumerate(ordered)}


def chunks_of(cells: Sequence[Cell], *, n_prompts: int, length: int, max_tokens: int) -> list[list[Cell]]:
    """The cells in order, in chunks of at most `max_tokens` rows (a cell alone may have more).

    Every cell sees the keys of all earlier positions, so a short stream counts for a share of the whole prompt.
    """
    chunks: list[list[Cell]] = []
    rows = max_tokens + 1
    for cell in cells:
        size = n_prompts * max(length - cell.first, length // KEYS_PER_ROW)
        if rows + size > max_tokens:
            chunks.append([])
            rows = 0
        chunks[-1].append(cell)
        rows += size
    return chunks


def launches_of(chunk: Sequence[Cell], sites: Sequence[SweepSite]) -> list[Launch]:
    """Runs of a chunk, one launch a site and first position."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, cell in enumerate(chunk):
        groups.setdefault((cell.site, cell.first), []).append(row)
    return [
        Launch(sites[site].depth, first, _maker(sites[site], [chunk[r] for r in rows], first), rows)
        for (site, first), rows in groups.items()
    ]


def _maker(site: SweepSite, cells: Sequence[Cell], first: int) -> Callable[[], Tensor]:
    units = torch.tensor([cell.unit for cell in cells], device=site.base.device)
    if cells[0].pos == ALL:
        return lambda: site.stream(site.changes(units, None, first), slice(first, None))
    positions = torch.tensor([cell.pos for cell in cells], device=site.base.device)
    return lambda: _at_positions(site, units, positions, first)


def _at_positions(
    site: SweepSite, units: Tensor, positions: Tensor, first: int
) -> Float[Tensor, "cell prompt pos d_model"]:
    """The base stream from `first` on, each cell with its own position replaced."""
    streams = site.base[:, first:].repeat(len(units), 1, 1, 1)
    new = site.stream(site.changes(units, positions, first), positions)
    streams[torch.arange(len(units), device=units.device), :, positions - first] = new[:, :, 0]
    return streams
