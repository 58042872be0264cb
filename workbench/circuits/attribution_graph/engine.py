"""Direct effects of all sources on many targets, layered and causally truncated, without autograd.

Targets are taken position by position, the deepest layer first within a chunk, and go down together
(`descent.py`). A chunk of a short prompt holds the targets of one position, so nothing is computed for later
positions; of a long prompt it holds those of neighbouring positions, a few per cent apart. The cost of a target at
layer l and position p is l attention crossings of p + 1 positions, 2 d^2 multiplications each; its first
crossing costs a d-th of that, and the contraction with the sources is small beside it.

Memory beside what is kept: about six times (positions x targets of a chunk x d_model), bounded by `chunk_bytes`,
and one row of all sources per target of the chunk.

Status: exact for the frozen replacement model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.circuits.attribution_graph.descent import Descent
from workbench.circuits.attribution_graph.effects import Collector, Effects
from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.circuits.attribution_graph.targets import FeatureTargets, Targets
from workbench.errors import UserError
from workbench.interrupt import Interruption
from workbench.progress import Progress

CHUNK_BYTES = 96 * 2**20
BUFFERS = 6
NEAR_FRAC = 0.05


@torch.no_grad()
def direct_effects(
    replacement: Replacement,
    targets: Targets | FeatureTargets,
    *,
    edges_per_target: int | None = None,
    threshold: float = 0.0,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> Effects:
    """Effect of every source's whole output on what every target reads, in the target's units.

    Args:
        replacement: The replacement model.
        targets: Features, logits or directions.
        edges_per_target: Keep only the largest so many of each target; None keeps all that are not 0.
        threshold: Keep only effects of at least this absolute value.
        chunk_bytes: Bound on the temporary memory of a chunk.
        progress: Is advanced by one a target.

    Raises:
        UserError: edges_per_target or threshold keeps nothing.
        KeyboardInterrupt: after the chunk in hand, when Ctrl-C was pressed.

    Status: exact for the frozen model: patterns and norm scales held, other nodes held at their values.
    """
    if (edges_per_target is not None and edges_per_target < 1) or threshold < 0:
        raise UserError(
            f"edges_per_target {edges_per_target} and threshold {threshold} keep no edges: give at least 1, "
            "and 0 or more"
        )
    collector = Collector(edges_per_target, threshold)
    collect(replacement, targets, collector, chunk_bytes=chunk_bytes, progress=progress)
    return collector.result()


@torch.no_grad()
def collect(
    replacement: Replacement,
    targets: Targets | FeatureTargets,
    collector: Collector,
    *,
    first_row: int = 0,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> None:
    """Add the rows of targets to a collector, as its rows from `first_row` on.

    Raises:
        KeyboardInterrupt: after the chunk in hand, when Ctrl-C was pressed.
    """
    with Interruption() as interruption:
        for rows in chunks(replacement, targets, chunk_bytes):
            collector.add(rows + first_row, Descent(replacement, targets.take(rows)).run().rows)
            if progress is not None:
                progress.advance(len(rows))
            if interruption.requested:
                interruption.stop("stopped: no graph is kept, start the trace again")


def chunks(
    replacement: Replacement, targets: Targets | FeatureTargets, chunk_bytes: int
) -> Iterator[Int[Tensor, " target"]]:
    """Numbers of targets that go down together: positions from the last, near ones together."""
    pos, depth = targets.pos, targets.depth
    order = (pos * (replacement.anatomy.last_depth + 1) + depth).argsort(descending=True, stable=True)
    ordered, start = pos[order].tolist(), 0
    while start < len(ordered):
        stop = start + _n_together(ordered, start, replacement, chunk_bytes)
        yield order[start:stop]
        start = stop


def _n_together(ordered: Sequence[int], start: int, replacement: Replacement, chunk_bytes: int) -> int:
    """How many targets from `start` make a chunk: near positions, within the memory."""
    first, like = int(ordered[start]), replacement.frozen.embedded
    one = like.element_size() * (BUFFERS * (first + 1) * like.shape[1] + 3 * len(replacement.sources))
    most = max(1, chunk_bytes // one)
    least = first - int(NEAR_FRAC * first)
    count = 0
    while count < most and start + count < len(ordered) and ordered[start + count] >= least:
        count += 1
    return count
