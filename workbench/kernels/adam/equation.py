"""The numbers of one Adam step: what a step of a parameter is made of besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AdamStep:
    """Step number t of Adam.

        w <- w - alpha * m / (root * sqrt(v) + epsilon)
        alpha = lr / (1 - beta1^t),  root = 1 / sqrt(1 - beta2^t)

    Attributes:
        lr: Learning rate of this step.
        step: t, counted from 1.
        betas: Decay of the mean and of the mean square of the gradients.
        epsilon: Added to the root.
    """

    lr: float
    step: int
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"step {self.step} is not a step: they are counted from 1")

    @property
    def alpha(self) -> float:
        """Learning rate over the bias correction of the mean."""
        return self.lr / (1 - self.betas[0] ** self.step)

    @property
    def root(self) -> float:
        """Inverse root of the bias correction of the mean square."""
        return (1 - self.betas[1] ** self.step) ** -0.5
