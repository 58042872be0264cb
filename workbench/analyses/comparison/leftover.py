"""What TopK dictionaries of growing size leave over: its linear part, and whether the same tokens stay hard.

    splits    linear and nonlinear part of the error of each size, fitted on the first half of the held-out rows and
              measured on the second (`evaluation/dark_matter.py`)
    norms     how well the error norms of the smallest size say those of each larger one, token by token, beside
              tokens dealt anew and the length of the activation alone (`evaluation/dark_predict.py`)
    pairs     |e| of the same tokens under the smallest and the largest size, for the picture

Source: Engels, Smith and Tegmark 2024, arXiv:2410.14670.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.evaluation.dark_matter import ErrorSplit, reconstructed, split_error
from workbench.evaluation.dark_predict import NormScaling, norm_scaling

BATCH_ROWS = 2048


@dataclass(frozen=True)
class Leftover:
    """The errors of dictionaries of several sizes on the same held-out rows; see the module.

    Attributes:
        splits: By number of latents.
        norms: By number of latents, the smallest size left out.
        pairs: Columns small and large, a row per token.
    """

    splits: Mapping[int, ErrorSplit]
    norms: Mapping[int, NormScaling]
    pairs: pd.DataFrame


@torch.no_grad()
def measure_leftover(
    made: Mapping[int, Dictionary], rows: Float[Tensor, "row d"], *, seed: int = 0
) -> Leftover:
    """The errors of dictionaries by their number of latents.

    Args:
        made: At least two.
        rows: Held-out rows in the order of their texts, so that the halves are of different texts.
        seed: Of the controls.

    Raises:
        UserError: fewer rows than a linear map of them needs.

    Status: correlational; the linear part is exact for these rows.
    """
    middle, sizes = len(rows) // 2, sorted(made)
    halves = [rows[:middle], rows[middle:]]
    splits = {n: split_error(*(_pairs(made[n], half) for half in halves), seed=seed) for n in sizes}
    hat = {n: made[n].reconstruct(rows) for n in sizes}
    norms = {n: norm_scaling(rows, hat[sizes[0]], hat[n], seed=seed) for n in sizes[1:]}
    lengths = {name: (rows - hat[n]).norm(dim=1) for name, n in (("small", sizes[0]), ("large", sizes[-1]))}
    pairs = pd.DataFrame({name: length[middle:].numpy() for name, length in lengths.items()})
    return Leftover(splits, norms, pairs)


def leftover_tables(found: Leftover) -> dict[str, pd.DataFrame]:
    """Three tables that hold all of it but the fitted maps."""
    splits = [{"n": n, **split.as_dict()} for n, split in found.splits.items()]
    norms = [{"n": n, **one.as_dict()} for n, one in found.norms.items()]
    return {"splits": pd.DataFrame(splits), "norm_scaling": pd.DataFrame(norms), "pairs": found.pairs}


def read_leftover(tables: Mapping[str, pd.DataFrame]) -> Leftover:
    """What `leftover_tables` wrote, without the maps."""
    none = torch.zeros(0, 0, dtype=torch.float64)
    splits = {
        n: ErrorSplit(**{name: value for name, value in row.items() if name != "fvu_linear"}, B=none)
        for n, row in _by_n(tables["splits"])
    }
    return Leftover(
        splits, {n: NormScaling(**row) for n, row in _by_n(tables["norm_scaling"])}, tables["pairs"]
    )


def _pairs(dictionary: Dictionary, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return reconstructed(dictionary, rows.split(BATCH_ROWS))


def _by_n(table: pd.DataFrame) -> Iterator[tuple[int, dict[str, Any]]]:
    rows: Any = table.to_dict("records")
    for row in rows:
        yield int(row.pop("n")), row
