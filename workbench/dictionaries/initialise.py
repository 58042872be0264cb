"""Where dictionaries start: centre, directions and their length.

Active subspace: decoder rows that start within the span of the leading principal components of the centred
targets point where there is variance, so fewer latents start dead. Effective rank measures how many
directions that is.

Reference: arXiv:2508.16929 (active subspace); Gao et al. 2024, arXiv:2406.04093 (tied, geometric median).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from workbench.errors import UserError, nearest

if TYPE_CHECKING:
    from workbench.dictionaries.layouts.base import Initialisation

BIASES = ("geometric_median", "mean", "zero")
PLAIN_NORM = 0.1  # length of decoder rows that are not held at 1
NORM_GRID = torch.linspace(0.1, 5.0, 50).tolist()
SEARCH_ROWS = 1024


def geometric_median(rows: Float[Tensor, "row d"], *, n_iterations: int = 20) -> Float[Tensor, " d"]:
    """The point with the least summed distance to the rows, by Weiszfeld's iteration from the mean.

    Unlike the mean it is not drawn by a few rows of great norm.

    Status: an iterate, not the limit; more than precise enough for a starting point.
    Reference: Weiszfeld 1937; used for b_dec by Gao et al. 2024, arXiv:2406.04093.
    """
    median = rows.mean(0)
    for _ in range(n_iterations):
        weights = 1 / (rows - median).norm(dim=1).clamp_min(1e-8)
        median = (weights @ rows) / weights.sum()
    return median


def centre_of(rows: Float[Tensor, "row d"], kind: str) -> Float[Tensor, " d"]:
    """The geometric median, the mean, or zeros.

    Raises:
        UserError: the kind is not known.
    """
    if kind not in BIASES:
        raise UserError(f"bias {kind!r} is not a start of b_dec; {nearest(kind, BIASES)}")
    if kind == "zero":
        return rows.new_zeros(rows.shape[1])
    return geometric_median(rows) if kind == "geometric_median" else rows.mean(0)


def unit_rows(n_rows: int, d: int, generator: torch.Generator) -> Float[Tensor, "row d"]:
    """Directions uniform on the sphere."""
    return functional.normalize(torch.randn(n_rows, d, generator=generator), dim=1)


def principal_directions(centred: Float[Tensor, "row d"], n: int) -> Float[Tensor, "n d"]:
    """The n leading right singular vectors of centred rows.

    Raises:
        UserError: n is not between 1 and d.
    """
    if not 1 <= n <= centred.shape[1]:
        raise UserError(
            f"subspace {n} is not between 1 and the width {centred.shape[1]}: choose fewer directions"
        )
    covariance = centred.double().T @ centred.double()
    return torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :n].T.to(centred)


def start_weights(
    x: Float[Tensor, "row d_in"],
    y: Float[Tensor, "row d_out"],
    d_sae: int,
    start: Initialisation,
    generator: torch.Generator,
    *,
    unit_decoder: bool,
) -> tuple[Float[Tensor, "d_in d_sae"], Float[Tensor, "d_sae d_out"]]:
    """Encoder and decoder of a fresh dictionary, from centred normalised sample rows.

    Directions are uniform on the sphere, or on that of the active subspace. The encoder is the transpose of
    the unit decoder where start.tied and the widths agree, else it has directions of its own. With
    `decoder_norm` other than 1 the encoder keeps unit columns; where decoder rows are held at 1 it is the encoder's.
    """
    directions = _directions(y, d_sae, start.subspace, generator)
    tied = start.tied and x.shape[1] == y.shape[1]
    rows = directions.clone() if tied else _directions(x, d_sae, start.subspace, generator)
    length = start.decoder_norm if start.decoder_norm is not None else (1.0 if unit_decoder else PLAIN_NORM)
    if length == "search":
        length = _best_norm(x[:SEARCH_ROWS], y[:SEARCH_ROWS], rows, directions)
    if unit_decoder:
        return rows.T * float(length), directions
    return rows.T, directions * float(length)  # encoder rows stay side by side in memory


def _directions(
    centred: Float[Tensor, "row d"], n: int, subspace: int | None, generator: torch.Generator
) -> Float[Tensor, "n d"]:
    if subspace is None:
        return unit_rows(n, centred.shape[1], generator)
    return unit_rows(n, subspace, generator) @ principal_directions(centred, subspace)


def _best_norm(x: Tensor, y: Tensor, rows: Tensor, directions: Tensor) -> float:
    """The factor on a dense ReLU code that leaves the least squared error, from a grid."""
    decoded = (x @ rows.T).relu() @ directions
    errors = [float((y - norm / len(rows) * decoded).square().sum()) for norm in NORM_GRID]
    return NORM_GRID[min(range(len(errors)), key=errors.__getitem__)] / len(rows)
