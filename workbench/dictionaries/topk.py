"""TopK autoencoder with AuxK: k latents per token by selection, dead ones revived by the residual.

    a = (x - b_dec) W_enc + b_enc;  z = ReLU of the k largest a;  x_hat = z W_dec + b_dec
    L = sum (x - x_hat)^2 / Var(sample) + c_aux * L_aux
    L_aux = sum (e_hat - e)^2 / Var(e),  e = x - x_hat held fixed,
            e_hat = W_dec applied to the k_aux largest a among the latents that are dead.

The sample variance makes L about the fraction of variance unexplained. The auxiliary decode adds no
b_dec, so its target is x - x_hat itself. Everything after the selection is (indices, values).

Decoder rows have unit norm: the part of their gradient along the row is removed before the optimiser
(its moments stay clean) and the rows are renormalised after it.

Reference: Gao et al. 2024, arXiv:2406.04093.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.dictionaries.base import Code, Dictionary, StepLosses, Trainee
from workbench.dictionaries.initialise import geometric_median, unit_rows
from workbench.errors import UserError
from workbench.kernels import sparse_decode, topk_encode


@dataclass(frozen=True, eq=False)
class TopKDictionary(Dictionary):
    """The k largest pre-activations of each row, then ReLU; of equal ones the lower index wins."""

    architecture: ClassVar[str] = "topk"

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "row d_in"]) -> Code:
        """Latents and values of the k largest of (x - b_dec) @ W_enc + b_enc per row, then ReLU.

        Raises:
            UserError: the rows are not d_in wide.

        Status: exact.
        """
        self.check_width(x.shape[1])
        return topk_encode(x, self.W_enc, self.b_enc, self.b_dec, k=self.k)


@dataclass(frozen=True)
class TopKOptions:
    """Sizes and auxiliary loss of a TopK trainee.

    Attributes:
        d_sae: Number of latents.
        k: Latents per row.
        aux_coefficient: Weight of the auxiliary loss.
        k_aux: Dead latents per row in it; by default half of d_in.
        dead_after_tokens: A latent that fired on none of that many tokens is dead.
    """

    d_sae: int
    k: int
    aux_coefficient: float
    k_aux: int | None
    dead_after_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.d_sae:
            raise UserError(
                f"k {self.k} is not between 1 and d_sae {self.d_sae}: choose a smaller k or more latents"
            )
        if self.k_aux is not None and self.k_aux < 1:
            raise UserError(
                f"k_aux {self.k_aux} is not at least 1: set aux_coefficient to 0 for no auxiliary loss"
            )
        if self.dead_after_tokens < 1:
            raise UserError(
                f"dead_after_tokens {self.dead_after_tokens} is not at least 1: give a number of tokens"
            )


class TopKTrainee(Trainee):
    """TopK with AuxK on normalised activations."""

    def __init__(self, parameters: dict[str, Tensor], scale: float, options: TopKOptions) -> None:
        self.parameters = {name: tensor.requires_grad_() for name, tensor in parameters.items()}
        self.scale, self.options = scale, options
        self.tokens_since_fired = torch.zeros(options.d_sae, dtype=torch.int64)
        self.k_aux = options.k_aux or max(1, parameters["b_dec"].numel() // 2)

    @classmethod
    @torch.no_grad()
    def initialise(
        cls, sample: Float[Tensor, "row d_in"], options: Mapping[str, Any], generator: torch.Generator
    ) -> TopKTrainee:
        """Random unit decoder rows, encoder their transpose, b_dec the sample's geometric median.

        The scale gives the sample a mean squared distance of d_in from its mean.
        """
        chosen, d_in = TopKOptions(**options), sample.shape[1]
        spread = float((sample - sample.mean(0)).double().square().sum(1).mean())
        if not spread > 0:
            raise UserError(
                "the sampled activations are all equal or not finite: capture another hook or text"
            )
        scale = (d_in / spread) ** 0.5
        W_dec = unit_rows(chosen.d_sae, d_in, generator)
        parameters = {
            "W_enc": W_dec.clone().T,  # transposed in memory: its gradient comes one row per latent
            "b_enc": torch.zeros(chosen.d_sae),
            "W_dec": W_dec,
            "b_dec": geometric_median(sample) * scale,
        }
        return cls(parameters, scale, chosen)

    def losses(self, x: Float[Tensor, "row d_in"]) -> StepLosses:
        """Reconstruction and auxiliary loss of one raw batch; see the module's equations.

        Gradients of every parameter equal a dense float64 expression (tests/dictionaries/test_topk.py).
        """
        p, x = self.parameters, x * self.scale
        indices, values = topk_encode(x, p["W_enc"], p["b_enc"], p["b_dec"], k=self.options.k)
        self._count(indices, values.detach())
        error = x - (sparse_decode(indices, values, p["W_dec"]) + p["b_dec"])
        squared = error.square().sum()
        auxiliary = self._auxiliary_loss(x, error.detach())
        loss = squared / x.numel() + self.options.aux_coefficient * auxiliary
        with torch.no_grad():
            fvu = squared / (x - x.mean(0)).square().sum()
            l0 = (values > 0).sum() / len(x)
        dead_frac = float(self.dead(self.options.dead_after_tokens).float().mean())
        return StepLosses(loss, float(fvu), float(l0), float(auxiliary.detach()), dead_frac)

    @torch.no_grad()
    def _count(self, indices: Int64[Tensor, "row k"], values: Float[Tensor, "row k"]) -> None:
        """Advance the counters of silence by this batch; latents that fired start again from 0."""
        self.tokens_since_fired += len(indices)
        self.tokens_since_fired[indices[values > 0]] = 0

    def _auxiliary_loss(
        self, x: Float[Tensor, "row d_in"], error: Float[Tensor, "row d_in"]
    ) -> Float[Tensor, ""]:
        """Share of the error's variance that the dead latents' best reconstruction of it leaves; 0 if none is dead."""
        dead = self.dead(self.options.dead_after_tokens).nonzero().squeeze(1)
        spread = (error - error.mean(0)).square().sum()
        if self.options.aux_coefficient == 0 or not len(dead) or not float(spread) > 0:
            return error.new_zeros(())
        p, k = self.parameters, min(self.k_aux, len(dead))
        indices, values = topk_encode(x, p["W_enc"], p["b_enc"], p["b_dec"], k=k, among=dead)
        return (sparse_decode(indices, values, p["W_dec"]) - error).square().sum() / spread

    @torch.no_grad()
    def constrain_gradients(self) -> None:
        """Remove from each decoder row's gradient its component along the row."""
        W_dec = self.parameters["W_dec"]
        assert W_dec.grad is not None
        W_dec.grad.addcmul_((W_dec.grad * W_dec).sum(1, keepdim=True), W_dec, value=-1)

    @torch.no_grad()
    def constrain(self) -> None:
        """Give every decoder row unit length."""
        W_dec = self.parameters["W_dec"]
        W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    def export(self, *, hook_name: str, metadata: Mapping[str, Any]) -> TopKDictionary:
        """The dictionary for raw activations: both biases divided by the scale, in float64."""
        raw = {name: tensor.detach().clone() for name, tensor in self.parameters.items()}
        for name in ("b_enc", "b_dec"):
            raw[name] = (raw[name].double() / self.scale).float()
        raw["W_dec"] = torch.nn.functional.normalize(raw["W_dec"].double(), dim=1).float()
        return TopKDictionary(**raw, k=self.options.k, hook_name=hook_name, metadata=metadata)
