"""One-to-one matching of rows and columns with the greatest total score (the assignment problem).

Rows are added one at a time; each time the cheapest chain of re-matchings that frees a column is found as a
shortest path in reduced costs. The row and column prices that come with it prove the result: no pair can gain
more than the sum of its prices, and each matched pair gains exactly that (`tests/evaluation/test_assignment.py`
checks both).

Time grows with rows^2 x columns at worst; near-certain matches need one step a row. Two thousand rows by four
thousand columns take a second or two.

Reference: Kuhn 1955 (the Hungarian method); Jonker and Volgenant 1987; in the rectangular form of Crouse 2016,
"On implementing 2D rectangular assignment algorithms".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from workbench.errors import UserError
from workbench.kernels.compiled import compiled


@dataclass(frozen=True)
class Assignment:
    """The best matching, and the prices that prove it.

    Attributes:
        column: Column of each row; -1 for rows without one, where there are more rows than columns (row).
        row_price: See the module; of scores, not costs (row).
        column_price: Not negative where columns are left over (column).
    """

    column: Int64[np.ndarray, " row"]
    row_price: Float64[np.ndarray, " row"]
    column_price: Float64[np.ndarray, " column"]


def assign(scores: Float[Tensor, "row column"]) -> Assignment:
    """Match rows with columns one to one so that the sum of the scores is greatest. Status: exact.

    Args:
        scores: Finite; every row (or every column, if they are fewer) is matched, whatever its scores.

    Raises:
        UserError: a score is not finite.
    """
    exact = scores.detach().cpu().double().numpy()
    if not np.isfinite(exact).all():
        raise UserError("scores hold a number that is not finite: leave out directions of length 0")
    if exact.shape[0] > exact.shape[1]:
        other = assign(torch.from_numpy(exact.T.copy()))
        column = np.full(exact.shape[0], -1, np.int64)
        column[other.column] = np.arange(exact.shape[1])
        return Assignment(column, other.column_price, other.row_price)
    column, u, v = _matching(np.ascontiguousarray(-exact))
    return Assignment(column, -u, -v)


@compiled
def _matching(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least total cost for no more rows than columns: column of each row, and the prices of rows and columns."""
    n_rows, n_columns = cost.shape
    u, v = np.zeros(n_rows), np.zeros(n_columns)
    column_of, row_of = np.full(n_rows, -1, np.int64), np.full(n_columns, -1, np.int64)
    for first in range(n_rows):
        distance, before = np.full(n_columns, np.inf), np.full(n_columns, -1, np.int64)
        row_done, column_done = np.zeros(n_rows, np.bool_), np.zeros(n_columns, np.bool_)
        row, reached, end = first, 0.0, -1
        while end < 0:
            row_done[row] = True
            nearest, least = -1, np.inf
            for j in range(n_columns):
                if column_done[j]:
                    continue
                along = reached + cost[row, j] - u[row] - v[j]
                if along < distance[j]:
                    distance[j], before[j] = along, row
                if distance[j] < least or (distance[j] == least and row_of[j] < 0 and row_of[nearest] >= 0):
                    least, nearest = distance[j], j
            reached, column_done[nearest] = least, True
            if row_of[nearest] < 0:
                end = nearest
            else:
                row = row_of[nearest]
        u[first] += reached
        for i in range(n_rows):
            if row_done[i] and i != first:
                u[i] += reached - distance[column_of[i]]
        for j in range(n_columns):
            if column_done[j]:
                v[j] -= reached - distance[j]
        while end >= 0:  # turn the chain's matches round
            row = before[end]
            row_of[end] = row
            column_of[row], end = end, column_of[row]
            if row == first:
                end = -1
    return column_of, u, v
