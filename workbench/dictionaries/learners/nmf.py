"""NMF: non-negative features of non-negative activations, by multiplicative updates.

    X ~ C D,   X >= 0,   C >= 0 (row, latent),   D >= 0 (latent, d)

One iteration:

    D <- D * (C^T X) / (C^T C D + eps)
    C <- C * (X D^T) / (C D D^T + eps)

Neither raises |X - C D|^2. Factors that start positive stay non-negative. Both start from |N(0, 1)| times
sqrt(mean X / d_sae), so that the first product has the size of X. Features are the non-negative concept
activation vectors (NCAVs) of invertible concept explanations; `analyses/concept_importance.py` goes on from here.

It needs activations without negative numbers: `mlp.hook_post` behind a ReLU, or latents of a dictionary. Behind
GELU or SiLU small negative numbers are left; `clip` sets them to 0 in training and in `encode`, and what was cut off
is then no part of the reconstruction. The stream is signed: that is what semi-NMF is for.

What was looked up: the authors' code calls scikit-learn's NMF through a channel reducer, 10 components a class by
default; its solver is coordinate descent, which needs fewer iterations than these updates for the same error.

Source: Lee and Seung 2001, "Algorithms for Non-negative Matrix Factorization", NIPS 13 (the updates and why they
are monotone); Zhang et al. 2021, arXiv:2006.15417, and github.com/zhangrh93/InvertibleCE (the use).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.factorisation import Factorisation, Factors
from workbench.dictionaries.nnls import NonNegativeDictionary
from workbench.errors import UserError

EPS = 1e-12


@dataclass(frozen=True, eq=False, kw_only=True)
class NMFDictionary(NonNegativeDictionary):
    """Non-negative features; codes by non-negative least squares.

    Attributes:
        clip: Whether negative numbers of a row are set to 0 before it is encoded.
    """

    architecture: ClassVar[str] = "nmf"
    clip: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """k and clip."""
        return {"k": self.k, "clip": self.clip}

    def prepared(self, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Rows less b_dec, without their negative numbers where `clip` says so."""
        return super().prepared(x).clamp_min(0) if self.clip else super().prepared(x)


@dataclass(frozen=True, kw_only=True)
class NMF(Factorisation):
    """Multiplicative NMF.

    Attributes:
        clip: Set negative activations to 0 instead of refusing them.
    """

    name: ClassVar[str] = "nmf"
    clip: bool = False

    @property
    def nonnegative(self) -> bool:
        """Yes, unless they are clipped."""
        return not self.clip

    def prepare(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """The rows, clipped where that was asked for.

        Raises:
            UserError: a number is negative and `clip` is off, or none is positive.
        """
        x = super().prepare(x)
        least = float(x.min())
        if least < 0 and self.nonnegative:
            raise UserError(
                f"architecture 'nmf' needs activations without negative numbers, and the least is {least:.3g}: capture "
                "mlp.hook_post behind a ReLU, give settings={'clip': True} to set them to 0, or train 'semi_nmf', "
                "which takes signed rows"
            )
        x = x.clamp_min(0)
        if not bool((x > 0).any()):
            raise UserError(
                "architecture 'nmf' was given rows without a positive number: capture another hook"
            )
        return x

    def begin(self, x: Float[Tensor, "row d"], generator: torch.Generator) -> Factors:
        """Positive random factors whose product has the mean of x."""
        size = float((x.mean() / self.d_sae).sqrt())
        shapes = ((len(x), self.d_sae), (self.d_sae, x.shape[1]))
        drawn = [torch.randn(*shape, generator=generator).abs().to(x) * size for shape in shapes]
        return Factors(*drawn)

    def update(self, x: Float[Tensor, "row d"], factors: Factors) -> Factors:
        """Features, then coefficients."""
        C, D = factors
        D = D * (C.T @ x) / (C.T @ C @ D + EPS)
        C = C * (x @ D.T) / (C @ (D @ D.T) + EPS)
        return Factors(C, D)

    def frozen(self, weights: Mapping[str, Tensor], **about: Any) -> NMFDictionary:
        """Codes by non-negative least squares on the features."""
        return NMFDictionary(**weights, k=self.k, clip=self.clip, **about)
