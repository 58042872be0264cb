"""KronSAE: an encoder that is a Kronecker product of two small ones per head, with mAND between them.

    u = P (x - b_dec) + b_p,   v = Q (x - b_dec) + b_q        P: h m rows,  Q: h n rows,  d_sae = h m n
    latent (head, i, j):  z = sqrt(u_i v_j) where u_i > 0 and v_j > 0, else 0      (mAND)
    x_hat = z W_dec + b_dec  with the k largest z of a row;   L = reconstruction + c_aux * L_aux

A latent fires where a factor of its head's base and one of its extension both do: an AND, with the geometric
mean as value. The published variants `combine="relu"` (ReLU(u) ReLU(v)) and `"product"` (u v, here with a ReLU, as
every code here is positive) are there for comparison. Encoder parameters are h (m + n) (d + 1) in place of
d_sae (d + 1); `kernels/kron_encode` finds the k largest exactly without making the d_sae products of a row. The
decoder is dense, d_sae rows, and the memory of its optimiser state with it: only the encoder is small.

Start: rows of P and Q normal with variance 1 / (2 d_sae), W_dec row (head, i, j) = P_i + Q_j of unit length, biases
0. Here the rows are the layout's own initial encoder columns at that length (so that `start={"subspace": ...}` and
`decoder_norm`, a factor on it, act on them): their directions are uniform, their lengths all equal. A
transcoder's decoder, which writes into another space, starts as the layout has it.

AuxK takes the largest of dead latents by value; a dead pair one of whose factors is never positive gets no gradient
from it.

Gauge. Codes are homogeneous in (P, Q): of degree 1 with mAND, of degree 2 without a root, so a factor c of all values
is c or sqrt(c) in both.

Decoder rows have unit length at the start and are free afterwards: held at 1, planted features that are sums of
factors were recovered less (0.64 against 0.80 to 0.82 after 3000 steps; whether the paper holds them is not known).

Limits. Near 0 the slope of the root grows without bound (it is finite at every positive number and exactly 0 at
0), so clip the gradient's norm (`optimiser={"clip_norm": 1.0}`) where a training is unstable. There is no linear
encoder per latent: `W_enc` and `b_enc` are refused, and circuits that need them with it. Not in a cross-layer
transcoder, and not divided by latents between processes.

Published: AdamW 8e-4, cosine to 1e-6 after 10% warm-up, k 50, batch 8192; explained variance at d_sae 32768 (m 2,
n 4, h 4096, 125 million tokens) mAND .8336, ReLU product .8267, product .8237; small m and many heads are
advised; on small Pythias TopK was slightly better. The appendix's simplified code takes sqrt(p q + 1e-5), whose
latents never are 0; here they are.
Reference: Kurochkin et al. 2025, arXiv:2505.22255 (equations from the paper's text; no repository was found).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from workbench.dictionaries.architecture import Encoded, Part, Pass, Phase
from workbench.dictionaries.auxk import WithAuxK
from workbench.dictionaries.base import Code, Dictionary, Site
from workbench.dictionaries.initialise import first_length, tied, unit_rows
from workbench.errors import UserError, nearest
from workbench.kernels.kron_encode.factors import Factors
from workbench.kernels.kron_encode.op import COMBINE, kron_encode

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

LINEAR = ("W_enc", "b_enc")


@dataclass(frozen=True, eq=False, kw_only=True)
class KronDictionary(Dictionary):
    """The k largest pairs of a base and an extension factor; `W_enc` and `b_enc` do not exist.

    Attributes:
        P: Base, one row per factor (heads * base, d_in).
        Q: Extension (heads * extension, d_in).
        b_p: Biases of the base (heads * base).
        b_q: Biases of the extension (heads * extension).
        k: Entries per row of a code.
        base: Base factors per head.
        extension: Extension factors per head.
        combine: "mand", "relu" or "product".
    """

    architecture: ClassVar[str] = "kron"
    P: Float[Tensor, "base_factor d_in"]
    Q: Float[Tensor, "extension_factor d_in"]
    b_p: Float[Tensor, " base_factor"]
    b_q: Float[Tensor, " extension_factor"]
    k: int
    base: int
    extension: int
    combine: str = "mand"
    W_enc: Float[Tensor, "d_in d_sae"] = field(init=False, repr=False)
    b_enc: Float[Tensor, " d_sae"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        f = self.factors
        wanted = [(f.n_base, self.d_in), (f.n_rows - f.n_base, self.d_in), (f.n_latents, self.d_out)]
        found = [tuple(self.P.shape), tuple(self.Q.shape), tuple(self.W_dec.shape)]
        if found != wanted or (len(self.b_p), len(self.b_q)) != (found[0][0], found[1][0]):
            raise UserError(
                f"P, Q and W_dec of shapes {found} are not those of {f}, {wanted}: give the weights of one dictionary"
            )
        if not 1 <= self.k <= self.d_sae or self.combine not in COMBINE:
            raise UserError(
                f"k {self.k} and combine {self.combine!r} are not a number of 1 to {self.d_sae} and one of "
                f"{', '.join(COMBINE)}: give the settings of one dictionary"
            )
        if self.centred and self.d_in != self.d_out:
            raise UserError(f"d_in {self.d_in} is not d_out {self.d_out}: set centred to False")

    def __getattr__(self, name: str) -> Any:
        if name in LINEAR:
            raise UserError(
                f"a kron dictionary has no {name}: its latents are products of two factors, not linear in the "
                "activation, so use one that is (topk, jumprelu) where encoder rows are needed"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def factors(self) -> Factors:
        """Sizes of the encoder."""
        return Factors(len(self.P) // max(1, self.base), self.base, self.extension)

    @property
    def d_in(self) -> int:
        """Width of an activation that it reads."""
        return self.P.shape[1]

    @cached_property
    def b_pre(self) -> Float[Tensor, " d_in"]:
        """What is subtracted from the input: b_dec, or zeros."""
        return self.b_dec if self.centred else self.P.new_zeros(self.d_in)

    @property
    def settings(self) -> dict[str, Any]:
        """k, sizes of a head, and what is made of a pair."""
        return {"k": self.k, "base": self.base, "extension": self.extension, "combine": self.combine}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights by their names on disk."""
        names = ("P", "Q", "b_p", "b_q", "W_dec", "b_dec", *(() if self.W_skip is None else ("W_skip",)))
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        *,
        sites: Sequence[Site] = (),
        **about: Any,
    ) -> KronDictionary:
        """The dictionary whose `tensors` these are, with a `cfg.json` as settings.

        Raises:
            UserError: sizes, k and weights do not fit each other.
        """
        own = {name: settings[name] for name in ("k", "base", "extension", "combine")}
        centred = bool(settings.get("apply_b_dec_to_input", True))
        return cls(**tensors, **own, sites=tuple(sites), centred=centred, **about)

    @cached_property
    def _reading(self) -> tuple[Tensor, Tensor]:
        """Columns and biases of both factors, as the kernel takes them."""
        return torch.cat([self.P, self.Q]).T, torch.cat([self.b_p, self.b_q])

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "row d_in"]) -> Code:
        """Latents and values of the k largest pairs per row, by descending value.

        Raises:
            UserError: the rows are not d_in wide.

        Status: exact.
        """
        self.check_width(x.shape[1])
        options: dict[str, Any] = {"k": self.k, "factors": self.factors, "combine": self.combine}
        return kron_encode(x, *self._reading, self.b_pre, **options)

    def randomised(
        self,
        generator: torch.Generator,
        sample: Float[Tensor, "row d_in"] | None,
        metadata: Mapping[str, Any],
    ) -> KronDictionary:
        """The random control: unit factors of random direction, decoder rows as a fresh training ties them.

        Raises:
            UserError: biases have to be set and there is no sample, or it reads several sites.
        """
        if self.sites or (not self.centred and (sample is None or not len(sample))):
            raise UserError(
                f"the random control of this kron dictionary of {self.hook_name!r} needs one site and, where b_dec is "
                "not subtracted, rows to set its biases by: give sample, activations that it reads"
            )
        rows = unit_rows(self.factors.n_rows, self.d_in, generator).to(self.P)
        tied = functional.normalize(self.factors.sums(rows), dim=1)
        W_dec = tied if self.centred else unit_rows(self.d_sae, self.d_out, generator).to(self.P)
        shift = (
            rows.new_zeros(len(rows)) if self.centred or sample is None else -(rows @ sample.mean(0).to(rows))
        )
        return replace(self, **self.factors.split(rows, shift), W_dec=W_dec, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Kron(WithAuxK):
    """KronSAE with AuxK; k latents per row.

    Attributes:
        base: Base factors per head, m; 2 or more.
        extension: Extension factors per head, n; 2 or more. base * extension divides d_sae; the rest is heads.
        combine: What a latent is of its factors: "mand", "relu" or "product".
    """

    name: ClassVar[str] = "kron"
    layouts: ClassVar[tuple[str, ...]] = ("autoencoder", "transcoder", "skip_transcoder", "crosscoder")
    unit_decoder: ClassVar[bool] = False
    base: int = 2
    extension: int = 4
    combine: str = "mand"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base < 2 or self.extension < 2:
            raise UserError(
                f"base {self.base} and extension {self.extension} are not both at least 2: a head of one factor "
                "shares nothing, use topk"
            )
        size = self.base * self.extension
        if self.d_sae % size:
            raise UserError(
                f"d_sae {self.d_sae} is not a multiple of base {self.base} times extension {self.extension}, the "
                f"latents of a head: choose {size * max(1, round(self.d_sae / size))} latents or other factors"
            )
        if self.combine not in COMBINE:
            raise UserError(f"combine {self.combine!r} is not known; {nearest(self.combine, COMBINE)}")

    @property
    def factors(self) -> Factors:
        """Sizes of the encoder."""
        return Factors(self.d_sae // (self.base * self.extension), self.base, self.extension)

    @property
    def rescalable(self) -> bool:
        """No: latents are compared with each other, and share factors."""
        return False

    def parameters(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Columns and biases of both factors in place of d_sae ones, and the decoder rows that are their sums."""
        n, length = self.factors.n_rows, (len(weights["W_enc"]) / (2 * self.d_sae)) ** 0.5
        made = {name: (weights[name][..., :n] * length).clone() for name in LINEAR}
        if tied(weights):
            sums = functional.normalize(self.factors.sums(made["W_enc"].T), dim=1)
            made["W_dec"] = sums * first_length(weights)
        return made

    def encode(self, trainee: Trainee, x: Float[Tensor, "row d_in"], phase: Phase) -> Encoded:
        """The k largest pairs of each row."""
        return Encoded(*self._largest(trainee, x, self.k))

    def _largest(self, trainee: Trainee, x: Tensor, k: int, among: Int64[Tensor, " n"] | None = None) -> Code:
        options: dict[str, Any] = {"k": k, "factors": self.factors, "combine": self.combine}
        return trainee.layout.encode(kron_encode, trainee.parameters, x, among=among, **options)

    def dead_code(
        self, trainee: Trainee, x: Float[Tensor, "row d_in"], k: int, dead: Int64[Tensor, " n"]
    ) -> Code:
        """The k largest of the dead pairs of each row."""
        return self._largest(trainee, x, k, dead)

    def parts(self, trainee: Trainee, passed: Pass, phase: Phase) -> dict[str, Part]:
        """AuxK."""
        return {"aux": self.aux_part(trainee, passed)}

    def freeze(
        self, trainee: Trainee, weights: Mapping[str, Tensor], gauge: Float[Tensor, " d_sae"], **about: Any
    ) -> KronDictionary:
        """The same factors on raw activations."""
        raw = dict(weights)
        power = 1.0 if self.combine == "mand" else float(gauge[0]) ** -0.5
        columns, biases = raw.pop("W_enc") * power, raw.pop("b_enc") * power
        sizes: dict[str, Any] = {"base": self.base, "extension": self.extension, "combine": self.combine}
        return KronDictionary(**raw, **self.factors.split(columns.T, biases), k=self.k, **sizes, **about)
