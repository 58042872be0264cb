"""Small elementwise work around the kernels, by rows in the pool of threads.

One torch operation on more than 32,768 numbers wakes OpenMP's threads, and they go on spinning for milliseconds
on the cores that the next compiled loop needs: a product with 2 of a million numbers, 0.1 ms of work, took 5 to
8 ms of processor time on two threads. On a CPU these functions run torch single-threaded in the pool instead.
Elsewhere they are the plain expression.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels.threads import ranges, run

ROWS_A_PART, SUM_PARTS = 512, 16


def by_rows(function: Callable[..., Tensor], out: Tensor, *rows: Tensor) -> Tensor:
    """Write function(part of each of `rows`) into the same rows of `out`, part by part; returns `out`."""
    if out.device.type != "cpu":
        return out.copy_(function(*rows))

    run(partial(_write_part, function, out, rows), ranges(len(out), ROWS_A_PART))
    return out


def _write_part(
    function: Callable[..., Tensor], out: Tensor, rows: tuple[Tensor, ...], start: int, stop: int
) -> None:
    out[start:stop] = function(*(t[start:stop] for t in rows))


@torch.no_grad()
def centre(x: Float[Tensor, "row d"], b_pre: Float[Tensor, " d"]) -> Float[Tensor, "row d"]:
    """x - b_pre. Status: exact."""
    return by_rows(lambda part: part - b_pre, torch.empty_like(x, memory_format=torch.contiguous_format), x)


@torch.no_grad()
def relu(values: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
    """max(values, 0), in place. Status: exact."""
    return by_rows(torch.relu, values, values)


@torch.no_grad()
def where_nonzero(
    grad: Float[Tensor, "row width"], values: Float[Tensor, "row width"]
) -> Float[Tensor, "row width"]:
    """grad where the value is not 0, else 0. Status: exact."""
    out = torch.empty_like(grad, memory_format=torch.contiguous_format)
    return by_rows(lambda g, v: torch.where(v != 0, g, 0), out, grad, values)


@torch.no_grad()
def add_scaled(
    rows: Float[Tensor, "row d"],
    factor: Float[Tensor, ""],
    other: Float[Tensor, "row d"] | None,
    out: Float[Tensor, "row d"],
) -> None:
    """Write other + rows * factor, or rows * factor, into `out`. Status: exact."""
    if other is None:
        by_rows(lambda part: part * factor, out, rows)
    else:
        by_rows(lambda part, added: added + part * factor, out, rows, other)


@torch.no_grad()
def gather(
    parameter: Float[Tensor, " d_sae"], indices: Int[Tensor, "row width"]
) -> Float[Tensor, "row width"]:
    """parameter[indices]. Status: exact."""
    return by_rows(lambda part: parameter[part], parameter.new_empty(indices.shape), indices)


@torch.no_grad()
def weighted_sum(weights: Float[Tensor, " row"], rows: Float[Tensor, "row d"]) -> Float[Tensor, " d"]:
    """weights @ rows, in 16 parts whatever the number of threads: bit-reproducible on a CPU. Status: exact."""
    if rows.device.type != "cpu":
        return weights @ rows
    size = max(1, -(-len(rows) // SUM_PARTS))
    sums = rows.new_zeros(SUM_PARTS, rows.shape[1])
    run(partial(_weigh_part, weights, rows, size, sums), [(part,) for part in range(SUM_PARTS)])
    return sums.sum(0)


def _weigh_part(weights: Tensor, rows: Tensor, size: int, sums: Tensor, part: int) -> None:
    inside = slice(part * size, (part + 1) * size)
    sums[part] = weights[inside] @ rows[inside]


@torch.no_grad()
def column_sum(rows: Float[Tensor, "row d"]) -> Float[Tensor, " d"]:
    """rows.sum(0), in 16 parts whatever the number of threads: bit-reproducible on a CPU. Status: exact."""
    if rows.device.type != "cpu":
        return rows.sum(0)
    size = max(1, -(-len(rows) // SUM_PARTS))
    sums = rows.new_zeros(SUM_PARTS, rows.shape[1])
    run(partial(_sum_part, rows, size, sums), [(part,) for part in range(SUM_PARTS)])
    return sums.sum(0)


def _sum_part(rows: Tensor, size: int, sums: Tensor, part: int) -> None:
    sums[part] = rows[part * size : (part + 1) * size].sum(0)
