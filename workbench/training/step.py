"""One optimiser step, and the state that steps carry from one to the next.

Order: losses (which count firings first), backward, gradient constraints, Adam, constraints. Removing the
decoder gradient's component along its row before Adam keeps Adam's moments free of what the
renormalisation would undo.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.base import StepLosses, Trainee
from workbench.errors import UserError
from workbench.training.optimiser import Adam
from workbench.training.schedule import Schedule


class Trainer:
    """A trainee, its optimiser and its schedule after `step` steps."""

    def __init__(self, trainee: Trainee, schedule: Schedule) -> None:
        self.trainee, self.schedule, self.step = trainee, schedule, 0
        self.adam = Adam(trainee.parameters)

    def train_batch(self, x: Float[Tensor, "row d_in"]) -> StepLosses:
        """One step on a batch of raw activations.

        Raises:
            UserError: the loss is not finite.
        """
        losses = self.trainee.losses(x)
        if not torch.isfinite(losses.loss):
            raise UserError(
                f"the loss is not finite at step {self.step}: lower lr (now {self.schedule.at(self.step):.2g}) "
                "or capture the activations again"
            )
        losses.loss.backward()
        self.trainee.constrain_gradients()
        self.adam.step(self.schedule.at(self.step))
        self.trainee.constrain()
        self.step += 1
        return losses

    def state(self) -> dict[str, Tensor]:
        """Every tensor that decides the steps to come."""
        return {**self.trainee.state(), **self.adam.state()}

    def load_state(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Continue after `step` steps from a checkpoint's tensors."""
        self.trainee.load_state(state)
        self.adam.load_state(state)
        self.step = step
