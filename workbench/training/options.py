"""The parameters of a training run, checked together, and the identity they give it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from workbench.artifacts import canonical_json
from workbench.dictionaries import make_architecture
from workbench.dictionaries.architecture import Architecture
from workbench.dictionaries.layouts.base import Initialisation
from workbench.dictionaries.registry import COMMON
from workbench.errors import UserError, nearest
from workbench.training.optimiser_options import OptimiserOptions, optimiser_options
from workbench.training.schedule import Schedule, decay_frac, default_lr

# 15 times the published base of 2e-4, which is meant for billions of tokens. Measured on 1.5 million tokens of
# layer 2 of an early embedded model (d_sae 4096, k 32), one seed; FVU of the last 30 batches and dead fraction
# at the end:
#   peak lr 4e-3, dead after 100,000 tokens   0.0774   1.0%
#   peak lr 8e-3, dead after 100,000 tokens   0.0751   7.8%
#   peak lr 8e-3, dead after  30,000 tokens   0.0734   5.1%
#   peak lr 6e-3, dead after  10,000 tokens   0.0716   0.8%
LR_BASE = 3e-3
FORMAT = 5  # raised when the same options give other weights than before


@dataclass(frozen=True)
class TrainOptions:
    """How long and how fast to train, and what; see `workbench.training.train`."""

    architecture: str
    layout: str
    d_sae: int
    k: int
    batch_size: int
    n_tokens: int
    lr: float
    aux_coefficient: float
    k_aux: int | None
    dead_after_tokens: int
    settings: Mapping[str, Any]
    normalise: str
    start: Mapping[str, Any]
    optimiser: OptimiserOptions
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.n_tokens < self.batch_size:
            raise UserError(
                f"n_tokens {self.n_tokens} is less than one batch of batch_size {self.batch_size}: train on more tokens"
            )
        if not self.lr > 0:
            raise UserError(f"lr {self.lr} is not positive: leave it out for the default")

    @property
    def n_steps(self) -> int:
        """Whole batches in `n_tokens`."""
        return self.n_tokens // self.batch_size

    @property
    def schedule(self) -> Schedule:
        """The learning-rate curve."""
        kind, warmup = self.optimiser.schedule, self.optimiser.warmup_frac
        decay = decay_frac(kind, self.optimiser.decay_frac, warmup)
        return Schedule(self.lr, self.n_steps, warmup, decay, kind)

    def identity(self, store: str) -> dict[str, Any]:
        """All that decides the result, as it stands in JSON; `store` is the hash of the source."""
        return json.loads(canonical_json({"format": FORMAT, "store": store, **asdict(self)}))

    @property
    def made_architecture(self) -> Architecture:
        """The architecture with its options.

        Raises:
            UserError: a name is not known, or a value is out of its range.
        """
        return make_architecture(
            self.architecture, {name: getattr(self, name) for name in COMMON}, self.settings
        )

    @property
    def initialisation(self) -> Initialisation:
        """How weights start.

        Raises:
            UserError: a name in `start` is not known.
        """
        known = [field.name for field in fields(Initialisation)]
        for name in self.start:
            if name not in known:
                raise UserError(
                    f"start {name!r} is not an option of the initial weights; {nearest(name, known)}"
                )
        return Initialisation(**self.start)


def chosen_lr(lr: float | None, d_sae: int) -> float:
    """The given learning rate, or the default for this many latents."""
    return default_lr(d_sae, LR_BASE) if lr is None else lr


def train_options(
    *,
    d_sae: int,
    lr: float | None,
    settings: Mapping[str, Any] | None,
    start: Mapping[str, Any] | None,
    optimiser: Mapping[str, Any] | None,
    **others: Any,
) -> TrainOptions:
    """The options as a person gives them to `train` or to a member of a sweep, with what was left out.

    Raises:
        UserError: one is not known or out of its range, or the architecture cannot be trained on the layout.
    """
    made = TrainOptions(
        d_sae=d_sae, lr=chosen_lr(lr, d_sae), settings=dict(settings or {}), start=dict(start or {}),
        optimiser=optimiser_options(optimiser or {}), **others,
    )  # fmt: skip
    made.made_architecture.check_layout(made.layout)
    return made


def check_steps(**numbers: int | None) -> None:
    """Refuse intervals of less than one step.

    Raises:
        UserError: a number is not at least 1; names it.
    """
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UserError(f"{name} {number} is not at least 1: choose more steps")
