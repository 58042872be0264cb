"""The learning rate as a pure function of the step: linear warm-up, plateau, decay to zero.

A pure function needs no state, so a resumed run is on the same curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REFERENCE_D_SAE = 2**14
LINEAR_DECAY_FRAC = 0.3


def default_lr(d_sae: int, base: float) -> float:
    """`base` at 16,384 latents, scaled by 1/sqrt(d_sae): the rule of Gao et al. 2024, arXiv:2406.04093."""
    return base * (REFERENCE_D_SAE / d_sae) ** 0.5


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step.

    Attributes:
        peak: Largest learning rate.
        n_steps: Steps in all.
        warmup_frac: Share of them in which it rises from near 0.
        decay_frac: Share of them, at the end, in which it falls to near 0.
        kind: Form of the fall: "linear", "cosine" (half a period), or "constant" for none.
    """

    peak: float
    n_steps: int
    warmup_frac: float
    decay_frac: float
    kind: str = "linear"

    @property
    def warmup_steps(self) -> float:
        """Steps in which the rate rises."""
        return self.warmup_frac * self.n_steps

    def at(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0; positive at every step."""
        rising = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        return self.peak * min(1.0, rising, self._falling(step))

    def _falling(self, step: int) -> float:
        decay = self.decay_frac * self.n_steps
        left = min(1.0, (self.n_steps - step) / decay) if decay and self.kind != "constant" else 1.0
        return (1 - math.cos(math.pi * left)) / 2 if self.kind == "cosine" else left


def decay_frac(kind: str, given: float | None, warmup_frac: float) -> float:
    """The share of the steps in which the rate falls: the given one, or the kind's own."""
    if kind == "constant":
        return 0.0
    own = 1 - warmup_frac if kind == "cosine" else min(LINEAR_DECAY_FRAC, 1 - warmup_frac)
    return own if given is None else given
