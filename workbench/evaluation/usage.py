"""How a dictionary uses its latents: how often each fires, which never do, and which nearly always do.

A latent is dead on n rows if it fires on none of them; one that fires on a share f of all rows is still dead
on n of them with probability (1 - f)^n, so the dead fraction falls as n grows and means nothing without n.
Dense latents fire on more than a tenth of the rows: they are directions rather than concepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.kernels import latent_counts

DENSE_FRAC = 0.1
BINS_PER_DECADE = 4


@dataclass(frozen=True)
class Usage:
    """Firings of each latent on some rows.

    Attributes:
        counts: Rows on which a latent's value is positive (d_sae).
        n_rows: Rows in all.
    """

    counts: Int64[Tensor, " d_sae"]
    n_rows: int

    @property
    def density(self) -> Float[Tensor, " d_sae"]:
        """Share of rows on which each latent fires, float64."""
        return self.counts.double() / self.n_rows

    @property
    def dead_frac(self) -> float:
        """Share of latents that fire on none of the rows."""
        return float((self.counts == 0).double().mean())

    @property
    def dense_frac(self) -> float:
        """Share of latents that fire on more than a tenth of the rows."""
        return float((self.density > DENSE_FRAC).double().mean())

    def histogram(self) -> dict[str, Any]:
        """Latents by log10 of their density: `log10_edges` and `n_latents` per bin, the dead ones apart.

        Bins are quarters of a decade, open above but for the last, from 1 / n_rows (or below) to 1.
        """
        decades = len(str(self.n_rows - 1)) if self.n_rows > 1 else 1
        edges = torch.linspace(-decades, 0, decades * BINS_PER_DECADE + 1, dtype=torch.float64)
        alive = self.density[self.counts > 0].log10()
        # Edges are met exactly by densities such as 0.1, so a rounding must not move them one bin down.
        place = torch.bucketize(alive + 1e-9, edges, right=True) - 1
        counts = torch.bincount(place.clamp(0, len(edges) - 2), minlength=len(edges) - 1)
        return {
            "log10_edges": edges.tolist(),
            "n_latents": counts.tolist(),
            "n_dead": int((self.counts == 0).sum()),
            "n_rows": self.n_rows,
        }


@torch.no_grad()
def measure_usage(dictionary: Dictionary, batches: Iterable[Float[Tensor, "row d_in"]]) -> Usage:
    """Count the firings of each latent. Status: exact for these rows.

    Args:
        dictionary: Whose latents.
        batches: What it reads; at least one row.
    """
    counts, n_rows = torch.zeros(dictionary.d_sae, dtype=torch.int64), 0
    for rows in batches:
        indices, values = dictionary.encode(rows)
        counts += latent_counts(indices, values, dictionary.d_sae).long()
        n_rows += len(rows)
    return Usage(counts, n_rows)
