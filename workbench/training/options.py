"""The parameters of a training run, checked together, and the identity they give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import UserError
from workbench.training.schedule import Schedule, default_lr

# 15 times the published base of 2e-4, which is meant for billions of tokens. Measured on 1.5 million tokens of
# layer 2 of an early embedded model (d_sae 4096, k 32), one seed; FVU of the last 30 batches and dead fraction
# at the end:
#   peak lr 4e-3, dead after 100,000 tokens   0.0774   1.0%
#   peak lr 8e-3, dead after 100,000 tokens   0.0751   7.8%
#   peak lr 8e-3, dead after  30,000 tokens   0.0734   5.1%
#   peak lr 6e-3, dead after  10,000 tokens   0.0716   0.8%
LR_BASE = 3e-3
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
