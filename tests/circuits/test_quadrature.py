"""Quadratures integrate what their error order promises, and no more."""

from __future__ import annotations

import math

import pytest

from workbench.circuits.quadrature import QUADRATURES, quadrature
from workbench.errors import UserError


def integral(name: str, n_points: int, power: int) -> float:
    """The rule's value of the integral of t^power over [0, 1]."""
    rule = quadrature(name, n_points)
    return sum(w * t**power for t, w in zip(rule.points, rule.weights, strict=True))


@pytest.mark.parametrize("name", QUADRATURES)
def test_weights_sum_to_one_and_points_ascend_in_the_interval(name: str) -> None:
    rule = quadrature(name, 7)
    assert math.isclose(sum(rule.weights), 1)
    assert list(rule.points) == sorted(rule.points)
    assert min(rule.points) >= 0
    assert max(rule.points) <= 1


def test_gauss_legendre_is_exact_to_degree_5_with_3_points_and_not_beyond() -> None:
    for power in range(6):
        assert math.isclose(integral("gauss-legendre", 3, power), 1 / (power + 1))
    assert abs(integral("gauss-legendre", 3, 6) - 1 / 7) > 1e-4


def test_midpoint_is_exact_on_lines_and_quarters_its_error_with_twice_the_points() -> None:
    assert math.isclose(integral("midpoint", 4, 1), 0.5)
    errors = [abs(integral("midpoint", n, 2) - 1 / 3) for n in (4, 8)]
    assert math.isclose(errors[0] / errors[1], 4, rel_tol=1e-6)


def test_left_and_right_touch_their_own_end_only() -> None:
    assert quadrature("left", 4).points == (0.0, 0.25, 0.5, 0.75)
    assert quadrature("right", 4).points == (0.25, 0.5, 0.75, 1.0)
    assert math.isclose(integral("left", 4, 1) + integral("right", 4, 1), 1)


def test_it_prints_its_name_and_size() -> None:
    assert str(quadrature("left", 4)) == "left, 4 points"


def test_unknown_names_and_no_points_are_refused() -> None:
    with pytest.raises(UserError, match="quadrature 'gauss' is not known; the nearest: gauss-legendre"):
        quadrature("gauss")
    with pytest.raises(UserError, match="n_points 0 is no quadrature: give at least 1"):
        quadrature("left", 0)
