"""Planted rows as a run folder with activations, so that training and all that follows work on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workbench.capture import import_array
from workbench.errors import UserError
from workbench.store import ActivationStore
from workbench.testbeds.planted.features import PlantedFeatures

BLOCK_ROWS = 8192


def plant(
    run: Path, features: PlantedFeatures, *, n_rows: int, name: str = "planted", shuffled: bool = False
) -> ActivationStore:
    """Write the first `n_rows` planted rows into `run/activations/<name>`.

    Args:
        run: Run folder; made if missing.
        features: What the rows are made of.
        n_rows: Rows; block i of `BLOCK_ROWS` is `features.block(i, BLOCK_ROWS)`.
        name: What the run calls them.
        shuffled: The control; see `PlantedFeatures.block`.

    Raises:
        UserError: there are no rows, or the run has other rows of that name.
    """
    if n_rows < 1:
        raise UserError(f"n_rows {n_rows} is not at least 1: plant some rows")
    run.mkdir(parents=True, exist_ok=True)
    path = run / f".{name}.npy"
    try:
        _write(path, features, n_rows, shuffled)
        return import_array(run, path, name=name)
    finally:
        path.unlink(missing_ok=True)


def _write(path: Path, features: PlantedFeatures, n_rows: int, shuffled: bool) -> None:
    shape = (n_rows, features.directions.shape[1])
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for index, start in enumerate(range(0, n_rows, BLOCK_ROWS)):
        part = rows[start : start + BLOCK_ROWS]
        part[:] = features.block(index, BLOCK_ROWS, shuffled=shuffled).x[: len(part)].numpy()
    rows.flush()
