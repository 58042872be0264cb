"""Rules for averaging a gradient along the straight line from one value of a node to another.

    integral of f over [0, 1]  =  sum_i weight_i f(point_i)  +  error

Point 0 is the counterfactual value and point 1 the clean one, so with x(t) = counterfactual + t (clean -
counterfactual) the integrated gradient is (clean - counterfactual) . sum_i weight_i grad m(x(point_i)), in the
sign of the package. Were the rule exact, the integrated gradients of one set of inputs would sum to
m(clean) - m(counterfactual); what is missing is the completeness gap, which every method reports.

    midpoint         (i + 1/2) / n            error O(n^-2); exact for straight lines; never at an end
    left             i / n                    error O(n^-1); starts at the counterfactual
    right            (i + 1) / n              error O(n^-1); ends at the clean value
    gauss-legendre   roots of P_n             exact for polynomials of degree 2n - 1; never at an end

Published code differs: EAP-IG runs `left`, its paper writes `right`, sparse feature circuits run `left` from
the clean end, which is `right` here. Source: Sundararajan, Taly, Yan 2017, arXiv:1703.01365 (integrated gradients).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.errors import UserError, nearest

DEFAULT = "midpoint"
QUADRATURES = ("midpoint", "left", "right", "gauss-legendre")


@dataclass(frozen=True)
class Quadrature:
    """Points and weights on [0, 1]; the weights sum to 1.

    Attributes:
        name: One of `QUADRATURES`.
        points: Shares of the way from counterfactual (0) to clean (1), ascending.
        weights: One a point.
    """

    name: str
    points: tuple[float, ...]
    weights: tuple[float, ...]

    def __str__(self) -> str:
        """Name and number of points, as results print it."""
        return f"{self.name}, {len(self.points)} points"


def quadrature(name: str = DEFAULT, n_points: int = 5) -> Quadrature:
    """The rule called `name` with `n_points` points on [0, 1].

    Raises:
        UserError: an unknown name, or fewer than one point.
    """
    if name not in QUADRATURES:
        raise UserError(f"quadrature {name!r} is not known; {nearest(name, QUADRATURES)}")
    if n_points < 1:
        raise UserError(f"n_points {n_points} is no quadrature: give at least 1, and 5 for most uses")
    if name == "gauss-legendre":
        roots, weights = np.polynomial.legendre.leggauss(n_points)
        return Quadrature(name, tuple(((roots + 1) / 2).tolist()), tuple((weights / 2).tolist()))
    offset = {"midpoint": 0.5, "left": 0.0, "right": 1.0}[name]
    points = tuple((i + offset) / n_points for i in range(n_points))
    return Quadrature(name, points, (1 / n_points,) * n_points)
