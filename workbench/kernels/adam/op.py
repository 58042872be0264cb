"""Public Adam step: any dense memory order, float32 or bfloat16 parameters, unit rows where they are asked for.

It is called after the backward, updates in place and has no backward of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.kernels.adam.equation import AdamStep
from workbench.kernels.backend import backend


@torch.no_grad()
def adam_step(
    parameter: Float[Tensor, ...],
    grad: Float[Tensor, ...],
    exp_avg: Float[Tensor, ...],
    exp_avg_sq: Float[Tensor, ...],
    at: AdamStep,
    *,
    scale: Float[Tensor, ""] | None = None,
    unit_rows: bool = False,
    master: Float[Tensor, ...] | None = None,
    rounding_key: int | None = None,
) -> None:
    """One Adam step of one parameter, in place, in one pass over memory.

        g <- scale * grad;  with unit rows  g <- g - w (g . w) / (w . w)  per row
        m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
        w <- w - alpha m / (root sqrt(v) + epsilon);  with unit rows  w <- w / |w|  per row

    Equal to float64 within rounding (tests/kernels/adam). A row whose gradient is 0 still moves by its
    momentum, as in Adam; a row of zeros stays one.

    Args:
        parameter: Weights w, dense in any order of dimensions.
        grad: Their gradient; copied where its memory order is another.
        exp_avg: m, float32 (float64 for float64 weights), in the memory order of the parameter.
        exp_avg_sq: v, likewise.
        at: Learning rate, step number, betas, epsilon.
        scale: Factor of the gradient, on its device (from `clip_scale`); None for 1.
        unit_rows: Whether the rows along the last dimension have unit length; the parameter is contiguous then.
        master: Float32 weights that are updated in place of the parameter, which becomes their rounding.
        rounding_key: For bfloat16 weights without a master: round up or down by chance, in expectation
            exactly, by a counter-based generator of this key in 0 .. 2^32 - 1 (another one for each step).

    Raises:
        ValueError: the tensors do not belong together.

    Status: exact; bit-reproducible whatever the number of threads. Source: Kingma & Ba 2014, arXiv:1412.6980;
    projection, Gao et al. 2024, arXiv:2406.04093.
    """
    _check(parameter, exp_avg, unit_rows, master, rounding_key)
    order = _order(parameter)
    backend("adam", exp_avg).adam_step(
        _rows(parameter, order),
        _rows(grad.permute(order).contiguous()),
        _rows(exp_avg, order),
        _rows(exp_avg_sq, order),
        at,
        scale=scale,
        unit_rows=unit_rows,
        master=None if master is None else _rows(master, order),
        rounding_key=rounding_key,
    )


@torch.no_grad()
def gradient_norm(gradients: Sequence[Float[Tensor, ...]]) -> Float[Tensor, ""]:
    """Euclidean length of all gradients as one vector; stays on the device, nothing waits for it. Status: exact.

    Raises:
        ValueError: there is no gradient.
    """
    if not gradients:
        raise ValueError("gradients is empty: give at least one")
    rows = [_rows(grad.permute(_order(grad)).contiguous()) for grad in gradients]
    return backend("adam", rows[0]).gradient_norm(rows)


def clip_scale(norm: Float[Tensor, ""], limit: float) -> Float[Tensor, ""]:
    """Factor that brings gradients of length `norm` to at most `limit`; on the device of the norm."""
    return (limit / norm.clamp_min(1e-30)).clamp_max(1.0)


def _order(tensor: Tensor) -> list[int]:
    """Dimensions from the one with the widest stride in memory to that with the narrowest."""
    return sorted(range(tensor.dim()), key=lambda dim: -tensor.stride(dim))


def _rows(tensor: Tensor, order: list[int] | None = None) -> Float[Tensor, "row d"]:
    """The tensor as rows, its dimensions taken in this order, without a copy."""
    ordered = tensor.detach().permute(order) if order else tensor.detach()
    if not ordered.is_contiguous():
        raise ValueError("a moment or master has another memory order than its parameter: use empty_like")
    return ordered.view(-1, ordered.shape[-1]) if ordered.dim() else ordered.view(1, 1)


def _check(
    parameter: Tensor, exp_avg: Tensor, unit_rows: bool, master: Tensor | None, rounding_key: int | None
) -> None:
    if unit_rows and (parameter.dim() < 2 or not parameter.is_contiguous()):
        raise ValueError("unit rows need a contiguous parameter of at least two dimensions")
    if exp_avg.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"moments of dtype {exp_avg.dtype} are not kept: use float32")
    if (rounding_key is not None) != (parameter.dtype != exp_avg.dtype and master is None):
        raise ValueError(
            "a rounding key is for weights of lower precision without a master, and needed there"
        )
