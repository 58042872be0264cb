"""From scores to circuits: the k best nodes or edges, for many k at once.

Scores are effects in logits, positive helps the answer (`workbench.circuits.metric`). `signed` keeps the largest,
so what works against the answer comes last; `absolute` keeps the largest in size. Ties go by the order of
computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.circuits.scoring.curves import RANKINGS
from workbench.circuits.wiring.catalogue import Wiring
from workbench.errors import UserError, nearest


@dataclass(frozen=True, eq=False)
class Ranking:
    """Nodes or edges of a model from best to worst.

    Attributes:
        wiring: The model's writers, readers and edges.
        scores: One an entry of a mask (writer) or (writer, reader); entries that are no edge are not looked at.
        order: One of `RANKINGS`.
    """

    wiring: Wiring
    scores: Float[Tensor, " writer"] | Float[Tensor, "writer reader"]
    order: str = "signed"

    def __post_init__(self) -> None:
        if self.order not in RANKINGS:
            raise UserError(f"order {self.order!r} is not known; {nearest(self.order, RANKINGS)}")
        if self.scores.shape not in (self.wiring.allowed.shape, self.wiring.allowed.shape[:1]):
            raise UserError(
                f"scores of shape {tuple(self.scores.shape)} are neither of nodes ({self.wiring.n_writers},) nor of "
                f"edges {tuple(self.wiring.allowed.shape)} of this model"
            )
        inside = self.scores.cpu()[self.pool]
        if not inside.isfinite().all():
            raise UserError(
                f"{int((~inside.isfinite()).sum())} scores are not finite: give a number for each"
            )

    @property
    def pool(self) -> Bool[Tensor, "*circuit"]:
        """Everything that can be kept."""
        return (
            self.wiring.allowed
            if self.scores.ndim == 2
            else torch.ones(self.wiring.n_writers, dtype=torch.bool)
        )

    @property
    def unit(self) -> str:
        """`nodes` or `edges`."""
        return "edges" if self.scores.ndim == 2 else "nodes"

    @property
    def n_total(self) -> int:
        """How many there are."""
        return int(self.pool.sum())

    def best_first(self) -> Int[Tensor, " rank"]:
        """Flat places of all nodes or edges, best first."""
        scores = self.scores.detach().cpu().double()
        scores = scores if self.order == "signed" else scores.abs()
        places = self.pool.flatten().nonzero()[:, 0]
        return places[torch.argsort(-scores.flatten()[places], stable=True)]

    def top(self, sizes: Sequence[int]) -> Bool[Tensor, "size ..."]:
        """Masks of the so many best.

        Raises:
            UserError: a size below 0 or above their number.
        """
        wrong = next((n for n in sizes if not 0 <= n <= self.n_total), None)
        if wrong is not None:
            raise UserError(f"size {wrong} is not between 0 and the {self.n_total} {self.unit} of this model")
        order = self.best_first()
        masks = torch.zeros(len(sizes), self.pool.numel(), dtype=torch.bool)
        for row, n in enumerate(sizes):
            masks[row, order[:n]] = True
        return masks.unflatten(1, tuple(self.pool.shape))

    def sizes_of(self, fracs: Sequence[float]) -> list[int]:
        """Numbers for shares of all, at least 1, each once, ascending."""
        return sorted({max(1, round(frac * self.n_total)) for frac in fracs})


def nodes_in(mask: Bool[Tensor, "writer reader"], wiring: Wiring) -> list[str]:
    """Writers with a kept edge, in the order of computation."""
    return [wiring.writers[row] for row in mask.any(1).nonzero()[:, 0].tolist()]
