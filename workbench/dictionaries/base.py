"""What every dictionary is: a frozen one that encodes and decodes, and a trainee that becomes one.

A `Dictionary` works on raw activations, in the units of the model. A `Trainee` works on normalised ones
(`scale` * x, mean squared distance from the mean = d_in), because one learning rate then fits all layers;
its `export` folds the scale away. Unit decoder rows make the fold exact for positively homogeneous
codes: with x' = s x,

    (s x - b) W = s ((x - b/s) W)   so   b_dec = b/s, b_enc = b_enc'/s, W_enc and W_dec unchanged.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from workbench.artifacts import canonical_json
from workbench.errors import UserError
from workbench.kernels import sparse_decode

Code = tuple[Int64[Tensor, "row k"], Float[Tensor, "row k"]]


@dataclass(frozen=True, eq=False)
class Dictionary(ABC):
    """A trained or random dictionary on raw activations; its tensors are never written to.

    Attributes:
        W_enc: Encoder (d_in, d_sae).
        b_enc: Encoder bias (d_sae).
        W_dec: Decoder, one row of unit length per latent (d_sae, d_in).
        b_dec: Subtracted before encoding, added after decoding (d_in).
        k: Entries per row of a code.
        hook_name: The hook point whose activations it was made for.
        metadata: What is stored beside the weights.
    """

    architecture: ClassVar[str]
    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, " d_in"]
    k: int
    hook_name: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Encoder rows side by side in memory: what the encode kernel reads, without a copy per call.
        object.__setattr__(self, "W_enc", self.W_enc.T.contiguous().T)

    @property
    def d_in(self) -> int:
        """Width of an activation."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights by their names on disk."""
        return {name: getattr(self, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the architecture, k, and the names, shapes, dtypes and bytes of the weights."""
        digest = hashlib.sha256(canonical_json({"architecture": self.architecture, "k": self.k}).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @abstractmethod
    def encode(self, x: Float[Tensor, "row d_in"]) -> Code:
        """The sparse code of each row: latents and their values, by descending value; zeros may stand last."""

    def decode(
        self, indices: Int64[Tensor, "row k"], values: Float[Tensor, "row k"]
    ) -> Float[Tensor, "row d_in"]:
        """The activation that a sparse code stands for: values @ W_dec[indices] + b_dec. Status: exact."""
        return sparse_decode(indices, values, self.W_dec) + self.b_dec

    def reconstruct(self, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Decode of the encode."""
        return self.decode(*self.encode(x))

    def check_width(self, width: int) -> None:
        """Refuse activations that this dictionary was not made for.

        Raises:
            UserError: their width is not d_in.
        """
        if width != self.d_in:
            raise UserError(
                f"activations of width {width} do not fit the dictionary of {self.hook_name!r}, whose d_in is "
                f"{self.d_in}: use the model and hook that it was trained on"
            )


@dataclass(frozen=True)
class StepLosses:
    """What one training batch measured, on normalised activations.

    Attributes:
        loss: What is minimised: squared error over the sample's variance, plus the weighted auxiliary loss.
        fvu: Fraction of the batch's variance left unexplained.
        l0: Mean number of latents with a positive value per row.
        aux_loss: Auxiliary loss before its weight; 0 where nothing is dead.
        dead_frac: Latents that have not fired for longer than the limit, this batch included.
    """

    loss: Tensor
    fvu: float
    l0: float
    aux_loss: float
    dead_frac: float


class Trainee(ABC):
    """A dictionary while it is trained: leaf tensors, losses, constraints, state, export."""

    parameters: dict[str, Tensor]
    tokens_since_fired: Int64[Tensor, " d_sae"]
    scale: float

    @classmethod
    @abstractmethod
    def initialise(
        cls, sample: Float[Tensor, "row d_in"], options: Mapping[str, Any], generator: torch.Generator
    ) -> Trainee:
        """A fresh trainee from raw sample rows and the architecture's options."""

    @abstractmethod
    def losses(self, x: Float[Tensor, "row d_in"]) -> StepLosses:
        """Losses of one raw batch; updates `tokens_since_fired` first."""

    @abstractmethod
    def constrain_gradients(self) -> None:
        """Remove from the gradients what the constraints would undo, before the optimiser sees them."""

    @abstractmethod
    def constrain(self) -> None:
        """Put the parameters back onto their constraints, after the optimiser."""

    @abstractmethod
    def export(self, *, hook_name: str, metadata: Mapping[str, Any]) -> Dictionary:
        """The frozen dictionary for raw activations."""

    def state(self) -> dict[str, Tensor]:
        """All tensors that a checkpoint needs."""
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return {**self.parameters, "tokens_since_fired": self.tokens_since_fired, "scale": scale}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over the tensors of a checkpoint, bit for bit."""
        for name, parameter in self.parameters.items():
            parameter.copy_(state[name])
        self.tokens_since_fired = state["tokens_since_fired"].clone()
        self.scale = float(state["scale"])

    def dead(self, limit_tokens: int) -> Bool[Tensor, " d_sae"]:
        """Latents that have not fired for more than `limit_tokens` tokens."""
        return self.tokens_since_fired > limit_tokens
