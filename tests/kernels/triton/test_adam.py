"""The Triton Adam step: float32 against the equations, bfloat16 with masters and with stochastic rounding."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.adam.problems import exact, problem
from workbench.kernels.backend import using


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (33, 130), (3, 4, 6), (2500,)], ids=str)
@pytest.mark.parametrize("unit_rows", [False, True])
def test_steps_equal_the_equations(shape, unit_rows, device, assert_within_rounding):
    unit_rows = unit_rows and len(shape) > 1 and shape[-1] > 1
    given = problem(*shape, unit_rows=unit_rows, device=device)
    expected = exact(given, scale=0.3, unit_rows=unit_rows)
    with using("reference"):
        plain = given.copy().solve(scale=0.3, unit_rows=unit_rows)
    ours = given.copy().solve(scale=0.3, unit_rows=unit_rows)
    assert_within_rounding(ours.parameter.cpu(), plain.parameter.cpu(), expected.cpu())
    again = given.copy().solve(scale=0.3, unit_rows=unit_rows)
    assert torch.equal(ours.parameter, again.parameter)


def test_a_turned_matrix_takes_the_same_steps(device):
    turned = problem(30, 20, turned=True, device=device)
    straight = problem(30, 20, device=device)
    straight.parameter.copy_(turned.parameter)
    straight.gradients = turned.gradients
    assert torch.equal(turned.copy().solve().parameter, straight.copy().solve().parameter)


def test_a_master_takes_the_steps_and_the_parameter_is_its_rounding(device):
    given = problem(50, 16, unit_rows=True, device=device)
    half = given.copy(torch.bfloat16)
    half.master = given.parameter.clone()
    half.solve(unit_rows=True)
    full = given.copy().solve(unit_rows=True)
    assert torch.equal(half.master, full.parameter)
    assert torch.equal(half.parameter, full.parameter.bfloat16())


def test_stochastic_rounding_is_that_of_the_definition(device):
    given = problem(30, 70, device=device).copy(torch.bfloat16)
    with using("reference"):
        plain = given.copy(torch.bfloat16).solve(key=2**32 - 1)
    ours = given.copy(torch.bfloat16).solve(key=2**32 - 1)
    assert float((ours.parameter != plain.parameter).float().mean()) < 0.01
    nearest = given.copy().solve().parameter.bfloat16()
    assert float((plain.parameter != nearest).float().mean()) > 0.2, "it rounds to the nearest"
