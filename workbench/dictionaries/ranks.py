"""What a trainee needs to know of other processes that train the same dictionary; alone, nothing.

Two ways of sharing the work (`workbench.training.distributed` makes them):

    data      each process has other rows of the batch and all latents
    latents   each process has all rows and other latents

Sums over rows are then averaged over processes (each has equally many rows), and numbers of latents are
added up. The class here is the single process: every method gives back what it gets.
"""

from __future__ import annotations

from torch import Tensor


class Ranks:
    """One process.

    Attributes:
        n_data: Processes that share the rows of a batch.
    """

    n_data: int = 1

    def mean(self, value: Tensor) -> Tensor:
        """A per-row mean or a share of a sum, averaged over the processes that share the rows; not differentiable."""
        return value

    def least(self, value: Tensor) -> Tensor:
        """Elementwise least over the processes that share the rows."""
        return value

    def least_entry(self, value: Tensor) -> Tensor:
        """Least of a number that each process took from its own entries of the batch's code."""
        return value

    def mean_latents(self, value: Tensor) -> Tensor:
        """A mean over latents, averaged over the processes that share them."""
        return value

    def total_latents(self, value: Tensor) -> Tensor:
        """A number of latents, or a sum over them, added up over the processes that share them."""
        return value
