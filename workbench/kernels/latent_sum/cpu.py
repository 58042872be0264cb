"""Latent-major sums on a CPU: one counting sort, then each latent is summed by one thread in batch order.

Deterministic whatever the number of threads, no atomics, no (row * width, d) intermediate.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.kernels import dense
from workbench.kernels.compiled import array
from workbench.kernels.latent_sum import loops
from workbench.kernels.latent_sum.order import LatentMajor, check_indices, latent_major
from workbench.kernels.threads import run

N_PARTS = 32


def counting_sort(
    flat: Int[Tensor, " entry"], d_sae: int
) -> tuple[Int[Tensor, " offset"], Int[Tensor, " entry"]]:
    """Offsets and members of a `LatentMajor`. Status: exact."""
    offsets = torch.zeros(d_sae + 1, dtype=torch.int64)
    members = torch.empty(len(flat), dtype=torch.int32)
    loops.counting_sort(array(flat), offsets.numpy(), members.numpy())
    return offsets, members


def parts(order: LatentMajor) -> list[tuple[int, int]]:
    """Ranges of latents with about the same work: entries to add and rows to write."""
    n_parts = max(N_PARTS, 4 * torch.get_num_threads())
    work = order.offsets.numpy() + 2 * np.arange(order.d_sae + 1)
    edges = np.searchsorted(work, np.linspace(0, work[-1], n_parts + 1)[1:-1])
    bounds = [0, *edges.tolist(), order.d_sae]
    return [(a, b) for a, b in pairwise(bounds) if a < b]


def latent_sum(
    indices: Int[Tensor, "row width"],
    values: Float[Tensor, "row width"],
    rows: Float[Tensor, "row d"],
    d_sae: int,
) -> Float[Tensor, "d_sae d"]:
    """As `reference.latent_sum`; bit-reproducible. Status: exact."""
    if dense.is_dense(values, d_sae, dense.SUM_FRAC):
        check_indices(indices, d_sae)
        return dense.latent_sum(indices, values, rows, d_sae)
    order = latent_major(indices, d_sae)
    out = rows.new_empty(d_sae, rows.shape[1])
    given = (array(order.offsets), array(order.members), max(1, order.width))
    given = (*given, array(values).reshape(-1), array(rows), out.numpy())
    run(loops.latent_sum, [(*given, *part) for part in parts(order)])
    return out


def latent_total(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Float[Tensor, " d_sae"]:
    """As `reference.latent_total`; bit-reproducible. Status: exact."""
    order, out = latent_major(indices, d_sae), values.new_empty(d_sae)
    loops.latent_total(array(order.offsets), array(order.members), array(values).reshape(-1), out.numpy())
    return out


def latent_counts(
    indices: Int[Tensor, "row width"], values: Float[Tensor, "row width"], d_sae: int
) -> Int[Tensor, " d_sae"]:
    """As `reference.latent_counts`. Status: exact."""
    order, out = latent_major(indices, d_sae), torch.empty(d_sae, dtype=torch.int64)
    loops.latent_counts(array(order.offsets), array(order.members), array(values).reshape(-1), out.numpy())
    return out
