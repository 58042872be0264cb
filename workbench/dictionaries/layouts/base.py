"""What a layout says of itself: its weights, how they encode and decode, and how they are folded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from workbench.dictionaries.base import Code, Dictionary, Site
from workbench.dictionaries.initialise import check_start
from workbench.dictionaries.normalise import Affine

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee

Parameters = Mapping[str, Tensor]
Kernel = Callable[..., Code]


@dataclass(frozen=True)
class Initialisation:
    """How weights start; see `workbench.dictionaries.initialise`.

    Attributes:
        bias: Where b_dec starts: "geometric_median", "mean" or "zero" of the normalised targets.
        tied: Whether the encoder starts as the transpose of the decoder; else with directions of its own.
        decoder_norm: Length of the decoder's rows at the start, or of the encoder's where decoder rows are held at
            length 1; None for the architecture's; "search" takes one length for both with the least first error.
        subspace: Start decoder rows within the span of that many leading principal components (a whole number), or
            of as many as hold that share of the variance (between 0 and 1); None for all. In a crosscoder each
            site's part of a row lies in the site's part of the span.
        encoder_bias: Where b_enc of an autoencoder starts: "zero", or "mean" for minus the mean pre-activation, as the
            other layouts' does.
        seed: Decides the directions; None for the seed of the training, which decides the order of batches too.
    """

    bias: str = "geometric_median"
    tied: bool = True
    decoder_norm: float | str | None = None
    subspace: int | float | None = None
    encoder_bias: str = "zero"
    seed: int | None = None

    def __post_init__(self) -> None:
        check_start(self)


@dataclass(frozen=True)
class Folded:
    """Weights for raw activations, and the factor that each latent's values were multiplied by."""

    weights: dict[str, Tensor]
    gauge: Float[Tensor, " d_sae"]


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """Inputs and targets of a dictionary.

    Attributes:
        d_in: Width of the input, all sites together.
        d_out: Width of the target, all sites together.
        sites: Hook points side by side in the columns of the input, where there are several.
        sites_out: Those of the target, where they are others.
    """

    d_in: int
    d_out: int
    sites: tuple[Site, ...] = ()
    sites_out: tuple[Site, ...] = ()

    @property
    @abstractmethod
    def kind(self) -> str:
        """Its name in `train`."""

    @property
    def centred(self) -> bool:
        """Whether b_dec is subtracted from the input: input and target are the same."""
        return True

    @property
    def widths(self) -> tuple[int, ...] | None:
        """Columns of each site of the input; None for one site."""
        return tuple(site.width for site in self.sites) or None

    @property
    def widths_out(self) -> tuple[int, ...] | None:
        """Columns of each site of the target; None for one site."""
        return tuple(site.width for site in self.sites_out) or self.widths

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of the weights whose rows are the decoder rows of latents."""
        return ("W_dec",)

    @abstractmethod
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
        """Fresh weights from normalised sample rows."""

    @abstractmethod
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
        """A kernel of `workbench.kernels` on these weights.

        Args:
            kernel: One of the `*_encode` functions.
            p: The weights.
            x: Normalised input.
            bias: Name of the encoder bias in p.
            per_latent: Options of the kernel that have one entry per latent.
            among: Latents to choose from (topk_encode only).
            **options: Other options of the kernel.
        """

    @abstractmethod
    def decode(self, p: Parameters, code: Code) -> Float[Tensor, "row d_out"]:
        """values @ W_dec[indices], without biases and skip; differentiable."""

    @abstractmethod
    def offset(self, p: Parameters, x: Float[Tensor, "row d_in"]) -> Float[Tensor, ...]:
        """What is added to the decode: b_dec, and the skip where there is one."""

    def in_prefix(
        self, indices: Int64[Tensor, "row width"], prefix: int, d_sae: int
    ) -> Bool[Tensor, "row width"]:
        """Which latents are among the first `prefix` of d_sae."""
        return indices < prefix

    def squared_errors(
        self,
        p: Parameters,
        code: Code,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"],
        prefixes: Sequence[int],
    ) -> tuple[Float[Tensor, " prefix"], Float[Tensor, "row d_out"]]:
        """Summed squared error of the reconstruction by the latents of each prefix, and the full one, detached."""
        indices, values = code
        offset, errors, y_hat = self.offset(p, x), [], y
        for prefix in prefixes:
            whole = prefix == prefixes[-1]
            kept = values if whole else values * self.in_prefix(indices, prefix, prefixes[-1])
            y_hat = self.decode(p, (indices, kept)) + offset
            errors.append((y - y_hat).square().sum())
        return torch.stack(errors), y_hat.detach()

    @abstractmethod
    def latent_norms(self, p: Parameters) -> Float[Tensor, " d_sae"]:
        """What a penalty weighs each latent with: the length of its decoder row; differentiable."""

    @torch.no_grad()
    def constrain_gradients(self, p: Parameters) -> None:
        """Remove from each decoder row's gradient its component along the row, which unit rows would undo."""
        for name in self.decoders:
            rows, grad = p[name], p[name].grad
            assert grad is not None
            grad.addcmul_((grad * rows).sum(1, keepdim=True), rows, value=-1)

    @torch.no_grad()
    def constrain(self, p: Parameters) -> None:
        """Give every decoder row unit length."""
        for name in self.decoders:
            p[name].div_(p[name].norm(dim=1, keepdim=True))

    @abstractmethod
    def fold(self, p: Parameters, inputs: Affine, outputs: Affine, *, rescalable: bool) -> Folded:
        """Weights for raw activations, in float64 until the last rounding."""

    def freeze(self, trainee: Trainee, folded: Folded, **about: Any) -> Dictionary:
        """The frozen dictionary of folded weights.

        Args:
            trainee: Whose architecture and buffers it has.
            folded: Weights for raw activations.
            **about: hook_name, hook_name_out, metadata.
        """
        about = {"centred": self.centred, "sites": self.sites, **about}
        return trainee.architecture.freeze(trainee, folded.weights, folded.gauge, **about)
