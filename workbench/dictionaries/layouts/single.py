"""One encoder and one decoder: autoencoders, transcoders and skip transcoders.

    autoencoder       a = (x - b_dec) W_enc + b_enc,  x_hat = z W_dec + b_dec
    transcoder        a = x W_enc + b_enc,            y_hat = z W_dec + b_dec
    skip transcoder   the same, y_hat = z W_dec + x W_skip^T + b_dec

Start. W_skip is 0. The published skip transcoder starts with W_dec = 0 too, so that its first reconstruction
is b_dec exactly and the linear part is learned first. Here it does so where decoder rows may have any length
(and no `decoder_norm` was asked for); rows that an architecture holds at length 1 cannot be 0, and there the
code takes part in the first reconstruction.

Folding. With x' = (x - m) M and y' = (y - n) N the same function of raw x and y has

    W_enc <- M W_enc,  W_dec <- W_dec N^-1,  b_dec <- b_dec N^-1 + n   (an autoencoder's b_enc stays)
    transcoder: b_enc <- b_enc - m M W_enc;  W_skip^T <- M W_skip^T N^-1,  b_dec <- b_dec - m W_skip^T

and then each latent is rescaled (its gauge) so that its decoder row has unit length: W_enc, b_enc and z
times c, W_dec divided by c. An architecture that compares latents with each other (TopK) allows only one
common c, which exists where N is one factor; elsewhere its rows keep the length that they have.

Reference: transcoders, Dunefsky et al. 2024, arXiv:2406.11944; skip, Paulo et al. 2025, arXiv:2501.18823.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from workbench.dictionaries.base import Code
from workbench.dictionaries.initialise import centre_of, start_weights
from workbench.dictionaries.layouts.base import Folded, Initialisation, Kernel, Layout, Parameters
from workbench.dictionaries.normalise import Affine
from workbench.kernels import decode_loss, sparse_decode


@dataclass(frozen=True, kw_only=True)
class Single(Layout):
    """One encoder, one decoder.

    Attributes:
        transcodes: Whether the target is another activation than the input.
        skip: Whether a linear map of the input is added; only where it transcodes.
    """

    transcodes: bool = False
    skip: bool = False

    @property
    def kind(self) -> str:
        """Its name in `train`."""
        if not self.transcodes:
            return "autoencoder"
        return "skip_transcoder" if self.skip else "transcoder"

    @property
    def centred(self) -> bool:
        """Whether b_dec is subtracted from the input."""
        return not self.transcodes

    def initialise(
        self,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"],
        d_sae: int,
        start: Initialisation,
        generator: torch.Generator,
        *,
        unit_decoder: bool,
    ) -> dict[str, Tensor]:
        """Random decoder directions, the encoder their transpose, b_dec the centre of the targets; no skip yet.

        A transcoder's encoder has directions of its own, since its target is in another space.
        """
        b_dec = centre_of(y, start.bias)
        b_pre = b_dec if self.centred else x.mean(0)
        start = replace(start, tied=start.tied and not self.transcodes)
        W_enc, W_dec = start_weights(x - b_pre, y - b_dec, d_sae, start, generator, unit_decoder=unit_decoder)
        moved = b_pre - x.mean(0) if start.encoder_bias == "mean" else torch.zeros_like(b_pre)
        b_enc = (moved if self.centred else -b_pre) @ W_enc
        weights = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
        if not self.skip:
            return weights
        if not unit_decoder and start.decoder_norm is None:
            W_dec.zero_()
        return {**weights, "W_skip": torch.zeros(self.d_out, self.d_in)}

    def pre_bias(self, p: Parameters) -> Float[Tensor, " d_in"]:
        """What the encoder subtracts."""
        return p["b_dec"] if self.centred else p["W_enc"].new_zeros(self.d_in)

    def encode(
        self,
        kernel: Kernel,
        p: Parameters,
        x: Float[Tensor, "row d_in"],
        *,
        bias: str = "b_enc",
        per_latent: Mapping[str, Tensor] | None = None,
        among: Int64[Tensor, " candidate"] | None = None,
        **options: Any,
    ) -> Code:
        """The kernel on the one encoder."""
        chosen = {} if among is None else {"among": among}
        return kernel(x, p["W_enc"], p[bias], self.pre_bias(p), **options, **(per_latent or {}), **chosen)

    def decode(self, p: Parameters, code: Code) -> Float[Tensor, "row d_out"]:
        """The decode of a code, without b_dec and skip."""
        return sparse_decode(*code, p["W_dec"])

    def offset(self, p: Parameters, x: Float[Tensor, "row d_in"]) -> Float[Tensor, ...]:
        """b_dec, and the skip."""
        return torch.addmm(p["b_dec"], x, p["W_skip"].T) if self.skip else p["b_dec"]

    def squared_errors(
        self,
        p: Parameters,
        code: Code,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"],
        prefixes: Sequence[int],
    ) -> tuple[Float[Tensor, " prefix"], Float[Tensor, "row d_out"]]:
        """Squared error of each prefix, and the full reconstruction; decode and loss in one pass without a skip."""
        if self.skip or type(self).decode is not Single.decode:
            return super().squared_errors(p, code, x, y, prefixes)
        return decode_loss(*code, p["W_dec"], p["b_dec"], y, prefixes=prefixes)

    def latent_norms(self, p: Parameters) -> Float[Tensor, " d_sae"]:
        """Length of each decoder row."""
        return p["W_dec"].norm(dim=1)

    @torch.no_grad()
    def fold(self, p: Parameters, inputs: Affine, outputs: Affine, *, rescalable: bool) -> Folded:
        """Raw weights; see the module for the identities."""
        exact = {name: p[name].detach().double() for name in self.names}
        raw = {
            "W_enc": inputs.pull_back(exact["W_enc"]),
            "b_enc": exact["b_enc"].clone(),
            "W_dec": outputs.directions(exact["W_dec"]),
            "b_dec": outputs.directions(exact["b_dec"].unsqueeze(0))[0] + outputs.mean,
        }
        if not self.centred:
            raw["b_enc"] -= inputs.mean @ raw["W_enc"]
        if self.skip:
            through = outputs.directions(inputs.pull_back(exact["W_skip"].T))
            raw["W_skip"], raw["b_dec"] = through.T, raw["b_dec"] - inputs.mean @ through
        return rescaled(raw, outputs, rescalable=rescalable)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the weights."""
        return ("W_enc", "b_enc", "W_dec", "b_dec", *(("W_skip",) if self.skip else ()))


def rescaled(raw: Mapping[str, Tensor], outputs: Affine, *, rescalable: bool) -> Folded:
    """Folded float64 weights in the gauge of unit decoder rows, as far as it may be chosen, in float32."""
    lengths = raw["W_dec"].norm(dim=1)
    if rescalable:
        gauge = torch.where(lengths > 0, lengths, 1.0)
    else:
        gauge = torch.full_like(lengths, 1.0 if outputs.uniform is None else 1 / outputs.uniform)
    read = gauge if rescalable else gauge[0]  # a factorised encoder has other columns than latents
    weights = {**raw, "W_enc": raw["W_enc"] * read, "b_enc": raw["b_enc"] * read}
    weights["W_dec"] = raw["W_dec"] / gauge.unsqueeze(1)
    if outputs.uniform is not None and bool((weights["W_dec"].norm(dim=1) - 1).abs().max() < 1e-3):
        weights["W_dec"] = functional.normalize(weights["W_dec"], dim=1)
    return Folded({name: tensor.float() for name, tensor in weights.items()}, gauge.float())
