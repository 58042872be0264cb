"""The Adam step on a CPU: one pass over memory, rows shared out to threads in parts of fixed size.

A step reads weight, gradient and both moments and writes all but the gradient: 28 bytes an entry, which
is the bound. The arithmetic hides behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.kernels.adam import loops
from workbench.kernels.adam.equation import AdamStep
from workbench.kernels.adam.reference import store
from workbench.kernels.compiled import array
from workbench.kernels.threads import ranges, run

ENTRIES_A_PART = 1 << 17


def adam_step(
    parameter: Float[Tensor, "row d"],
    grad: Float[Tensor, "row d"],
    exp_avg: Float[Tensor, "row d"],
    exp_avg_sq: Float[Tensor, "row d"],
    at: AdamStep,
    *,
    scale: Float[Tensor, ""] | None,
    unit_rows: bool,
    master: Float[Tensor, "row d"] | None,
    rounding_key: int | None,
) -> None:
    """As `reference.adam_step`; bit-reproducible. Status: exact."""
    w = parameter.float() if master is None else master
    numbers = np.array(
        [1.0 if scale is None else float(scale), at.alpha, at.root, at.epsilon]
        + [number for beta in at.betas for number in (beta, 1 - beta)],
        dtype=np.float32,
    )
    given = (array(w), array(grad.float()), array(exp_avg), array(exp_avg_sq), numbers, unit_rows)
    size = max(1, ENTRIES_A_PART // max(1, w.shape[1]))
    run(loops.step_rows, [(*given, *part) for part in ranges(len(w), size)])
    if parameter.dtype == torch.bfloat16 and rounding_key is not None:
        _round(w, parameter, rounding_key)
    elif parameter is not w:
        store(w, parameter, None)


def _round(w: Float[Tensor, "row d"], parameter: Float[Tensor, "row d"], key: int) -> None:
    """Stochastic rounding of w into a bfloat16 parameter."""
    bits, out = (
        array(w).reshape(-1).view(np.uint32),
        parameter.detach().view(torch.uint16).numpy().reshape(-1),
    )
    parts = ranges(len(bits), ENTRIES_A_PART)
    run(loops.round_stochastically, [(bits, out, key, *part) for part in parts])


def gradient_norm(gradients: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, ""]:
    """As `reference.gradient_norm`, summed in float64; the same bits for any number of threads. Status: exact."""
    sums = [_square_sums(grad) for grad in gradients]
    return torch.cat(sums).sum().sqrt().to(gradients[0].dtype)


def _square_sums(grad: Float[Tensor, "row d"]) -> Float[Tensor, " part"]:
    flat = array(grad).reshape(-1)
    out = torch.zeros(-(-len(flat) // ENTRIES_A_PART), dtype=torch.float64)
    parts = [(flat, out.numpy(), ENTRIES_A_PART, p, p + 1) for p in range(len(out))]
    run(loops.square_sums, parts)
    return out
