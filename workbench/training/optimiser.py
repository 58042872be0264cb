"""Adam as one fused pass over each parameter, with its moments as plain named tensors.

Checkpoints hold tensors and JSON only, so the moments are read out of the optimiser by parameter name and
put back the same way; the step count is the trainer's.

Reference: Kingma & Ba 2014, arXiv:1412.6980.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 6.25e-10  # Gao et al. 2024, arXiv:2406.04093, released script
MOMENTS = ("exp_avg", "exp_avg_sq")


class Adam:
    """Fused Adam over named parameters."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = dict(parameters)
        self._adam = torch.optim.Adam(
            list(self.parameters.values()), lr=1.0, betas=BETAS, eps=EPSILON, fused=True
        )

    def step(self, lr: float) -> None:
        """Update every parameter from its gradient, then forget the gradients."""
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Moments and step count by parameter, as `<moment>.<name>`; empty before the first step."""
        named = {name: self._adam.state[p] for name, p in self.parameters.items() if p in self._adam.state}
        return {f"{key}.{name}": value for name, state in named.items() for key, value in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over moments and step counts, bit for bit and in the parameters' own memory layout."""
        for name, parameter in self.parameters.items():
            moments = {key: torch.empty_like(parameter).copy_(state[f"{key}.{name}"]) for key in MOMENTS}
            self._adam.state[parameter] = {"step": state[f"step.{name}"].clone(), **moments}
