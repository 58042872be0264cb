"""What an architecture says of itself, so that one trainer serves all.

An `Architecture` is a frozen dataclass of its own options. It says how a batch is encoded to
(indices, values), what is added to the reconstruction loss, what it trains and keeps besides the four
weights, and which frozen dictionary it becomes. It never sees hook points: the layout (`layouts/`) says
where inputs and targets stand, and the trainee (`trainee.py`) puts the two together.

    loss = reconstruction + sum of weight * part
    reconstruction = mean over rows, prefixes and columns of (y - y_hat)^2   on normalised activations

Normalised targets have variance 1 per column, so the reconstruction part is about the fraction of variance
unexplained. Published penalties that stand beside a squared error summed over d columns are divided by d
here; their coefficients keep their published meaning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.dictionaries.base import Dictionary
from workbench.errors import UserError

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee


@dataclass(frozen=True)
class Phase:
    """Where in a training a step stands; schedules of coefficients are pure functions of it.

    Attributes:
        step: Steps done before this one.
        n_steps: Steps in all.
    """

    step: int
    n_steps: int

    def ramp(self, frac: float) -> float:
        """Linear from near 0 to 1 over the first `frac` of the steps; 1 after it."""
        length = frac * self.n_steps
        return min(1.0, (self.step + 1) / length) if length > 0 else 1.0


@dataclass(frozen=True)
class Encoded:
    """A batch as the architecture encoded it.

    Attributes:
        indices: Latents (row, width).
        values: What is decoded (row, width), differentiable; padding is 0.
        entries: Further tensors of the architecture's own, by name, each (row, width) unless it says otherwise.
    """

    indices: Int64[Tensor, "row width"]
    values: Float[Tensor, "row width"]
    entries: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """One batch through a trainee, in normalised units.

    Attributes:
        x: Input.
        y: Target; the same tensor as x for an autoencoder.
        code: The code.
        y_hat: The full reconstruction, detached.
        beside: What else is known of each row, by the names in `Architecture.needs`.
    """

    x: Float[Tensor, "row d_in"]
    y: Float[Tensor, "row d_out"]
    code: Encoded
    y_hat: Float[Tensor, "row d_out"]
    beside: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One part of a loss: minimised is weight * value."""

    weight: float
    value: Float[Tensor, ""]


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """Options common to all architectures; subclasses add their own.

    Attributes:
        d_sae: Number of latents.
        k: Latents per row: exactly, on average, or as the L0 that a penalty steers to, as the architecture says.
        dead_after_tokens: A latent that fired on none of that many tokens is dead.

    A class may say on which layouts alone it can be trained (`layouts`, by name; empty for all).
    """

    name: ClassVar[str]
    unit_decoder: ClassVar[bool] = True
    layouts: ClassVar[tuple[str, ...]] = ()

    d_sae: int
    k: int
    dead_after_tokens: int = 10_000

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.d_sae:
            raise UserError(
                f"k {self.k} is not between 1 and d_sae {self.d_sae}: choose a smaller k or more latents"
            )
        if self.dead_after_tokens < 1:
            raise UserError(
                f"dead_after_tokens {self.dead_after_tokens} is not at least 1: give a number of tokens"
            )

    def check_layout(self, kind: str) -> None:
        """Refuse a layout that it cannot be trained on.

        Args:
            kind: The layout's name in `train`.

        Raises:
            UserError: the layout is not one of `layouts`.
        """
        if self.layouts and kind not in self.layouts:
            raise UserError(
                f"architecture {self.name!r} is trained on layout {' or '.join(map(repr, self.layouts))} only, not on "
                f"{kind!r}: choose another architecture or layout"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """What must be known of each row besides its activation, by the names of `training.source_beside.KINDS`."""
        return ()

    @property
    def nonnegative(self) -> bool:
        """Whether it takes no row with a negative number."""
        return False

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Numbers of latents whose reconstructions are averaged in the loss; the last is d_sae."""
        return (self.d_sae,)

    def parameters(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Trained tensors besides the layout's, given the layout's; replaces those of the same name."""
        return {}

    def buffers(self) -> dict[str, Tensor]:
        """State that is not trained (thresholds, controllers), saved in every checkpoint."""
        return {}

    @torch.no_grad()
    def start(self, trainee: Trainee, x: Float[Tensor, "row d_in"]) -> None:
        """Set own parameters and buffers of a fresh trainee from normalised sample rows."""
        return

    @abstractmethod
    def encode(self, trainee: Trainee, x: Float[Tensor, "row d_in"], phase: Phase) -> Encoded:
        """The code of a normalised batch, differentiable."""

    def encode_beside(
        self, trainee: Trainee, x: Float[Tensor, "row d_in"], beside: Mapping[str, Tensor], phase: Phase
    ) -> Encoded:
        """The code of a batch of whose rows more is known; by default that is not looked at."""
        return self.encode(trainee, x, phase)

    def parts(self, trainee: Trainee, passed: Pass, phase: Phase) -> dict[str, Part]:
        """What is added to the reconstruction loss."""
        return {}

    @torch.no_grad()
    def observe(self, trainee: Trainee, passed: Pass, phase: Phase) -> None:
        """Update the buffers from one batch, before the auxiliary parts are taken."""
        return

    @torch.no_grad()
    def constrain(self, trainee: Trainee) -> None:
        """Put own parameters back onto their constraints, after the optimiser."""
        return

    @property
    def rescalable(self) -> bool:
        """Whether a latent may be rescaled by itself (values times c, decoder row over c) without another support."""
        return True

    @abstractmethod
    def freeze(
        self, trainee: Trainee, weights: Mapping[str, Tensor], gauge: Float[Tensor, " d_sae"], **about: Any
    ) -> Dictionary:
        """The frozen dictionary.

        Args:
            trainee: Whose buffers and parameters hold what the architecture adds.
            weights: The layout's weights for raw activations, folded.
            gauge: Factor that each latent's pre-activations and values were multiplied by in them.
            **about: What is passed on: hook_name, hook_name_out, centred, sites, metadata.
        """
