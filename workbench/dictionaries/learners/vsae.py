"""Variational TopK autoencoder: latents are sampled around their means, and held near a standard normal by a KL part.

    mu = ReLU((x - b_dec) W_enc + b_enc);   z = mu + sigma * eps, eps ~ N(0, 1);   the k largest |z|, with their sign
    L = |x - x_hat|^2 + lambda * ramp * KL + c_aux * L_aux;     x_hat = z W_dec + b_dec
    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - ln sigma_j^2)      in nats per row, mean over rows

Which z is trained (`posterior`):

    learned    ln sigma^2 = (x - b_dec) W_var + b_var, held between -6 and 2; b_var starts at -2
    unit       sigma = 1
    mean       z = mu: nothing is sampled, and the KL is 1/2 sum mu^2, an L2 penalty

At inference nothing is sampled and the code is that of a TopK of mu. The KL of every latent counts (`kl_over="all"`)
or that of the selected ones. It warms up linearly over `warmup_frac` of the steps.

Two architectures differ in the decoder's rows. `vsae` holds them at length 1. `vsae_free` lets them grow, as
published, and then the KL can be evaded: under "mean" latents shrink and rows grow, the penalty falls and nothing
else changes. `scale_evasion` (analyses/variational.py) measures that; the rows' lengths stand in the dictionary.

Coefficients. Published beside a squared error summed over d columns; reconstruction here is the mean over columns,
so lambda is divided by d and keeps its published meaning on activations as they are normalised here. The
published 500 (1 in a variant) was for the free decoder without sampling; with rows of length 1 it collapses.

Cost: the KL of all latents needs all of mu, so a training step holds (row, d_sae) matrices; codes are (row, k).

Looked up: paper and blog post say that z is sampled, the post with sigma 1. The authors' public code (repository
ZachData/SPAR-Variational-Sparse-Autoencoders, vsae_topk.py) samples only with a learned variance; its default and
its scripts for the reported model have a fixed one, so no sampling. Later versions have no ReLU on mu; here
there is one, so that codes are not negative. Which variant made the tables is not said.

Reference: Baker & Li 2025, arXiv:2509.22994; Kingma & Welling 2013, arXiv:1312.6114.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from workbench.dictionaries.architecture import Encoded, Part, Pass, Phase
from workbench.dictionaries.auxk import WithAuxK
from workbench.dictionaries.learners.topk import TopKDictionary
from workbench.errors import UserError, nearest

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

POSTERIORS, KL_OVER = ("learned", "unit", "mean"), ("all", "selected")
FIRST_LOG_VARIANCE, LOG_VARIANCES = -2.0, (-6.0, 2.0)


def kl_nats(
    mean: Float[Tensor, "row latent"], log_variance: Float[Tensor, "row latent"] | None = None
) -> Float[Tensor, "row latent"]:
    """KL of N(mean, exp(log_variance)) from N(0, 1) in nats, entry by entry; variance 1 if there is none.

    1/2 (mean^2 + variance - 1 - log_variance). Status: exact; agrees with Monte Carlo (tests/dictionaries/learners).
    """
    if log_variance is None:
        return mean.square() / 2
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


@dataclass(frozen=True, kw_only=True)
class VSAE(WithAuxK):
    """Variational TopK with decoder rows of length 1.

    Attributes:
        posterior: One of `POSTERIORS`.
        kl_coefficient: lambda.
        kl_over: Which latents' KL counts: "all" or "selected".
        warmup_frac: Share of the steps over which lambda grows from 0.
    """

    name: ClassVar[str] = "vsae"
    layouts: ClassVar[tuple[str, ...]] = ("autoencoder", "transcoder", "skip_transcoder", "crosscoder")
    posterior: str = "learned"
    kl_coefficient: float = 0.01
    kl_over: str = "all"
    warmup_frac: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("posterior", POSTERIORS), ("kl_over", KL_OVER)):
            given = getattr(self, name)
            if given not in known:
                raise UserError(f"{name} {given!r} is not known; {nearest(given, known)}")
        if not self.kl_coefficient >= 0:
            raise UserError(f"kl_coefficient {self.kl_coefficient} is below 0: give 0 for no KL part")
        if not 0 <= self.warmup_frac <= 1:
            raise UserError(
                f"warmup_frac {self.warmup_frac} is not between 0 and 1: give a share of the steps"
            )

    @property
    def rescalable(self) -> bool:
        """No: latents are compared with each other."""
        return False

    def parameters(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder of the log-variances, where they are learned.

        Its columns have length sqrt(2), that of Kaiming's start for a slope near 0, in the directions in which the
        encoder of another latent starts.
        """
        if self.posterior != "learned":
            return {}
        directions = functional.normalize(weights["W_enc"].roll(self.d_sae // 2, dims=1), dim=0)
        b_var = torch.full_like(weights["b_enc"], FIRST_LOG_VARIANCE)
        return {"W_var": (2**0.5 * directions).T.contiguous().T, "b_var": b_var}

    def encode(self, trainee: Trainee, x: Float[Tensor, "row d_in"], phase: Phase) -> Encoded:
        """The k largest |z|; `kl` is each row's KL in nats (row, 1)."""
        mean = affine(trainee, x).relu()
        log_variance = self._log_variance(trainee, x)
        z = self._sampled(mean, log_variance, self._noise(trainee, mean, phase))
        indices = z.detach().abs().topk(self.k, dim=1).indices
        if self.kl_over == "selected":
            mean = mean.gather(1, indices)
            log_variance = None if log_variance is None else log_variance.gather(1, indices)
        kl = kl_nats(mean, log_variance).sum(1, keepdim=True)
        return Encoded(indices, z.gather(1, indices), {"kl": kl})

    def _log_variance(self, trainee: Trainee, x: Tensor) -> Tensor | None:
        if self.posterior != "learned":
            return None
        return affine(trainee, x, weight="W_var", bias="b_var").clamp(*LOG_VARIANCES)

    def buffers(self) -> dict[str, Tensor]:
        """What the noise of every step is drawn from, besides the step."""
        return {"noise_seed": torch.tensor(0, dtype=torch.int64)}

    @torch.no_grad()
    def start(self, trainee: Trainee, x: Float[Tensor, "row d_in"]) -> None:
        """Take the seed of the noise from the bits of the fresh weights: another for another training seed."""
        bits = trainee.parameters["W_dec"].contiguous().view(torch.int32).long().sum()
        trainee.buffers["noise_seed"].copy_(bits.abs() % 2**31)

    def _noise(self, trainee: Trainee, mean: Tensor, phase: Phase) -> Tensor:
        """Normal numbers that depend on the training and the step alone, whatever is trained beside it."""
        if self.posterior == "mean":
            return mean.new_zeros(())
        seed = int(trainee.buffers["noise_seed"]) * 1_000_003 + phase.step
        generator = torch.Generator(device=mean.device).manual_seed(seed)
        return torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)

    def _sampled(self, mean: Tensor, log_variance: Tensor | None, noise: Tensor) -> Tensor:
        """A draw of z."""
        if self.posterior == "mean":
            return mean
        return mean + (noise if log_variance is None else noise * (log_variance / 2).exp())

    def parts(self, trainee: Trainee, passed: Pass, phase: Phase) -> dict[str, Part]:
        """The KL part and AuxK."""
        weight = self.kl_coefficient * phase.ramp(self.warmup_frac) / passed.y.shape[1]
        kl = passed.code.entries["kl"].sum() / max(len(passed.x), 1)
        return {"kl": Part(weight, kl), "aux": self.aux_part(trainee, passed)}

    def freeze(
        self, trainee: Trainee, weights: Mapping[str, Tensor], gauge: Float[Tensor, " d_sae"], **about: Any
    ) -> TopKDictionary:
        """TopK of the means at inference."""
        return TopKDictionary(**weights, k=self.k, **about)


@dataclass(frozen=True, kw_only=True)
class FreeVSAE(VSAE):
    """Variational TopK whose decoder rows may have any length, as published."""

    name: ClassVar[str] = "vsae_free"
    unit_decoder: ClassVar[bool] = False


def affine(
    trainee: Trainee, x: Float[Tensor, "row d_in"], *, weight: str = "W_enc", bias: str = "b_enc"
) -> Float[Tensor, "row d_sae"]:
    """(x - b_pre) @ weight + bias of every latent, differentiable: what a KL over all latents needs."""
    p = trainee.parameters
    return torch.addmm(p[bias], x - p["b_dec"] if trainee.layout.centred else x, p[weight])
