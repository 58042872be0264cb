"""Rows that are sparse sums of known directions.

    x = sum over the support of v_j G_j + offset + noise,   v_j uniform on 1 - spread/2 to 1 + spread/2,   |G_j| = 1

Which features are in a row's support is a rule of `supports.py`: independent, exact, variable, correlated or
hierarchical. Where each has a probability of its own it is p_j = min(c / (j + 1)^exponent, 1/2) with c such
that the p_j add up to mean_l0: exponent 1 is Zipf's law, 0 makes all equally frequent.

Where features stand on `neurons` columns each, their entries are positive and the noise is taken by its magnitude, so
that no row has a negative number: what a layer of neurons behind a ReLU gives, and what NMF needs.

Block i of a seed is the same whatever was drawn before it, so rows can be made in any order and again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from workbench.errors import UserError, nearest
from workbench.kernels import sparse_decode
from workbench.testbeds.planted.supports import SUPPORTS

HIGHEST_FREQUENCY = 0.5


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
        spread: Width of the range around 1 that values are drawn from; 0 for values of exactly 1.
        group_size: Neighbours that share their draw where the support is correlated.
        shared_frac: How often a feature takes its group's draw.
        n_children: Children of each parent where the support is hierarchical.
        child_frac: Share of a parent's rows in which one of its children is active too.
        neurons: Columns that a feature stands on, with positive entries; 0 for all columns and either sign.
    """

    directions: Float[Tensor, "feature d"]
    frequency_frac: Float[Tensor, " feature"]
    support: str
    mean_l0: float
    offset: Float[Tensor, " d"]
    noise: float
    seed: int
    spread: float = 1.0
    group_size: int = 1
    shared_frac: float = 0.0
    n_children: int = 0
    child_frac: float = 1.0
    neurons: int = 0

    @property
    def parent(self) -> Int64[Tensor, " feature"]:
        """The parent of each feature, -1 for one without."""
        n, none = len(self.directions), torch.full((len(self.directions),), -1)
        if self.support != "hierarchical":
            return none
        n_parents = n // (1 + self.n_children)
        children = torch.arange(n_parents).repeat_interleave(self.n_children)
        return torch.cat([none[:n_parents], children])

    def block(self, index: int, n_rows: int, *, shuffled: bool = False) -> Block:
        """Block number `index`, of `n_rows` rows. Status: bit-reproducible in (seed, index, n_rows).

        Args:
            index: Which block.
            n_rows: Its rows.
            shuffled: Permute each column of x by itself, the control; the code is then of no row.
        """
        generator = _generator(self.seed, index + 1)
        mask = SUPPORTS[self.support](self, n_rows, generator)
        indices, values = _sparse(mask, self.spread, generator)
        x = sparse_decode(indices, values, self.directions) + self.offset
        if self.noise:
            drawn = torch.randn(x.shape, generator=generator)
            x = x + self.noise * (drawn.abs() if self.neurons else drawn)
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
    spread: float = 1.0,
    orthonormal: bool = False,
    group_size: int = 4,
    shared_frac: float = 0.8,
    n_children: int = 4,
    child_frac: float = 0.6,
    neurons: int = 0,
) -> PlantedFeatures:
    """Random unit directions with given frequencies.

    Args:
        n_features: Number of features; with a hierarchy parents and children together.
        d: Width of the rows.
        mean_l0: Mean number of features per row; a whole number where the support is exact or variable.
        support: "independent", "exact", "variable", "correlated" or "hierarchical"; see `supports.py`.
        exponent: Of the frequencies' fall with rank, of the parents' in a hierarchy; not of exact and variable.
        offset_norm: Length of the constant offset, whose direction is random.
        noise: Standard deviation of the noise of each entry.
        seed: Decides directions, offset and rows.
        spread: Width of the range around 1 that values are drawn from, 0 to 2.
        orthonormal: Directions at right angles to each other, of which there are at most d.
        group_size: Neighbours that share their draw; only where the support is correlated.
        shared_frac: How often a feature takes its group's draw, 0 to 1.
        n_children: Children of each parent; only where the support is hierarchical.
        child_frac: Share of a parent's rows with one of its children, above 0 and at most 1.
        neurons: Columns that a feature stands on, at most d; 0 for dense, signed directions. See the module.

    Raises:
        UserError: the support is not known or cannot have `mean_l0` features, or an option is out of its range.
    """
    if support not in SUPPORTS:
        raise UserError(f"support {support!r} is not known; {nearest(support, SUPPORTS)}")
    tree = (n_children, child_frac) if support == "hierarchical" else (0, 1.0)
    _check_structure(n_features, d, orthonormal, spread, group_size, shared_frac, tree)
    _check_l0(n_features, mean_l0, support, tree)
    _check_neurons(neurons, d, orthonormal, offset_norm)
    generator = _generator(seed, 0)
    directions = _directions(n_features, d, neurons, generator)
    offset = functional.normalize(torch.randn(d, generator=generator), dim=0) * offset_norm
    if orthonormal:
        directions = torch.linalg.qr(directions.T.double()).Q.T.float().contiguous()
    frequency = _frequencies(n_features, mean_l0, support, exponent, tree)
    groups = (group_size, shared_frac) if support == "correlated" else (1, 0.0)
    return PlantedFeatures(
        directions,
        frequency,
        support,
        float(mean_l0),
        offset,
        noise,
        seed,
        float(spread),
        *groups,
        *tree,
        neurons,
    )


