"""Sparsity against fidelity over many dictionaries: one table from their evaluations, controls included.

A dictionary with more active latents reconstructs better, so two architectures can be compared only at one L0:
as the curves that a sweep over k (or over a penalty) draws. Each row of the table is one set of figures of one
dictionary, its own (`trained`) or of one of its controls.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.artifacts import read_json
from workbench.errors import UserError

SETS = ("trained", "random", "random_model")
FIGURES = (
    "l0", "l0_low", "l0_high", "fvu", "fvu_low", "fvu_high",
    "ce_recovered_frac", "ce_recovered_frac_low", "ce_recovered_frac_high",
    "kl_recovered_frac", "kl_recovered_frac_low", "kl_recovered_frac_high",
    "explained_variance_frac", "nmse", "cosine", "gamma", "dead_frac", "dense_frac", "n_tokens",
)  # fmt: skip
COLUMNS = ("name", "architecture", "layout", "set", "d_sae", *FIGURES)
SWEEP = "dictionaries"


def sweep_folders(run: Path) -> list[Path]:
    """The evaluated dictionaries of a run: those of its sweep, or its only one."""
    found = sorted(path.parent for path in run.glob(f"{SWEEP}/*/evaluation.json"))
    own = run / "dictionary"
    return found or ([own] if (own / "evaluation.json").exists() else [])


def frontier(folders: Iterable[Path]) -> pd.DataFrame:
    """One row for each set of figures of each evaluated dictionary, by architecture and L0; columns `COLUMNS`.

    Args:
        folders: Each with `cfg.json` and `evaluation.json`.

    Raises:
        UserError: a folder has no evaluation, or one of an older format.
    """
    rows = [row for folder in folders for row in _rows(folder)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(["architecture", "layout", "set", "l0", "name"], ignore_index=True)


def _rows(folder: Path) -> list[dict[str, Any]]:
    for name in ("cfg.json", "evaluation.json"):
        if not (folder / name).exists():
            raise UserError(f"dictionary {str(folder)!r} has no {name}: train and evaluate it first")
    config, found = read_json(folder / "cfg.json"), read_json(folder / "evaluation.json")
    identity = config.get("metadata", {}).get("workbench", {}).get("identity", {})
    about = {
        "name": folder.name,
        "architecture": identity.get("architecture", config.get("architecture")),
        "layout": identity.get("layout", "autoencoder"),
        "d_sae": config.get("d_sae"),
    }
    if "l0" not in found.get("trained", {}) or "gamma" not in found["trained"]:
        raise UserError(f"the evaluation of {str(folder)!r} is of an older format: evaluate it again")
    return [
        {**about, "set": name, **{figure: found[name].get(figure) for figure in FIGURES}}
        for name in SETS
        if name in found
    ]


def markdown(table: pd.DataFrame, columns: dict[str, str]) -> str:
    """A table as Markdown.

    Args:
        table: Its rows.
        columns: Format of each column that is shown, by name; "" for text.
    """
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in table.to_dict("records"):
        cells = [_cell(row[name], form) for name, form in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: Any, form: str) -> str:
    missing = value is None or (isinstance(value, float) and value != value)
    return "–" if missing else format(value, form)
