"""top-AFA: as many latents as it takes for the code to be as long as the activation; no k is given.

If decoder rows were orthogonal, the length of an activation would be that of its code. So the length that the
code should have, the approximate feature activation (AFA), is known before anything is selected:

    a = ReLU((x - b_dec) W_enc)                no encoder bias: b_enc stays 0
    s_j = (a_j |d_j|)^2 in descending order, c_i = s_1 + ... + s_i
    n = argmin over i < d_sae of | sqrt(c_i) - |x - b_dec| |      the nearest prefix, not the first to exceed
    z = a on those n latents
    L = reconstruction + lambda * mean over rows of (|z| - |x|)^2 + c_aux * L_aux

The last prefix is never chosen. (The released code overwrites its sum with 1e8, a sentinel.) So at least one
latent is kept and at most d_sae - 1. Where a is 0 prefixes are equally long and the first of them is meant.

The length that the selection is matched to (`select_norm`) and that of the norm loss (`loss_norm`) are
|x - b_dec| ("centred") or |x| ("plain"). The released code uses the centred one to select and the plain one in
the loss; these are the defaults. Its loss takes |z| without |d_j|, which is the same for the unit rows of
training. lambda stands beside a mean over columns there and here, so its published values (1/128 to 1/16) keep
their meaning; the norms are of normalised activations, whose mean square length is d about their mean. AuxK is
that of `auxk.py`, a share of the error's variance; the released code's is not divided by it.

The rule is invariant to one common factor of all columns, so it acts on raw activations as it does on
normalised ones. Whitening would change the lengths; it is refused, and so are targets other than the input,
whose length is not known at inference. `k`, which every training has, plays no part.

What to expect: the norm loss makes |z| equal |x|. It does not make codes sparse: of 64 features in 32
dimensions, 3 active, this learner uses 30 to 40 latents a row (`analyses/checks/top_afa.py`). In the
authors' own notebooks its reconstruction is best where L0 exceeds d.

Looked up: training/sae.py, training/config.py and the notebooks of github.com/SewoongLee/top-afa-sae.
Reference: Lee et al. 2025, arXiv:2503.24277.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from workbench.dictionaries.architecture import Encoded, Part, Pass, Phase
from workbench.dictionaries.auxk import WithAuxK
from workbench.dictionaries.base import Code, Dictionary
from workbench.dictionaries.learners.gated import packed
from workbench.errors import UserError, nearest
from workbench.kernels import threshold_encode, topk_encode

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

NORMS = ("centred", "plain")


@torch.no_grad()
def nearest_prefix(
    lengths: Float[Tensor, "row width"], target: Float[Tensor, " row"], *, d_sae: int
) -> Bool[Tensor, "row width"]:
    """Which entries make the prefix whose length is nearest to the target.

    Prefixes are of the positive lengths in descending order (equal ones as they stand); the one of d_sae entries
    does not count. Sums are float64. Of two equally near prefixes the shorter is meant.

    Args:
        lengths: a_j |d_j| of each entry; 0 in padding.
        target: Wanted length of each row.
        d_sae: Number of latents.

    Status: exact.
    """
    ordered, order = lengths.double().sort(dim=1, descending=True, stable=True)
    prefix = ordered.square().cumsum(dim=1).sqrt()
    counts = (ordered > 0) & (torch.arange(lengths.shape[1], device=lengths.device) < d_sae - 1)
    missed = (prefix - target.double().unsqueeze(1)).abs().masked_fill(~counts, torch.inf)
    n_kept = missed.argmin(dim=1, keepdim=True) + 1
    first = torch.arange(lengths.shape[1], device=lengths.device) < n_kept
    return torch.zeros_like(first).scatter(1, order, first & counts)


def norm_matched(
    code: Code, norms: Float[Tensor, " d_sae"], target: Float[Tensor, " row"]
) -> tuple[Tensor, Tensor]:
    """The entries of a code that `nearest_prefix` keeps, by ascending latent; differentiable in the values."""
    indices, values = code
    kept = nearest_prefix(values.detach() * norms.detach()[indices], target, d_sae=len(norms))
    return packed(indices, values * kept)


@dataclass(frozen=True, eq=False, kw_only=True)
class TopAFADictionary(Dictionary):
    """All latents of the prefix whose length is nearest to that of the activation; a row needs no other rows.

    Attributes:
        select_norm: "centred" for |x - b_dec|, "plain" for |x|.
    """

    architecture: ClassVar[str] = "top_afa"
    select_norm: str = "centred"

    @property
    def settings(self) -> dict[str, Any]:
        """The length that is matched."""
        return {"select_norm": self.select_norm}

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "row d_in"]) -> Code:
        """Latents and values by ascending latent.

        Raises:
            UserError: the rows are not d_in wide.

        Status: exact for pre-activations in float32. Where two prefixes are equally near within their rounding,
        a row may be given one or the other, depending on the rows that it is encoded with.
        """
        self.check_width(x.shape[1])
        zeros = torch.zeros_like(self.b_enc)
        code = threshold_encode(x, self.W_enc, self.b_enc, self.b_pre, threshold=zeros)
        target = x - self.b_pre if self.select_norm == "centred" else x
        return norm_matched(code, self.W_dec.norm(dim=1), target.norm(dim=1))


@dataclass(frozen=True, kw_only=True)
class TopAFA(WithAuxK):
    """top-AFA with the norm loss and AuxK; k plays no part.

    Attributes:
        norm_coefficient: lambda, the weight of the norm loss; 0 for none.
        select_norm: Length that the selection is matched to, one of `NORMS`.
        loss_norm: Length that the norm loss pulls the code to, one of `NORMS`.
    """

    name: ClassVar[str] = "top_afa"
    layouts: ClassVar[tuple[str, ...]] = ("autoencoder",)
    norm_coefficient: float = 1 / 32
    select_norm: str = "centred"
    loss_norm: str = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_sae < 2:
            raise UserError(
                f"d_sae {self.d_sae} is not at least 2: top_afa never keeps all latents, so give it more"
            )
        if not self.norm_coefficient >= 0:
            raise UserError(f"norm_coefficient {self.norm_coefficient} is below 0: give 0 for no norm loss")
        for option in ("select_norm", "loss_norm"):
            if (value := getattr(self, option)) not in NORMS:
                raise UserError(f"{option} {value!r} is not known; {nearest(value, NORMS)}")

    @torch.no_grad()
    def start(self, trainee: Trainee, x: Float[Tensor, "row d_in"]) -> None:
        """Refuse what the rule cannot be frozen for.

        Raises:
            UserError: the normalisation changes lengths.
        """
        inputs = trainee.inputs
        moved = self.select_norm == "plain" and bool(inputs.mean.any())
        if inputs.uniform is None or moved:
            raise UserError(
                f"architecture 'top_afa' with select_norm {self.select_norm!r} compares lengths, which this "
                "normalisation changes: set normalise to 'spread', 'norm' or 'none'"
            )

    def encode(self, trainee: Trainee, x: Float[Tensor, "row d_in"], phase: Phase) -> Encoded:
        """The nearest prefix of each row."""
        p, layout = unbiased(trainee.parameters), trainee.layout
        zeros = {"threshold": torch.zeros_like(p["b_enc"])}
        code = layout.encode(threshold_encode, p, x, per_latent=zeros)
        target = lengths_of(trainee, x, self.select_norm).detach()
        return Encoded(*norm_matched(code, layout.latent_norms(p), target))

    def parts(self, trainee: Trainee, passed: Pass, phase: Phase) -> dict[str, Part]:
        """The norm loss and AuxK."""
        found = torch.linalg.vector_norm(passed.code.values, dim=1)
        missed = (found - lengths_of(trainee, passed.x, self.loss_norm)).square().mean()
        return {"norm": Part(self.norm_coefficient, missed), "aux": self.aux_part(trainee, passed)}

    def dead_code(
        self, trainee: Trainee, x: Float[Tensor, "row d_in"], k: int, dead: Int64[Tensor, " n"]
    ) -> Code:
        """As AuxK's, without a gradient of the encoder bias."""
        return trainee.layout.encode(topk_encode, unbiased(trainee.parameters), x, k=k, among=dead)

    @torch.no_grad()
    def freeze(
        self, trainee: Trainee, weights: Mapping[str, Tensor], gauge: Float[Tensor, " d_sae"], **about: Any
    ) -> TopAFADictionary:
        """The same rule on raw activations."""
        return TopAFADictionary(**weights, select_norm=self.select_norm, **about)


def unbiased(p: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters with an encoder bias that gets no gradient, and so stays 0."""
    return {**p, "b_enc": p["b_enc"].detach()}


def lengths_of(trainee: Trainee, x: Float[Tensor, "row d_in"], norm: str) -> Float[Tensor, " row"]:
    """|x - b_dec| or |x| of each row; differentiable."""
    shifted = x - trainee.parameters["b_dec"] if norm == "centred" else x
    return torch.linalg.vector_norm(shifted, dim=1)
