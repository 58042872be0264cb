"""Schedule and optimiser."""

from __future__ import annotations

import pytest
import torch

from workbench.training.optimiser import BETAS, EPSILON, Adam
from workbench.training.schedule import Schedule, default_lr


def test_schedule_rises_stays_and_falls():
    schedule = Schedule(peak=2.0, n_steps=100, warmup_frac=0.1, decay_frac=0.2)
    values = [schedule.at(step) for step in range(100)]
    assert values[0] == pytest.approx(0.2)
    assert values[9] == values[50] == values[80] == 2.0
    assert values[99] == pytest.approx(0.1)
    assert min(values) > 0
    assert Schedule(1.0, 3, 0.0, 0.0).at(2) == 1.0


def test_default_rate_falls_with_the_square_root_of_the_latents():
    assert default_lr(2**14, 2e-4) == 2e-4
    assert default_lr(2**12, 2e-4) == pytest.approx(4e-4)


def test_fused_adam_equals_the_equations_in_both_memory_layouts():
    parameters = {"rows": torch.randn(7, 5), "columns": torch.randn(5, 7).T}
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    adam = Adam(leaves)
    moments = {name: (torch.zeros(7, 5).double(), torch.zeros(7, 5).double()) for name in leaves}
    exact = {name: value.double() for name, value in parameters.items()}
    for step, lr in enumerate([0.1, 0.03, 0.01], start=1):
        for name, leaf in leaves.items():
            grad = torch.randn(5, 7).T if name == "columns" else torch.randn(7, 5)
            leaf.grad = grad
            m, v = moments[name]
            m.mul_(BETAS[0]).add_(grad.double(), alpha=1 - BETAS[0])
            v.mul_(BETAS[1]).add_(grad.double().square(), alpha=1 - BETAS[1])
            corrected = (v / (1 - BETAS[1] ** step)).sqrt() + EPSILON
            exact[name] -= lr * m / (1 - BETAS[0] ** step) / corrected
        adam.step(lr)
    for name, leaf in leaves.items():
        assert torch.allclose(leaf.detach().double(), exact[name], rtol=1e-5, atol=1e-6), name
        assert leaf.grad is None
