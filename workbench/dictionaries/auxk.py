"""AuxK: dead latents are revived by what the living ones leave.

    L_aux = sum (e_hat - e)^2 / sum (e - mean e)^2,   e = y - y_hat held fixed,
    e_hat = W_dec applied to the k_aux largest pre-activations among the latents that are dead

The auxiliary decode adds no b_dec, so its target is y - y_hat itself. Gradients reach decoder and encoder.

Reference: Gao et al. 2024, arXiv:2406.04093.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from workbench.dictionaries.architecture import Architecture, Part, Pass
from workbench.dictionaries.base import Code
from workbench.errors import UserError
from workbench.kernels import topk_encode

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee


@dataclass(frozen=True, kw_only=True)
class WithAuxK(Architecture):
    """An architecture with the auxiliary loss.

    Attributes:
        aux_coefficient: Weight of the auxiliary loss; 0 for none.
        k_aux: Dead latents per row in it; by default half of the target's width.
    """

    aux_coefficient: float = 1 / 32
    k_aux: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k_aux is not None and self.k_aux < 1:
            raise UserError(
                f"k_aux {self.k_aux} is not at least 1: set aux_coefficient to 0 for no auxiliary loss"
            )

    def aux_part(self, trainee: Trainee, passed: Pass) -> Part:
        """The auxiliary loss of a batch."""
        if self.aux_coefficient == 0:
            return Part(0.0, passed.y.new_zeros(()))
        return Part(self.aux_coefficient, self._aux_loss(trainee, passed))

    def _aux_loss(self, trainee: Trainee, passed: Pass) -> Float[Tensor, ""]:
        """Share of the error's variance that the dead latents' best reconstruction leaves; 0 if none is dead."""
        dead, ranks = self.revived(trainee).nonzero().squeeze(1), trainee.ranks
        n_dead = int(ranks.total_latents(torch.tensor(len(dead), device=passed.y.device)))
        if not n_dead:
            return passed.y.new_zeros(())
        error = passed.y - passed.y_hat
        spread = ranks.mean((error - ranks.mean(error.mean(0))).square().sum())
        if not float(spread) > 0:
            return error.new_zeros(())
        k = min(self.k_aux or max(1, passed.y.shape[1] // 2), n_dead)
        code = self.dead_code(trainee, passed.x, k, dead)
        return (trainee.layout.decode(trainee.parameters, code) - error).square().sum() / spread

    def revived(self, trainee: Trainee) -> Bool[Tensor, " d_sae"]:
        """The latents that count as dead here."""
        return trainee.dead()

    def dead_code(
        self, trainee: Trainee, x: Float[Tensor, "row d_in"], k: int, dead: Int64[Tensor, " n"]
    ) -> Code:
        """The k largest pre-activations of the dead latents of each row, then ReLU."""
        return trainee.layout.encode(topk_encode, trainee.parameters, x, k=k, among=dead)
