"""Random Adam problems, and the float64 answer to them by the textbook equations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.kernels.adam.equation import AdamStep
from workbench.kernels.adam.op import adam_step

BETAS, EPSILON = (0.9, 0.99), 1e-8
RATES = (0.1, 0.03, 0.01)


@dataclass
class Problem:
    """A parameter with moments, and the gradients of some steps."""

    parameter: Tensor
    gradients: list[Tensor]
    exp_avg: Tensor
    exp_avg_sq: Tensor
    master: Tensor | None = None

    def solve(
        self, *, scale: float | None = None, unit_rows: bool = False, key: int | None = None
    ) -> Problem:
        """All steps, in place."""
        factor = (
            None
            if scale is None
            else torch.tensor(scale, dtype=self.exp_avg.dtype, device=self.exp_avg.device)
        )
        for number, (lr, grad) in enumerate(zip(RATES, self.gradients, strict=True), start=1):
            at = AdamStep(lr=lr, step=number, betas=BETAS, epsilon=EPSILON)
            adam_step(
                self.parameter, grad, self.exp_avg, self.exp_avg_sq, at,
                scale=factor, unit_rows=unit_rows, master=self.master, rounding_key=key,
            )  # fmt: skip
        return self

    def copy(self, dtype: torch.dtype = torch.float32) -> Problem:
        """An equal problem in a precision; moments are at least float32."""
        wide = torch.promote_types(dtype, torch.float32)
        return replace(
            self,
            parameter=self.parameter.to(dtype, copy=True),
            gradients=[grad.to(wide) for grad in self.gradients],
            exp_avg=self.exp_avg.to(wide, copy=True),
            exp_avg_sq=self.exp_avg_sq.to(wide, copy=True),
        )


def problem(
    *shape: int, unit_rows: bool = False, turned: bool = False, device: torch.device | None = None
) -> Problem:
    """Fresh moments; `turned` gives a matrix whose memory is that of its transpose."""
    made = [torch.randn(shape, device=device) for _ in range(1 + len(RATES))]
    if unit_rows:
        made[0] = torch.nn.functional.normalize(made[0], dim=-1)
    if turned:
        made = [tensor.T.contiguous().T for tensor in made]
    return Problem(made[0], made[1:], torch.zeros_like(made[0]), torch.zeros_like(made[0]))


def exact(given: Problem, *, scale: float = 1.0, unit_rows: bool = False) -> Tensor:
    """The parameter after all steps, from the equations, in float64."""
    w, m, v = given.parameter.double(), torch.zeros_like(given.exp_avg).double(), 0.0
    for number, (lr, grad) in enumerate(zip(RATES, given.gradients, strict=True), start=1):
        g = scale * grad.double()
        if unit_rows:
            row = w / w.norm(dim=-1, keepdim=True)
            g = g - row * (g * row).sum(-1, keepdim=True)
        m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g**2
        w = w - lr * (m / (1 - BETAS[0] ** number)) / ((v / (1 - BETAS[1] ** number)) ** 0.5 + EPSILON)
        if unit_rows:
            w = w / w.norm(dim=-1, keepdim=True)
    return w
