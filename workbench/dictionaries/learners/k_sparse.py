"""The k-sparse autoencoder of 2013: a linear code with tied weights, of which each row keeps its k largest.

    a = (x - b_dec) W^T + b_enc;  z = a on the k largest a, 0 elsewhere;  x_hat = z W + b_dec
    L = mean squared error

Selection is by signed value, not by size, and there is no ReLU: a row with fewer than k positive
pre-activations keeps negative ones. Encoder and decoder are one matrix W, whose rows may have any length. Here it
is the decoder's; W_enc is its transpose after every step, and the gradient is the sum of both uses.

A small k from the start leaves many latents that no row ever chooses, which get no gradient and stay. So k falls
linearly from `k_start` to k over the first `schedule_frac` of the steps and then rests. At inference the support may
be larger than in training, alpha * k latents with alpha >= 1: a choice for codes that a classifier reads. With
alpha > 1 the reconstruction is one that was not trained, and is worse where latents overlap.

What was looked up: the abstract and public summaries of the paper confirm the linear activation, the tied weights and
the selection by highest value; a public re-implementation's notes confirm that the authors' alpha is 2 or 3. The
form of the schedule (linear, over the first half of the epochs, for instance from 100 to 15) is recalled.

Limits: figures that count latents with a positive value (L0, dead latents) do not see the negative entries. Tied
weights need input and target to be one activation, so no transcoders and no crosscoders. Normalisations that
whiten or scale columns differently are folded exactly, but the folded encoder is then not the decoder's transpose.
Optimisers keep moments of W_enc that stay 0.

Reference: Makhzani and Frey 2013, "k-Sparse Autoencoders", arXiv:1312.5663.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.architecture import Architecture, Encoded, Phase
from workbench.dictionaries.base import Code, SelectingDictionary
from workbench.errors import UserError
from workbench.kernels.encode.signed import signed_topk_encode

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

START_FACTOR = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class KSparseDictionary(SelectingDictionary):
    """The alpha * k largest pre-activations of each row with their sign; of equal ones the lower index wins.

    Attributes:
        k: Entries per row in training.
        alpha: How many times as many there are in a code.
    """

    architecture: ClassVar[str] = "k_sparse"
    alpha: float = 1.0

    @property
    def settings(self) -> dict[str, Any]:
        """k and alpha."""
        return {**super().settings, "alpha": self.alpha}

    @property
    def width(self) -> int:
        """Entries per row of a code: alpha * k, rounded, at most d_sae."""
        return min(self.d_sae, max(1, round(self.alpha * self.k)))

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "row d_in"]) -> Code:
        """Latents and values of the largest of (x - b_pre) @ W_enc + b_enc per row, negative ones included.

        Raises:
            UserError: the rows are not d_in wide.

        Status: exact.
        """
        self.check_width(x.shape[1])
        return signed_topk_encode(x, self.W_enc, self.b_enc, self.b_pre, k=self.width)


@dataclass(frozen=True, kw_only=True)
class KSparse(Architecture):
    """The k-sparse autoencoder.

    Attributes:
        alpha: Multiple of k that a code has at inference.
        k_start: Latents per row at the first step; by default 4 k, at most d_sae; k for no schedule.
        schedule_frac: Share of the steps over which it falls to k.
    """

    name: ClassVar[str] = "k_sparse"
    layouts: ClassVar[tuple[str, ...]] = ("autoencoder",)
    unit_decoder: ClassVar[bool] = False
    alpha: float = 1.0
    k_start: int | None = None
    schedule_frac: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha >= 1:
            raise UserError(
                f"alpha {self.alpha} is below 1: give 1 for the k of training, or more, such as 2"
            )
        if self.k_start is not None and not self.k <= self.k_start <= self.d_sae:
            raise UserError(
                f"k_start {self.k_start} is not between k {self.k} and d_sae {self.d_sae}: k falls from it"
            )
        if not 0 <= self.schedule_frac <= 1:
            raise UserError(
                f"schedule_frac {self.schedule_frac} is not between 0 and 1: give a share of the steps"
            )

    def k_at(self, phase: Phase) -> int:
        """Latents per row at a step: linear from k_start to k, then k."""
        first = min(self.d_sae, START_FACTOR * self.k) if self.k_start is None else self.k_start
        length = self.schedule_frac * phase.n_steps
        left = max(0.0, 1 - phase.step / length) if length > 0 else 0.0
        return self.k + round(left * (first - self.k))

    def parameters(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The decoder as the transpose of the encoder, whose columns have unit length at the start."""
        return {"W_dec": weights["W_enc"].T.clone(memory_format=torch.contiguous_format)}

    @property
    def rescalable(self) -> bool:
        """No: latents are compared with each other."""
        return False

    def encode(self, trainee: Trainee, x: Float[Tensor, "row d_in"], phase: Phase) -> Encoded:
        """The k largest of each row, k as the schedule says."""
        tied = {**trainee.parameters, "W_enc": trainee.parameters["W_dec"].T}
        return Encoded(*trainee.layout.encode(signed_topk_encode, tied, x, k=self.k_at(phase)))

    @torch.no_grad()
    def constrain(self, trainee: Trainee) -> None:
        """W_enc follows the matrix that is trained."""
        trainee.parameters["W_enc"].copy_(trainee.parameters["W_dec"].T)

    def freeze(
        self, trainee: Trainee, weights: Mapping[str, Tensor], gauge: Float[Tensor, " d_sae"], **about: Any
    ) -> KSparseDictionary:
        """The code at inference; the encoder is folded from the decoder's matrix."""
        W = trainee.parameters["W_dec"].detach().double()
        W_enc = (trainee.inputs.pull_back(W.T) * gauge.double()).float()
        return KSparseDictionary(**{**weights, "W_enc": W_enc}, k=self.k, alpha=self.alpha, **about)
