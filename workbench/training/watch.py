"""Watches the loss: a training that has gone wrong stops, and nothing of it reaches a checkpoint.

On a CPU every loss is looked at before its backward. On a GPU reading a number waits for the device, so the
losses of some steps are read together, and all of them before a checkpoint is written.

What counts: a loss that is not finite, or one above 100 times the median of the last 128 for 5 steps in a
row, after the warm-up.
"""

from __future__ import annotations

from collections import deque
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UserError

MULTIPLE, IN_A_ROW = 100.0, 5
REMEMBERED, LEAST = 128, 32
TOGETHER = 16  # on a GPU


class DivergedError(UserError):
    """The loss is not finite or explodes; no step after the last good checkpoint is to be kept."""


class LossWatch:
    """Losses of the last steps, and whether the present ones are still of their size.

    Args:
        quiet_steps: First steps in which a large loss is not judged (the warm-up).
        together: Losses that are read at a time: 1 where that costs nothing.
    """

    def __init__(self, quiet_steps: float = 0.0, *, together: int = 1) -> None:
        self.quiet_steps, self.together = quiet_steps, together
        self._last: deque[float] = deque(maxlen=REMEMBERED)
        self._waiting: list[tuple[int, Tensor]] = []
        self._high = 0

    @property
    def suspicious(self) -> bool:
        """Whether the last losses were too large, though not yet often enough."""
        return self._high > 0

    def see(self, step: int, loss: Float[Tensor, ""]) -> None:
        """Note the loss of a step, counted from 0.

        Raises:
            DivergedError: it, or one that was not yet read, is not finite or explodes.
        """
        self._waiting.append((step, loss.detach()))
        if len(self._waiting) >= self.together:
            self.settle()

    def settle(self) -> None:
        """Look at every loss that has been noted.

        Raises:
            DivergedError: as `see`.
        """
        steps, losses = [step for step, _ in self._waiting], [loss for _, loss in self._waiting]
        self._waiting = []
        for step, value in zip(steps, torch.stack(losses).tolist() if losses else [], strict=True):
            self._judge(step, value)

    def _judge(self, step: int, value: float) -> None:
        if not abs(value) < float("inf"):
            raise diverged("the loss is not finite", step)
        usual = median(self._last) if len(self._last) >= LEAST and step >= self.quiet_steps else None
        if usual is None or not 0 < MULTIPLE * usual < value:
            self._high = 0
            self._last.append(value)
            return
        self._high += 1
        if self._high >= IN_A_ROW:
            raise diverged(f"the loss explodes ({value:.3g}, {value / usual:,.0f} times its median)", step)


def diverged(what: str, step: int) -> DivergedError:
    """The refusal to go on from a step."""
    return DivergedError(
        f"{what} at step {step}, on batch {step} of the shuffled order: lower lr or set clip_norm in optimiser, "
        "which starts anew, or capture the activations again if they are not finite"
    )
