"""Crosscoder: one code for several hook points, of one model or of two, side by side in the columns.

    a = sum_m x_m W_enc^m + b_enc,   x_hat_m = z W_dec^m + b_dec^m

The columns of all sites lie next to each other, so W_enc (sum d_m, d_sae) and W_dec (d_sae, sum d_m) are
those of an autoencoder that does not subtract b_dec from its input, as published. Each site is normalised by
itself, or the site with the largest activations would own the loss. The rows keep unit length as a whole
where the architecture asks for it; each site's part starts with the same share of it.

A penalty weighs a latent with the sum of the lengths of its row's parts, sum_m |d_j^m|, which makes it
cheap to write to one site only; `norm="whole"` takes the length of the whole row. The sum sharpens latents
of one site and lets the shares of common ones wander ("complete shrinkage"): see a latent that seems to
belong to one model again under `batch_topk`, which has no penalty.

Reference: Lindsey et al. 2024, "Sparse Crosscoders" (Transformer Circuits).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.layouts.base import Folded, Initialisation, Parameters
from workbench.dictionaries.layouts.single import Single
from workbench.errors import UserError, nearest

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

NORMS = ("sum", "whole")


@dataclass(frozen=True, kw_only=True)
class Crosscoder(Single):
    """Several sites in, the same sites out.

    Attributes:
        norm: What a penalty weighs a latent with: "sum" of the lengths of its parts, or length of the "whole".
    """

    norm: str = "sum"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(f"norm {self.norm!r} is not one of a crosscoder; {nearest(self.norm, NORMS)}")
        if len(self.sites) < 2:
            raise UserError(
                f"a crosscoder of {len(self.sites)} site reads nothing together: give two hooks or a second run"
            )

    @property
    def kind(self) -> str:
        """Its name in `train`."""
        return "crosscoder"

    @property
    def centred(self) -> bool:
        """No: the encoder reads the activations themselves."""
        return False

    def initialise(
        self,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"],
        d_sae: int,
        start: Initialisation,
        generator: torch.Generator,
        *,
        unit_decoder: bool,
    ) -> dict[str, Tensor]:
        """As an autoencoder's; then every site has the same part of each row's length, in both directions."""
        weights = super().initialise(x, y, d_sae, start, generator, unit_decoder=unit_decoder)
        W_enc, W_dec = self._even(weights["W_enc"].T), self._even(weights["W_dec"])
        return {**weights, "W_enc": W_enc.T, "b_enc": -(x.mean(0) @ W_enc.T), "W_dec": W_dec}

    def _even(self, rows: Float[Tensor, "d_sae d"]) -> Float[Tensor, "d_sae d"]:
        """Rows of the same lengths and the same directions within each site, all sites equally long."""
        length = rows.norm(dim=1, keepdim=True) / len(self.sites) ** 0.5
        return torch.cat([functional.normalize(part, dim=1) * length for part in self.parts(rows)], dim=1)

    def parts(self, rows: Float[Tensor, "latent d"]) -> tuple[Float[Tensor, "latent d_site"], ...]:
        """The columns of each site."""
        return rows.split([site.width for site in self.sites], dim=1)

    def latent_norms(self, p: Parameters) -> Float[Tensor, " d_sae"]:
        """Sum of the lengths of each row's parts, or the length of the whole row."""
        if self.norm == "whole":
            return super().latent_norms(p)
        return torch.stack([part.norm(dim=1) for part in self.parts(p["W_dec"])]).sum(0)

    def freeze(self, trainee: Trainee, folded: Folded, **about: Any) -> Dictionary:
        """With its sites, which keep the scale that their activations were given."""
        scales = [float(part[0]) for part in trainee.inputs.scale.split([site.width for site in self.sites])]
        sites = tuple(replace(site, scale=scale) for site, scale in zip(self.sites, scales, strict=True))
        return super().freeze(trainee, folded, sites=sites, **about)
