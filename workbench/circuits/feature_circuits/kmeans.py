"""K-means from several seeded starts: rows to groups of least squared distance to their mean.

Starts are drawn far apart (Arthur and Vassilvitskii 2007, k-means++), then rows and means are fitted in turn until
nothing moves (Lloyd 1982). Status: a local optimum, the best of `n_starts`; bit-reproducible in the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import UserError

N_STARTS, N_ROUNDS = 8, 100


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups of rows.

    Attributes:
        group: Of each row (row).
        centres: Means (group, width).
        explained_frac: Share of the variance that lies between groups.
    """

    group: Int[Tensor, " row"]
    centres: Float[Tensor, "group width"]
    explained_frac: float


def kmeans(
    x: Float[Tensor, "row width"], n_groups: int, *, seed: int = 0, n_starts: int = N_STARTS
) -> Grouping:
    """The best of several starts.

    Args:
        x: The rows.
        n_groups: Number of groups.
        seed: Decides the starts.
        n_starts: Their number.

    Raises:
        UserError: fewer rows than groups, or no group.
    """
    if not 1 <= n_groups <= len(x):
        raise UserError(f"n_groups {n_groups} does not fit {len(x)} samples: give 1 to {len(x)}")
    x, generator = x.double().cpu(), torch.Generator().manual_seed(seed)
    fits = [_fit(x, _start(x, n_groups, generator)) for _ in range(n_starts)]
    group, centres, within = min(fits, key=lambda fit: fit[2])
    total = float((x - x.mean(0)).square().sum())
    return Grouping(group, centres.float(), 1 - within / total if total else 0.0)


def _start(x: Tensor, n_groups: int, generator: torch.Generator) -> Float[Tensor, "group width"]:
    """Rows drawn with a chance that grows with the squared distance to the nearest one drawn before."""
    rows = [int(torch.randint(len(x), (1,), generator=generator))]
    distance = torch.full((len(x),), torch.inf, dtype=x.dtype)
    for _ in range(n_groups - 1):
        distance = torch.minimum(distance, (x - x[rows[-1]]).square().sum(-1))
        chance = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        rows.append(int(torch.multinomial(chance, 1, generator=generator)))
    return x[rows]


def _fit(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, float]:
    """Groups, means and the squared distance left; an empty group takes the row that is worst off."""
    group = torch.full((len(x),), -1)
    for _ in range(N_ROUNDS):
        distance, new = torch.cdist(x, centres).square().min(-1)
        if torch.equal(new, group):
            break
        group = new
        size = torch.bincount(group, minlength=len(centres))
        centres = torch.zeros_like(centres).index_add_(0, group, x) / size.clamp_min(1)[:, None]
        empty = (size == 0).nonzero()[:, 0]
        centres[empty] = x[distance.argsort(descending=True, stable=True)[: len(empty)]]
    return group, centres, float((x - centres[group]).square().sum())
