"""Penalties that reach a wanted L0: one coefficient, steered by the L0 of each batch.

The right coefficient of a sparsity penalty depends on the layer, on the width and on the learning rate; the
L0 that it is meant to give does not. So `k` is what is asked for, and the coefficient follows:

    error        = log(L0 of the batch / k), between -1 and 1; times BELOW_TARGET where it is negative
    coefficient <- coefficient * exp(RATE * error)              the integral, kept in a buffer
    strength     = ramp * coefficient * exp(PROPORTION * error)    what the penalty is multiplied with

The proportional factor damps: it acts at once and leaves nothing behind. Too low an L0 is corrected faster
than too high a one, because a latent that has stopped firing gets no gradient and comes back late. The ramp
is linear over the first `warmup_frac` of the steps, and the integral rests during it. With `sparsity` the
coefficient is that number, and nothing steers it.

A penalty written beside a squared error summed over d columns is divided by d, as the reconstruction is.

Limit: a batch with no firing latent at all has an error of -1 and the coefficient falls until one fires.
Reference: adaptive coefficients, Nabeshima 2024 (Matryoshka dictionaries); written anew here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.architecture import Architecture, Encoded, Part, Pass, Phase
from workbench.errors import UserError
from workbench.kernels import batch_topk_encode

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

RATE, PROPORTION, BELOW_TARGET = 0.01, 1.0, 3.0
START_ROWS = 1024
CROWDED = 4  # latents per row at the start, as a multiple of k


@dataclass(frozen=True, kw_only=True)
class Penalised(Architecture):
    """An architecture whose k is the L0 that a penalty is steered to.

    Attributes:
        sparsity: A coefficient that stays as it is, in place of the steered one.
        warmup_frac: Share of the steps over which the penalty grows from 0.
    """

    sparsity: float | None = None
    warmup_frac: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity is not None and not self.sparsity >= 0:
            raise UserError(
                f"sparsity {self.sparsity} is below 0: give a coefficient, or leave it out to reach an L0 of k"
            )
        if not 0 <= self.warmup_frac <= 1:
            raise UserError(
                f"warmup_frac {self.warmup_frac} is not between 0 and 1: give a share of the steps"
            )

    @property
    def steered(self) -> bool:
        """Whether the coefficient follows the L0."""
        return self.sparsity is None

    @property
    def first_coefficient(self) -> float:
        """Where the steered coefficient starts."""
        return 1.0

    def buffers(self) -> dict[str, Tensor]:
        """The coefficient."""
        first = self.first_coefficient if self.sparsity is None else self.sparsity
        return {"coefficient": torch.tensor(first, dtype=torch.float32)}

    @torch.no_grad()
    def observe(self, trainee: Trainee, passed: Pass, phase: Phase) -> None:
        """Move the coefficient by this batch's L0."""
        if self.steered and phase.ramp(self.warmup_frac) == 1.0:
            trainee.buffers["coefficient"].mul_(torch.exp(RATE * self._error(trainee, passed.code)))

    def strength(self, trainee: Trainee, passed: Pass, phase: Phase) -> Float[Tensor, ""]:
        """What the penalty of this batch is multiplied with."""
        fixed = phase.ramp(self.warmup_frac) * trainee.buffers["coefficient"]
        if not self.steered:
            return fixed
        return fixed * torch.exp(PROPORTION * self._error(trainee, passed.code))

    def penalty(self, trainee: Trainee, passed: Pass, phase: Phase, per_row: Float[Tensor, ""]) -> Part:
        """The part of a loss that a penalty, given as its mean over rows, becomes."""
        return Part(1 / passed.y.shape[1], self.strength(trainee, passed, phase) * per_row)

    def _error(self, trainee: Trainee, code: Encoded) -> Float[Tensor, ""]:
        error = (batch_l0(trainee, code) / self.k).clamp_min(1e-9).log().clamp(-1, 1)
        return torch.where(error < 0, BELOW_TARGET * error, error)


@torch.no_grad()
def batch_l0(trainee: Trainee, code: Encoded) -> Float[Tensor, ""]:
    """Mean number of latents with a positive value per row, over all processes."""
    counted = (code.values > 0).sum() / max(len(code.values), 1)
    return trainee.ranks.total_latents(trainee.ranks.mean(counted))


@torch.no_grad()
def level(trainee: Trainee, x: Float[Tensor, "row d_in"], l0: float) -> Float[Tensor, ""]:
    """The one threshold that lets `l0` latents pass in an average row of x; 0 if fewer are positive.

    Status: exact on the first rows.
    """
    rows = x[:START_ROWS]
    _, values = trainee.layout.encode(
        batch_topk_encode, trainee.parameters, rows, k=min(l0, float(trainee.architecture.d_sae))
    )
    least = least_positive(values)
    return least.where(least.isfinite(), 0.0)


def least_positive(values: Float[Tensor, "row width"]) -> Float[Tensor, ""]:
    """The least positive entry; infinite if there is none."""
    return (
        values.masked_fill(values <= 0, torch.inf).amin() if values.numel() else values.new_tensor(torch.inf)
    )
