"""Input normalisation as one affine map, x' = (x - mean) M, and how it is folded into trained weights.

One learning rate then fits all layers, and thresholds and penalties have a scale. `spread` is the default:
it moves nothing and gives the rows a mean squared distance of d from their mean.

    none     x' = x
    spread   x' = s x          mean |x' - mean|^2 = d
    norm     x' = s x          mean |x'| = sqrt(d)   ("expected average norm")
    centre   x' = s (x - mean) mean |x'|^2 = d
    whiten   x' = (x - mean) C^(-1/2)   covariance the identity; eigenvalues below 1e-4 of the mean one are
             raised to that floor, so that noise directions are not blown up

M is diagonal (one factor per column, so that the sites of a crosscoder may differ) or a matrix.
Folding is done in float64 and is exact up to the final rounding to float32.

Reference: mean centring against dead latents, arXiv:2605.31518; expected norm, Anthropic April 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from workbench.errors import UserError, nearest

KINDS = ("none", "spread", "norm", "centre", "whiten")
WHITEN_FLOOR = 1e-4


@dataclass(frozen=True)
class Affine:
    """x' = (x - mean) * scale, or (x - mean) @ matrix where there is a matrix (symmetric).

    Attributes:
        mean: Subtracted first (d), float64.
        scale: Factor of each column (d), float64; ones where there is a matrix.
        matrix: Symmetric (d, d), float64, or None.
    """

    mean: Float64[Tensor, " d"]
    scale: Float64[Tensor, " d"]
    matrix: Float64[Tensor, "d d"] | None = None

    def apply(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """Normalised rows, in the dtype of x."""
        if self.matrix is not None:
            return (x - self.mean.to(x)) @ self.matrix.to(x)
        scaled = x * self.scale.to(x)
        return scaled - (self.mean * self.scale).to(x) if self._moves else scaled

    @cached_property
    def _moves(self) -> bool:
        """Whether the mean is not 0; asked for once, since on a GPU the answer has to be waited for."""
        return bool(self.mean.any())

    def invert(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """Raw rows from normalised ones; differentiable in x."""
        return self.directions(x) + self.mean.to(x)

    def directions(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """Raw directions of normalised ones: the inverse of the linear part."""
        if self.matrix is not None:
            return rows @ torch.linalg.inv(self.matrix).to(rows)
        return rows / self.scale.to(rows)

    def pull_back(self, W: Float[Tensor, "d latent"]) -> Float[Tensor, "d latent"]:
        """Weights on raw rows that read what W reads on normalised ones: M W."""
        return self.matrix.to(W) @ W if self.matrix is not None else self.scale.to(W).unsqueeze(1) * W

    def part(self, start: int, stop: int) -> Affine:
        """The map of the columns start to stop alone; sites do not mix, so theirs is exact."""
        matrix = None if self.matrix is None else self.matrix[start:stop, start:stop]
        return Affine(self.mean[start:stop], self.scale[start:stop], matrix)

    @property
    def uniform(self) -> float | None:
        """The factor, where it is the same for all columns and there is no matrix; else None."""
        same = self.matrix is None and bool((self.scale == self.scale[0]).all())
        return float(self.scale[0]) if same else None

    def to(self, device: str | torch.device) -> Affine:
        """The same map on another device."""
        matrix = None if self.matrix is None else self.matrix.to(device)
        return Affine(self.mean.to(device), self.scale.to(device), matrix)

    def state(self, prefix: str) -> dict[str, Tensor]:
        """Its tensors by name."""
        tensors = {f"{prefix}.mean": self.mean, f"{prefix}.scale": self.scale}
        return tensors if self.matrix is None else {**tensors, f"{prefix}.matrix": self.matrix}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], prefix: str) -> Affine:
        """The map that `state` wrote."""
        return cls(state[f"{prefix}.mean"], state[f"{prefix}.scale"], state.get(f"{prefix}.matrix"))


def fit_affine(sample: Float[Tensor, "row d"], kind: str, *, widths: Sequence[int] | None = None) -> Affine:
    """The normalisation of a kind for sample rows.

    Args:
        sample: Raw rows.
        kind: One of `KINDS`.
        widths: Columns of each site; every site is normalised by itself. By default one site.

    Raises:
        UserError: the kind is not known, or the rows of a site are all equal or not finite.
    """
    if kind not in KINDS:
        raise UserError(f"normalise {kind!r} is not known; {nearest(kind, KINDS)}")
    exact = sample.double()
    parts = [_fit_site(part, kind) for part in exact.split(list(widths or [exact.shape[1]]), dim=1)]
    if kind == "whiten":
        whole = torch.block_diag(*[part.matrix for part in parts if part.matrix is not None])
        return Affine(torch.cat([p.mean for p in parts]), torch.ones(len(whole), dtype=torch.float64), whole)
    return Affine(torch.cat([p.mean for p in parts]), torch.cat([p.scale for p in parts]))


def _fit_site(x: Float64[Tensor, "row d"], kind: str) -> Affine:
    d, mean, zeros = x.shape[1], x.mean(0), x.new_zeros(x.shape[1])
    spread = float((x - mean).square().sum(1).mean())
    if not (spread > 0 and spread < float("inf")):
        raise UserError("the sampled activations are all equal or not finite: capture another hook or text")
    if kind == "whiten":
        return Affine(mean, x.new_ones(d), _whitening(x - mean))
    scale = {"none": 1.0, "norm": d**0.5 / float(x.norm(dim=1).mean())}.get(kind, (d / spread) ** 0.5)
    return Affine(mean if kind == "centre" else zeros, x.new_full((d,), scale))


def _whitening(centred: Float64[Tensor, "row d"]) -> Float64[Tensor, "d d"]:
    """Inverse square root of the covariance, small eigenvalues raised to a floor."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    floor = WHITEN_FLOOR * float(values.mean())
    return (vectors * values.clamp_min(floor).rsqrt()) @ vectors.T
