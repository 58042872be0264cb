"""From the final norm to logits: unembedding, bias and the cap that some models put on logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy.affine import read_affine

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Readout:
    """softcap(n W_U + b_U).

    Attributes:
        W_U: (d_model, d_vocab).
        b_U: (d_vocab), None where there is none.
        soft_cap: c of c tanh(x / c); 0 for none.
    """

    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"] | None = None  # noqa: N815
    soft_cap: float = 0.0

    def uncapped(self, normed: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits before the cap."""
        return torch.nn.functional.linear(normed, self.W_U.T, self.b_U)

    def __call__(self, normed: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits."""
        logits = self.uncapped(normed)
        return self.soft_cap * torch.tanh(logits / self.soft_cap) if self.soft_cap else logits


def read_readout(model: TransformerBridge) -> Readout:
    """The unembedding of a bridge."""
    affine = read_affine(model.unembed, "the unembedding")
    cap = float(getattr(model.cfg, "output_logits_soft_cap", None) or 0.0)
    return Readout(affine.W, affine.b, max(cap, 0.0))