def _directions(
    n_features: int, d: int, neurons: int, generator: torch.Generator
) -> Float[Tensor, "feature d"]:
    """Unit vectors with independent normal entries, or with the magnitudes of those on a few columns each."""
    drawn = torch.randn(n_features, d, generator=generator)
    if neurons:
        columns = torch.rand(n_features, d, generator=generator).argsort(dim=1)[:, :neurons]
        drawn = torch.zeros(n_features, d).scatter_(1, columns, drawn.gather(1, columns).abs())
    return functional.normalize(drawn, dim=1)


def _check_neurons(neurons: int, d: int, orthonormal: bool, offset_norm: float) -> None:
    if not 0 <= neurons <= d:
        raise UserError(
            f"neurons {neurons} of the planted features is not between 0 and d {d}: choose another number"
        )
    if neurons and (orthonormal or offset_norm):
        raise UserError(
            f"features on {neurons} neurons each are never negative: leave out orthonormal and offset_norm, which "
            "would make rows with negative numbers"
        )


def _check_structure(
    n_features: int,
    d: int,
    orthonormal: bool,
    spread: float,
    group_size: int,
    shared_frac: float,
    tree: tuple[int, float],
) -> None:
    rules = (
        ("n_features", n_features, not orthonormal or n_features <= d, f"at most d {d} where orthonormal"),
        ("spread", spread, 0 <= spread <= 2, "between 0 and 2"),
        ("group_size", group_size, group_size >= 1, "at least 1"),
        ("shared_frac", shared_frac, 0 <= shared_frac <= 1, "between 0 and 1"),
        ("child_frac", tree[1], 0 < tree[1] <= 1, "above 0 and at most 1"),
        ("n_children", tree[0], tree[0] >= 0, "at least 0"),
        ("n_features", n_features, n_features % (1 + tree[0]) == 0, f"a multiple of {1 + tree[0]}, a parent's family"),
    )  # fmt: skip
    for name, value, right, rule in rules:
        if not right:
            raise UserError(f"{name} {value} of the planted features is not {rule}: choose another number")


def _check_l0(n_features: int, mean_l0: float, support: str, tree: tuple[int, float]) -> None:
    """Refuse what the support cannot have."""
    most = {
        "exact": n_features,
        "variable": (n_features + 1) / 2,
        "hierarchical": HIGHEST_FREQUENCY * n_features / (1 + tree[0]) * (1 + tree[1]),
    }.get(support, HIGHEST_FREQUENCY * n_features)
    whole = support in ("exact", "variable")
    if not 0 < mean_l0 <= most or (whole and mean_l0 != int(mean_l0)):
        raise UserError(
            f"mean_l0 {mean_l0} does not fit {n_features} features and support {support!r}: give at most "
            f"{most:g}, whole unless the support is independent"
        )


def _frequencies(
    n_features: int, mean_l0: float, support: str, exponent: float, tree: tuple[int, float]
) -> Float[Tensor, " feature"]:
    """Share of rows that each feature is in."""
    if support != "hierarchical":
        return zipf(n_features, mean_l0, 0.0 if support in ("exact", "variable") else exponent)
    n_children, child_frac = tree
    parents = zipf(
        n_features // (1 + n_children), mean_l0 / (1 + (child_frac if n_children else 0)), exponent
    )
    each = child_frac / max(n_children, 1)
    return torch.cat([parents, (parents * each).repeat_interleave(n_children)])


def zipf(n_features: int, total: float, exponent: float) -> Float[Tensor, " feature"]:
    """min(c / (j + 1)^exponent, 1/2) that add up to `total`: c by bisection of its logarithm."""
    shape = torch.arange(1, n_features + 1, dtype=torch.float64).pow(-exponent)
    low, high = 0.0, 1 / float(shape[-1])
    for _ in range(200):
        middle = (low + high) / 2
        reached = float((middle * shape).clamp_max(HIGHEST_FREQUENCY).sum())
        low, high = (middle, high) if reached < total else (low, middle)
    return (high * shape).clamp_max(HIGHEST_FREQUENCY).float()


def _sparse(mask: Tensor, spread: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices and random values of a support, padded."""
    row, feature = mask.nonzero(as_tuple=True)
    counts = mask.sum(1)
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    indices = torch.zeros(len(mask), max(1, int(counts.max())), dtype=torch.int64)
    values = torch.zeros(indices.shape)
    indices[row, place] = feature
    values[row, place] = 1 - spread / 2 + spread * torch.rand(len(row), generator=generator)
    return indices, values


def _generator(seed: int, stream: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
