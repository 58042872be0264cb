"""Rows that are sparse sums of known directions.

    x = sum over the support of v_j G_j + offset + noise,   v_j uniform on 0.5 to 1.5,   |G_j| = 1

Which features are in a row's support:

    independent   feature j with probability p_j, on its own: p_j = min(c / (j + 1)^exponent, 1/2) with c such that
                  the p_j add up to mean_l0. Exponent 1 is Zipf's law, 0 makes all equally frequent.
    exact         mean_l0 of them, drawn uniformly
    variable      between 1 and 2 mean_l0 - 1 of them, their number and themselves drawn uniformly

Block i of a seed is the same whatever was drawn before it, so rows can be made in any order and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from workbench.errors import UserError, nearest
from workbench.kernels import sparse_decode

HIGHEST_FREQUENCY = 0.5
LOW, HIGH = 0.5, 1.5


@dataclass(frozen=True)
class Block:
    """Rows and the code that they were made from.

    Attributes:
        x: The rows (row, d).
        indices: Their features (row, width), padded with 0.
        values: Their values (row, width), padded with 0.0.
    """

    x: Float[Tensor, "row d"]
    indices: Int64[Tensor, "row width"]
    values: Float[Tensor, "row width"]


@dataclass(frozen=True)
class PlantedFeatures:
    """What rows are made of.

    Attributes:
        directions: Unit directions (feature, d).
        frequency_frac: Share of rows that each feature is in.
        support: Name of the rule of supports; see the module.
        mean_l0: Mean number of features per row.
        offset: Added to every row (d).
        noise: Standard deviation of what is added to every entry.
        seed: Decides all of it, the rows too.
    """

    directions: Float[Tensor, "feature d"]
    frequency_frac: Float[Tensor, " feature"]
    support: str
    mean_l0: float
    offset: Float[Tensor, " d"]
    noise: float
    seed: int

    def block(self, index: int, n_rows: int, *, shuffled: bool = False) -> Block:
        """Block number `index`, of `n_rows` rows. Status: bit-reproducible in (seed, index, n_rows).

        Args:
            index: Which block.
            n_rows: Its rows.
            shuffled: Permute each column of x by itself, the control; the code is then of no row.
        """
        generator = _generator(self.seed, index + 1)
        mask = SUPPORTS[self.support](self, n_rows, generator)
        indices, values = _sparse(mask, generator)
        x = sparse_decode(indices, values, self.directions) + self.offset
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=generator)
        if shuffled:
            x = x.gather(0, torch.rand(x.shape, generator=generator).argsort(dim=0))
        return Block(x, indices, values)


def planted_features(
    *,
    n_features: int,
    d: int,
    mean_l0: float,
    support: str = "independent",
    exponent: float = 1.0,
    offset_norm: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> PlantedFeatures:
    """Random unit directions with given frequencies.

    Args:
        n_features: Number of features.
        d: Width of the rows.
        mean_l0: Mean number of features per row; a whole number unless the support is independent.
        support: "independent", "exact" or "variable"; see the module.
        exponent: Of the frequencies' fall with rank; only where the support is independent.
        offset_norm: Length of the constant offset, whose direction is random.
        noise: Standard deviation of the noise of each entry.
        seed: Decides directions, offset and rows.

    Raises:
        UserError: the support is not known, or cannot have `mean_l0` features.
    """
    if support not in SUPPORTS:
        raise UserError(f"support {support!r} is not known; {nearest(support, SUPPORTS)}")
    most = {
        "independent": HIGHEST_FREQUENCY * n_features,
        "exact": n_features,
        "variable": (n_features + 1) / 2,
    }
    if not 0 < mean_l0 <= most[support] or (support != "independent" and mean_l0 != int(mean_l0)):
        raise UserError(
            f"mean_l0 {mean_l0} does not fit {n_features} features and support {support!r}: give at most "
            f"{most[support]:g}, whole unless the support is independent"
        )
    generator = _generator(seed, 0)
    directions = functional.normalize(torch.randn(n_features, d, generator=generator), dim=1)
    offset = functional.normalize(torch.randn(d, generator=generator), dim=0) * offset_norm
    frequency = zipf(n_features, mean_l0, exponent if support == "independent" else 0.0)
    return PlantedFeatures(directions, frequency, support, float(mean_l0), offset, noise, seed)


def zipf(n_features: int, total: float, exponent: float) -> Float[Tensor, " feature"]:
    """min(c / (j + 1)^exponent, 1/2) that add up to `total`: c by bisection of its logarithm."""
    shape = torch.arange(1, n_features + 1, dtype=torch.float64).pow(-exponent)
    low, high = 0.0, 1 / float(shape[-1])
    for _ in range(200):
        middle = (low + high) / 2
        reached = float((middle * shape).clamp_max(HIGHEST_FREQUENCY).sum())
        low, high = (middle, high) if reached < total else (low, middle)
    return (high * shape).clamp_max(HIGHEST_FREQUENCY).float()


def _independent(features: PlantedFeatures, n_rows: int, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(n_rows, len(features.directions), generator=generator)
    return drawn < features.frequency_frac


def _exact(features: PlantedFeatures, n_rows: int, generator: torch.Generator) -> Tensor:
    return _first(torch.full((n_rows, 1), int(features.mean_l0)), features, generator)


def _variable(features: PlantedFeatures, n_rows: int, generator: torch.Generator) -> Tensor:
    return _first(
        torch.randint(1, 2 * int(features.mean_l0), (n_rows, 1), generator=generator), features, generator
    )


def _first(counts: Tensor, features: PlantedFeatures, generator: torch.Generator) -> Tensor:
    """In each row the first of a random order of the features, as many as its count."""
    drawn = torch.rand(len(counts), len(features.directions), generator=generator)
    return drawn.argsort(dim=1).argsort(dim=1) < counts


SUPPORTS: dict[str, Callable[[PlantedFeatures, int, torch.Generator], Tensor]] = {
    "independent": _independent,
    "exact": _exact,
    "variable": _variable,
}


def _sparse(mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices and random values of a support, padded."""
    row, feature = mask.nonzero(as_tuple=True)
    counts = mask.sum(1)
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    indices = torch.zeros(len(mask), max(1, int(counts.max())), dtype=torch.int64)
    values = torch.zeros(indices.shape)
    indices[row, place] = feature
    values[row, place] = LOW + (HIGH - LOW) * torch.rand(len(row), generator=generator)
    return indices, values


def _generator(seed: int, stream: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
