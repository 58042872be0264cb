"""The learning rate as a pure function of the step: linear warm-up, plateau, linear decay to zero.

A pure function needs no state, so a resumed run is on the same curve.
"""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE_D_SAE = 2**14


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
    """

    peak: float
    n_steps: int
    warmup_frac: float
    decay_frac: float

    def at(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0; positive at every step."""
        warmup, decay = self.warmup_frac * self.n_steps, self.decay_frac * self.n_steps
        rising = (step + 1) / warmup if warmup else 1.0
        falling = (self.n_steps - step) / decay if decay else 1.0
        return self.peak * min(1.0, rising, falling)
