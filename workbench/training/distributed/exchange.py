"""Sums and selections over processes: what they say to each other in a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


class SumForward(torch.autograd.Function):
    """y = sum over processes of x, dL/dx = dL/dy: partial reconstructions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad


class SumBackward(torch.autograd.Function):
    """y = x, dL/dx = sum over processes of dL/dy: what every process's encoder reads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


def gathered(values: Float[Tensor, "row width"]) -> list[Tensor]:
    """Values of all processes, padded with zeros at the end of the rows to the largest width."""
    width = torch.tensor(values.shape[1], device=values.device)
    dist.all_reduce(width, op=dist.ReduceOp.MAX)
    padded = torch.nn.functional.pad(values, (0, int(width) - values.shape[1])).contiguous()
    found = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(found, padded)
    return found


@torch.no_grad()
def kept_of_rows(values: Float[Tensor, "row width"], k: int) -> Tensor:
    """Which of this process's entries are among the k largest of their row over all processes."""
    rank, together = dist.get_rank(), gathered(values)
    return _among_largest(torch.cat(together, dim=1), k)[:, _columns(together, rank, values)]


@torch.no_grad()
def kept_of_batch(values: Float[Tensor, "row width"], n_keep: int, mode: str) -> Tensor:
    """Which of this process's entries are among the n_keep largest of the batch over all processes."""
    rank, together = dist.get_rank(), gathered(values)
    whole = torch.cat(together, dim=1 if mode == "latents" else 0)
    kept = _among_largest(whole.reshape(1, -1), n_keep).view(whole.shape)
    if mode == "latents":
        return kept[:, _columns(together, rank, values)]
    return kept[rank * len(values) : (rank + 1) * len(values), : values.shape[1]]


def _columns(together: Sequence[Tensor], rank: int, values: Tensor) -> slice:
    first = rank * together[0].shape[1]
    return slice(first, first + values.shape[1])


def _among_largest(values: Float[Tensor, "row entry"], n: int) -> Tensor:
    """Marks the n largest entries of each row; of equal ones the earlier."""
    order = values.sort(dim=1, descending=True, stable=True).indices[:, :n]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, True)
