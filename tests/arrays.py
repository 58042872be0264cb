"""Runs made from an array of known directions with labels, for tests of what reads such stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.capture import import_array
from workbench.store import ActivationStore

CONCEPTS = ("cat", "dog", "fern", "moss", "quartz", "rust", "tuba", "viola")
ARRAY = "pixels"


@dataclass(frozen=True)
class PlantedArray:
    """A run folder with an imported array.

    Attributes:
        run: The run folder.
        store: Its store.
        rows: The array (row, d).
        label: Name of each row's label.
    """

    run: Path
    store: ActivationStore
    rows: np.ndarray
    label: list[str]


def plant_array(
    folder: Path, *, n_rows: int = 3000, d: int = 64, shuffled: bool = False, labels: bool = True
) -> PlantedArray:
    """Each row is one of eight orthogonal directions with a random length, an offset, and noise.

    The noise hides it from a random direction. A row's label names its direction; with `shuffled` the labels are
    dealt to other rows.
    """
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((d, d)))[0][: len(CONCEPTS)]
    concept = rng.integers(0, len(CONCEPTS), n_rows)
    rows = directions[concept] * rng.uniform(2, 4, (n_rows, 1)) + 0.8 * rng.standard_normal((n_rows, d)) + 1
    shown = rng.permutation(concept) if shuffled else concept
    names = [CONCEPTS[number] for number in shown]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "rows.npy", rows.astype(np.float32))
    (folder / "labels.txt").write_text("\n".join(names) + "\n")
    made = import_array(
        folder / "run", folder / "rows.npy", name=ARRAY, labels=folder / "labels.txt" if labels else None
    )
    return PlantedArray(folder / "run", made, rows.astype(np.float32), names)
