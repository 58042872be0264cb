"""Does a circuit need each of its parts? What is lost when one is taken out, with an interval.

    minimality(v) = m(C) - m(C without v)                                     logits, per node or edge
    over subsets:   max over K in C of  m(C \\ K) - m(C \\ (K + v))            K random, seeded

A node is taken out of a circuit of edges by removing every edge that leaves it. A part with an interval above 0
is needed; one at 0 does nothing that the rest does not do as well (a backup, or a passenger). Parts that work
against the answer come out negative. The second form finds backups: it looks for a K whose removal makes v count.
K is chosen on every second pair and the value measured on the others, so that the largest of many is no artefact.

`prune_to_minimal` takes out the part with the lowest lower end while there is one that is not above 0, and measures
the others anew each time. What is left is minimal on those pairs, so it is judged on others.
Source of both forms: Wang et al. 2022, arXiv:2211.00593, section 4 (there without intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.circuits.validation.curves import N_RESAMPLES, Resampling
from workbench.circuits.validation.judge import Judge, Mask
from workbench.errors import UserError, nearest
from workbench.intervals import Estimate, difference_estimate

UNITS = ("nodes", "edges")


@dataclass(frozen=True)
class Minimality:
    """What each part of a circuit adds to the rest.

    Attributes:
        names: Node ids, or `writer->reader`.
        effects: m(C) - m(C without it), in logits.
        removed: Names of the K of each part; empty tuples for the plain form.
    """

    names: tuple[str, ...]
    effects: tuple[Estimate, ...]
    removed: tuple[tuple[str, ...], ...]

    @property
    def all_positive(self) -> bool:
        """Whether every part is needed beyond its interval; false for an empty circuit."""
        return bool(self.effects) and all(effect.low > 0 for effect in self.effects)

    def table(self) -> pd.DataFrame:
        """One row a part."""
        rows = [effect.as_dict("minimality_logits") for effect in self.effects]
        return pd.DataFrame(
            {"name": self.names, **pd.DataFrame(rows).to_dict("list"), "removed": self.removed}
        )


@dataclass(frozen=True, eq=False)
class Pruned:
    """A circuit that needs all its parts, on the pairs it was pruned on.

    Attributes:
        mask: What is left.
        dropped: Names of the parts that were taken out, in this order.
        minimality: Of what is left, on the pairs it was pruned on.
        held_out: The same on other pairs, where a second judge was given.
    """

    mask: Mask
    dropped: tuple[str, ...]
    minimality: Minimality
    held_out: Minimality | None


def minimality(
    judge: Judge,
    mask: Mask,
    *,
    units: str = "nodes",
    n_subsets: int = 0,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Minimality:
    """What is lost when one part is taken out of a circuit, in logits. Status: exact; intervals are over pairs.

    Args:
        judge: Pairs and protocol.
        mask: The circuit, of nodes or of edges.
        units: Take out `nodes` (with all edges that leave them) or single `edges`.
        n_subsets: Random sets K that each part is tried without; 0 for the plain form.
        n_resamples: Bootstrap resamples.
        seed: Of the sets and the resampling.

    Raises:
        UserError: edges of a circuit of nodes.
    """
    names, removals = parts_of(judge, mask, units)
    options: Resampling = {"n_resamples": n_resamples, "seed": seed}
    if not names:
        return Minimality((), (), ())
    if n_subsets:
        return _over_subsets(judge, mask, names, removals, n_subsets, **options)
    metrics = judge.metrics(torch.cat([mask[None], mask & ~removals]))
    effects = tuple(
        difference_estimate(metrics[0], without, paired=True, **options) for without in metrics[1:]
    )
    return Minimality(tuple(names), effects, ((),) * len(names))


def prune_to_minimal(
    judge: Judge,
    mask: Mask,
    *,
    held_out: Judge | None = None,
    units: str = "nodes",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Pruned:
    """The circuit without parts that it does not need. Status: exact; greedy, one part at a time.

    Args:
        judge: Pairs to prune on, and the protocol.
        mask: The circuit, of nodes or of edges.
        held_out: Judges what is left on other pairs.
        units: Take out `nodes` or single `edges`.
        n_resamples: Bootstrap resamples.
        seed: Of the resampling.

    Raises:
        UserError: edges of a circuit of nodes.
    """
    options: Resampling = {"n_resamples": n_resamples, "seed": seed}
    mask, dropped = judge.alive(mask), []
    while True:
        found = minimality(judge, mask, units=units, **options)
        if not found.names or found.all_positive:
            break
        worst = int(np.argmin([effect.low for effect in found.effects]))
        dropped.append(found.names[worst])
        _, removals = parts_of(judge, mask, units)
        mask = judge.alive(mask & ~removals[worst])
    other = None if held_out is None else minimality(held_out, mask, units=units, **options)
    return Pruned(mask, tuple(dropped), found, other)


def parts_of(judge: Judge, mask: Mask, units: str) -> tuple[list[str], Bool[Tensor, "part ..."]]:
    """Names of the parts of a circuit, and for each the mask of what goes with it.

    Raises:
        UserError: unknown units, or edges of a circuit of nodes.
    """
    wiring = judge.wiring
    if units not in UNITS:
        raise UserError(f"units {units!r} is not known; {nearest(units, UNITS)}")
    if units == "edges" and mask.ndim == 1:
        raise UserError(
            "units 'edges' asks for the edges of a circuit of nodes: give an edge mask, or units 'nodes'"
        )
    if units == "edges":
        places = mask.nonzero().tolist()
        names = [f"{wiring.writers[w]}->{wiring.readers[r]}" for w, r in places]
    else:
        places = (mask if mask.ndim == 1 else mask.any(1)).nonzero().tolist()
        names = [wiring.writers[row] for (row,) in places]
    removals = torch.zeros(len(names), *mask.shape, dtype=torch.bool)
    for part, place in enumerate(places):
        removals[(part, *place)] = True
    return names, removals


def _over_subsets(
    judge: Judge,
    mask: Mask,
    names: Sequence[str],
    removals: Tensor,
    n_subsets: int,
    **options: Unpack[Resampling],
) -> Minimality:
    """For each part the K, of the empty one and `n_subsets` drawn ones, without which it counts most."""
    taken = draw_subsets(len(names), n_subsets, seed=options["seed"])
    smaller = torch.stack([mask & ~removals[k].any(0) for k in taken])
    both = torch.stack([smaller & ~removal for removal in removals])
    metrics = judge.metrics(torch.cat([smaller, both.flatten(0, 1)]))
    base = metrics[: len(taken)]
    lost = base[None] - metrics[len(taken) :].reshape(len(names), len(taken), -1)
    effects, chosen = [], []
    for part, by_subset in enumerate(lost):
        usable = np.array([not k[part] for k in taken.tolist()])
        best = int(np.argmax(np.where(usable, by_subset[:, ::2].mean(1), -np.inf)))
        judged = by_subset[best, 1::2] if by_subset.shape[1] > 1 else by_subset[best]
        effects.append(difference_estimate(judged, np.zeros(len(judged)), paired=True, **options))
        chosen.append(tuple(name for name, gone in zip(names, taken[best].tolist(), strict=True) if gone))
    return Minimality(tuple(names), tuple(effects), tuple(chosen))


def draw_subsets(n_parts: int, n_subsets: int, *, seed: int) -> Bool[Tensor, "subset part"]:
    """The empty set, and sets in which each part is with a probability drawn for the set."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(n_subsets, 1, generator=generator)
    drawn = torch.rand(n_subsets, n_parts, generator=generator) < share
    return torch.cat([torch.zeros(1, n_parts, dtype=torch.bool), drawn])
