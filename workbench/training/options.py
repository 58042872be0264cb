"""The parameters of a training run, checked together, and the identity they give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import UserError
from workbench.training.schedule import Schedule, default_lr

LR_BASE = 2e-4
WARMUP_FRAC, DECAY_FRAC = 0.05, 0.3


@dataclass(frozen=True)
class TrainOptions:
    """How long and how fast to train, and what; see `workbench.training.train`."""

    architecture: str
    d_sae: int
    k: int
    batch_size: int
    n_tokens: int
    lr: float
    aux_coefficient: float
    k_aux: int | None
    dead_after_tokens: int
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
        return Schedule(self.lr, self.n_steps, WARMUP_FRAC, DECAY_FRAC)

    @property
    def trainee_options(self) -> Mapping[str, Any]:
        """What the architecture is initialised with."""
        names = ("d_sae", "k", "aux_coefficient", "k_aux", "dead_after_tokens")
        return {name: getattr(self, name) for name in names}


def chosen_lr(lr: float | None, d_sae: int) -> float:
    """The given learning rate, or the default for this many latents."""
    return default_lr(d_sae, LR_BASE) if lr is None else lr
