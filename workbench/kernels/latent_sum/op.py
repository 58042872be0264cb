"""Public latent sum: refuses bad shapes, then takes the backend of the device.

It is itself the backward of the other two operations, so it has no backward of its own.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels.latent_sum import cpu, reference


@torch.no_grad()
def latent_sum(
    indices: Int[Tensor, "row k"], values: Float[Tensor, "row k"], rows: Float[Tensor, "row d"], d_sae: int
) -> Float[Tensor, "d_sae d"]:
    """Z^T rows for sparse latents Z: per latent the sum of the rows that it fired on, weighted by its value.

    out[j] = sum over (r, s) with indices[r, s] = j of values[r, s] * rows[r]
    (tests/kernels/test_latent_sum.py, against float64).

    Args:
        indices: Latents of each row, in 0 .. d_sae - 1.
        values: Their values; a zero contributes nothing.
        rows: What is summed: the batch for encoder gradients, the output gradient for decoder gradients.
        d_sae: Number of latents, so of output rows.

    Status: exact; bit-reproducible on a CPU.
    """
    if rows.device.type == "cpu" and indices.numel():
        return cpu.latent_sum(indices, values.contiguous(), rows.contiguous(), d_sae)
    return reference.latent_sum(indices, values, rows, d_sae)
