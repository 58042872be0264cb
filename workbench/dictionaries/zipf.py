"""How often latents fire by their rank: Zipf-Mandelbrot curves, whole budgets from them, and a loss for the under-used.

    f*_r = min(c / (r + b)^a, 1),  r = 1, 2, ..., with c such that the f*_r add up to k

a is `exponent`, b is `shift`; a = 0 makes all equally frequent. Frequencies are shares of rows, f_j the running
mean of the share of rows on which latent j fires; r is a latent's place when latents are sorted by f_j.

aux_zipf_loss generalises AuxK (`auxk.py`), which revives the latents that did not fire for long, to those that
fire less than their rank should:

    eligible = {j : f_j < tau f*_rank(j)},  tau = 0.5;  L_aux as AuxK's, among the eligible in place of the dead

What was looked up, and what is therefore a choice here. The abstract says that aux_zipf_loss generalises
aux_k_loss to under-used latents. The public reviews of the paper (ICLR 2025) add that densities follow a Zipf
curve except at their lower end, that the curve sets the budgets, that the paper defines "dying" latents, and
that no code was released. Neither they, nor notes on the paper, nor public code gave the definition of dying,
the constants of the curve or the loss; tau, the rank that is compared and the fit below are choices of this file.

The fit is least squares of log f_(r) on log(r + b), over the more frequent half of the latents (the lower end
is what the curve is to correct), with b from a grid and a at most 3.

Whole budgets. A curve gives rank r the budget B f*_r in a batch of B rows, below 1 for rare latents. Rounded, these
would be 0 in every batch, and the latent would die of it. `ROUNDINGS`:

    accumulate   floor(B f*_r (t + 1) + u_r) - floor(B f*_r t + u_r) in step t, with a fixed phase u_r of its own:
                 a rare latent gets 1 every few steps, and over steps the budgets add up to B k
    clamp        max(1, round(B f*_r)) in every step; the sum is then above B k

Reference: Ayonrinde 2024, arXiv:2411.02124.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from workbench.dictionaries.architecture import Pass, Phase
from workbench.dictionaries.auxk import WithAuxK
from workbench.errors import UserError, nearest
from workbench.kernels import latent_counts

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

ROUNDINGS = ("accumulate", "clamp")
AUX = ("zipf", "dead")
SHIFTS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
STEEPEST = 3.0  # largest exponent of a fit; without it a large shift would make the curve an exponential
UNDER_USED = 0.5  # tau
FIT_EVERY = 50  # steps between fits of the curve
GOLDEN = 0.6180339887498949


def zipf_mandelbrot(n: int, total: float, *, exponent: float, shift: float = 0.0) -> Float64[Tensor, " rank"]:
    """min(c / (r + shift)^exponent, 1) of ranks 1 to n, c such that they add up to `total`: the share of rows each.

    Raises:
        UserError: the exponent or the shift is below 0, or the total is not between 0 and n.
    """
    if not (exponent >= 0 and shift >= 0):
        raise UserError(f"exponent {exponent} and shift {shift} of a Zipf curve must not be below 0")
    if not 0 < total <= n:
        raise UserError(
            f"{n} frequencies of at most 1 cannot add up to {total}: choose a total between 0 and {n}"
        )
    shape = ((1 + shift) / (torch.arange(1, n + 1, dtype=torch.float64) + shift)).pow(exponent)
    rest = shape.flip(0).cumsum(0).flip(0)
    c = (total - torch.arange(n, dtype=torch.float64)) / rest  # where the ranks before are at 1
    n_full = int((c * shape <= 1 + 1e-12).nonzero()[0])
    return (c[n_full] * shape).clamp_max(1)


def fit_zipf_mandelbrot(frequency: Float[Tensor, " latent"]) -> tuple[float, float]:
    """Exponent and shift of the curve nearest to the more frequent half of the frequencies; (0, 0) for fewer than 3.

    Status: exact least squares in logarithms for each shift of `SHIFTS`; the best of them.
    """
    ordered = frequency.double().cpu().sort(descending=True).values[: max(3, len(frequency) // 2)]
    ordered = ordered[ordered > 0]
    if len(ordered) < 3:
        return 0.0, 0.0
    y = ordered.log() - ordered.log().mean()
    best = (float("inf"), 0.0, 0.0)
    for shift in SHIFTS:
        x = (torch.arange(1, len(ordered) + 1, dtype=torch.float64) + shift).log()
        x = x - x.mean()
        exponent = min(max(0.0, -float((x @ y) / (x @ x))), STEEPEST)
        best = min(best, (float((y + exponent * x).square().sum()), exponent, shift))
    return best[1], best[2]


def whole_budgets(
    share: Float64[Tensor, " rank"], n_rows: int, step: int, *, rounding: str = "accumulate"
) -> Int64[Tensor, " rank"]:
    """Rows of a batch that each rank may have in a step: whole numbers, at most n_rows; see the module.

    Status: exact; a pure function of the step, so nothing has to be kept.
    """
    wanted = share * n_rows
    if rounding == "clamp":
        return wanted.round().long().clamp(1, n_rows)
    phase = (torch.arange(1, len(share) + 1, dtype=torch.float64) * GOLDEN) % 1
    before, after = (torch.floor(wanted * at + phase) for at in (float(step), float(step + 1)))
    return (after - before).long().clamp(0, n_rows)


def ranks_of(frequency: Float[Tensor, " latent"]) -> Int64[Tensor, " latent"]:
    """Place of each latent, 0 for the most frequent; of equal ones the lower index comes first."""
    order = frequency.sort(descending=True, stable=True).indices
    return torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))


@dataclass(frozen=True, kw_only=True)
class WithZipf(WithAuxK):
    """An architecture that knows how often each latent fires, and may ask aux_zipf_loss of the under-used.

    Attributes:
        aux: "zipf" for aux_zipf_loss, "dead" for AuxK.
    """

    aux: str = "zipf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aux not in AUX:
            raise UserError(f"aux {self.aux!r} is not known; {nearest(self.aux, AUX)}")

    def buffers(self) -> dict[str, Tensor]:
        """Frequencies, and the constants of their curve."""
        found = {"frequency": torch.zeros(self.d_sae), "curve": torch.zeros(2, dtype=torch.float64)}
        return {**super().buffers(), **found}

    def curve(self, trainee: Trainee) -> Float64[Tensor, " rank"]:
        """The share of rows that each rank should have."""
        exponent, shift = trainee.buffers["curve"].tolist()
        return zipf_mandelbrot(self.d_sae, float(self.k), exponent=exponent, shift=shift)

    @torch.no_grad()
    def observe(self, trainee: Trainee, passed: Pass, phase: Phase) -> None:
        """Count this batch's firings; now and then fit the curve."""
        super().observe(trainee, passed, phase)
        n_rows, frequency = max(1, len(passed.x)), trainee.buffers["frequency"]
        fired = latent_counts(passed.code.indices, passed.code.values, self.d_sae) / n_rows
        seen = n_rows * trainee.ranks.n_data
        rate = max(1 / (phase.step + 1), min(1.0, seen / self.dead_after_tokens))
        frequency.lerp_(trainee.ranks.mean(fired.to(frequency)), rate)
        if self.fits(phase):
            trainee.buffers["curve"].copy_(torch.tensor(fit_zipf_mandelbrot(frequency)))

    def fits(self, phase: Phase) -> bool:
        """Whether the curve is fitted after this step."""
        return phase.step % FIT_EVERY == 0

    def under_used(self, trainee: Trainee) -> Bool[Tensor, " d_sae"]:
        """Latents that fire on less than half of the rows that the curve gives their rank."""
        frequency = trainee.buffers["frequency"]
        return frequency < UNDER_USED * self.curve(trainee).to(frequency)[ranks_of(frequency)]

    def revived(self, trainee: Trainee) -> Bool[Tensor, " d_sae"]:
        """The dead latents, or those that are under-used."""
        return super().revived(trainee) if self.aux == "dead" else self.under_used(trainee)
