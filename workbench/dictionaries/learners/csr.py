"""Contrastive sparse representation: a tied TopK of embeddings whose codes of like rows are drawn together.

    z_k = ReLU of the k largest of W (x - b_dec) + b_enc;   x_hat = W^T z + b_dec,   rows of W of any length
    L   = MSE_k + 1/8 MSE_4k + 1/32 AuxK + gamma * InfoNCE(codes) / in nats, temperature 0.2

MSE is a mean over columns, as published, so no coefficient is converted; but it is of normalised activations, whose
columns have variance 1 (published embeddings are not normalised). With normalise="none" and unit rows in 64
columns MSE is 64 times smaller, and gamma 0.1 weighs as 6.4 would: nearest-neighbour accuracy of "same" fell from
0.83 without the term to 0.43 (analyses/checks/csr.py's rows, one seed). Which rows are positives (`positives`):

    same       the row itself, seen twice. Both codes are equal, so the term only pushes other rows away: the
               published vision training
    label      the other rows of the batch with the same label number
    partner    the same row of another array (a query and its document). Both rows are encoded and both are
               reconstructed; published is the mean of the two errors, here it is their sum with 2 gamma, the same
               loss up to a factor but for 4k and AuxK, which are of x alone

`needs` says which, so a run is refused before it is trained where it has no labels or no partners:
`workbench store import --labels FILE` gives labels, a second `workbench store import --name NAME` partners.

Looked up: the authors' public code (repository neilwen987/CSR_Adaptive_Rep, training of text retrieval) has
1/8, 1/32, gamma 0.1, temperature 0.2, Adam with epsilon 6.25e-10 and 4e-4, no normalisation, and sums the
exponentials of all positives of a row. For pairs it takes the cross-entropy of queries among documents alone; here
all 2B codes are compared with each other, as it does for one array. Labels are
not used there: positives by label are this module's reading of the abstract's "task-aware".

Limit: similarities are (row, row), twice the batch for "same" and "partner"; several processes that share the
rows of a batch each compare their own only.

Reference: Wen et al. 2025, arXiv:2503.01776.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.architecture import Encoded, Part, Pass, Phase
from workbench.dictionaries.contrast import code_cosines, info_nce_nats
from workbench.dictionaries.learners.topk import TopK, TopKDictionary
from workbench.dictionaries.tied import folded, tied
from workbench.errors import UserError, nearest
from workbench.kernels import topk_encode

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

POSITIVES = ("same", "label", "partner")


@dataclass(frozen=True, kw_only=True)
class CSR(TopK):
    """Contrastive sparse representation.

    Attributes:
        positives: One of `POSITIVES`.
        partner: Name of the imported array of partners; only where positives is "partner".
        gamma: Weight of the contrastive term; 0 for none. Published: 0.1, and 1 for pairs of two modalities.
        temperature: What cosines are divided by.
    """

    name: ClassVar[str] = "csr"
    layouts: ClassVar[tuple[str, ...]] = ("autoencoder",)
    unit_decoder: ClassVar[bool] = False
    multi: int = 4
    positives: str = "same"
    partner: str | None = None
    gamma: float = 0.1
    temperature: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positives not in POSITIVES:
            raise UserError(
                f"positives {self.positives!r} is not known; {nearest(self.positives, POSITIVES)}"
            )
        if self.partner is not None and self.positives != "partner":
            raise UserError(
                f"partner {self.partner!r} has no use with positives {self.positives!r}: set positives to 'partner'"
            )
        if not self.gamma >= 0:
            raise UserError(f"gamma {self.gamma} is below 0: give 0 for no contrastive term")
        if not self.temperature > 0:
            raise UserError(f"temperature {self.temperature} is not positive: the default is 0.2")

    @property
    def needs(self) -> tuple[str, ...]:
        """The labels or the partners of rows, where they are used."""
        named = "partner" if self.partner is None else f"partner:{self.partner}"
        return {"same": (), "label": ("label",), "partner": (named,)}[self.positives]

    def encode(self, trainee: Trainee, x: Float[Tensor, "row d_in"], phase: Phase) -> Encoded:
        """The k largest of each row, by the transpose of the decoder."""
        with tied(trainee):
            return super().encode(trainee, x, phase)

    def parts(self, trainee: Trainee, passed: Pass, phase: Phase) -> dict[str, Part]:
        """4k, AuxK, the contrastive term, and the reconstruction of partners."""
        with tied(trainee):
            parts = super().parts(trainee, passed, phase)
            if self.gamma == 0:
                return parts
            if self.positives == "partner":
                return parts | self._with_partners(trainee, passed)
            return parts | {"contrast": Part(self.gamma, self._contrast(passed))}

    def _contrast(self, passed: Pass) -> Float[Tensor, ""]:
        code, n = passed.code, len(passed.x)
        if self.positives == "label":
            return self._info_nce(code.indices, code.values, passed.beside["label"].long())
        return self._twice((code.indices, code.indices), (code.values, code.values), n)

    def _with_partners(self, trainee: Trainee, passed: Pass) -> dict[str, Part]:
        """The contrastive term with partners, and their reconstruction."""
        p, layout, code = trainee.parameters, trainee.layout, passed.code
        other = trainee.inputs.apply(passed.beside[self.needs[0]].to(passed.x))
        indices, values = layout.encode(topk_encode, p, other, k=self.k)
        errors, _ = layout.squared_errors(p, (indices, values), other, other, (self.d_sae,))
        contrast = self._twice((code.indices, indices), (code.values, values), len(other))
        return {
            "partner": Part(1.0, errors.sum() / other.numel()),
            "contrast": Part(2 * self.gamma, contrast),
        }

    def _twice(
        self, indices: tuple[Tensor, Tensor], values: tuple[Tensor, Tensor], n: int
    ) -> Float[Tensor, ""]:
        """The term where row r of the second half is the positive of row r of the first."""
        group = torch.arange(n, device=values[0].device).repeat(2)
        return self._info_nce(torch.cat(indices), torch.cat(values), group)

    def _info_nce(self, indices: Tensor, values: Tensor, group: Tensor) -> Float[Tensor, ""]:
        return info_nce_nats(code_cosines(indices, values, self.d_sae) / self.temperature, group)

    @torch.no_grad()
    def freeze(
        self, trainee: Trainee, weights: Mapping[str, Tensor], gauge: Float[Tensor, " d_sae"], **about: Any
    ) -> TopKDictionary:
        """TopK at inference."""
        return TopKDictionary(**folded(trainee).weights, k=self.k, **about)
