"""An exponential moving average of the weights, corrected for its start.

    s_t = beta s_{t-1} + (1 - beta) w_t,  s_0 = 0;  average = s_t / (1 - beta^t)

Source: bias correction as in Kingma & Ba 2014, arXiv:1412.6980, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """Moving average of named tensors."""

    def __init__(self, weights: Mapping[str, Tensor], beta: float) -> None:
        self.beta = beta
        self.sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in weights.items()}

    @torch.no_grad()
    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after a step."""
        for name, value in weights.items():
            self.sums[name].lerp_(value.float(), 1 - self.beta)

    def after(self, n_steps: int) -> dict[str, Tensor]:
        """The average over `n_steps` steps, at least 1."""
        return {name: value / (1 - self.beta**n_steps) for name, value in self.sums.items()}

    def state(self) -> dict[str, Tensor]:
        """The sums, as `average.<name>`."""
        return {f"average.{name}": value for name, value in self.sums.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over the sums of a checkpoint."""
        for name, value in self.sums.items():
            value.copy_(state[f"average.{name}"])
