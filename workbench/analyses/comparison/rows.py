"""The eighteen methods and their checks: what each claims, the figure, its limit, its control, and whether it holds.

The checks are those of `analyses/checks`, found by themselves; each is run with several seeds, in processes of
their own, and kept in `run/checks.parquet` until its file changes. A method without a check is shown as missing,
a check that fails as failed with its sentence. A claim's figure is the mean over seeds and its spread the least
and greatest; it holds where it holds with every seed.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench.analyses.checks import Check, Claim, check, checks
from workbench.artifacts import atomic_file, sha256_file
from workbench.progress import Progress

CHECKS = "checks.parquet"
METHODS = {
    1: "Scaling recipe of TopK, and the k-sparse autoencoder", 2: "top-AFA and quasi-orthogonality",
    3: "Mutual Choice and Feature Choice", 4: "Bias adaptation", 5: "Gradient SAE", 6: "FAST",
    7: "Variational SAE", 8: "KronSAE", 9: "Active-subspace initialisation", 10: "Semi-NMF of MLP activations",
    11: "Discrete codes for circuits", 12: "Contrastive sparse representation", 13: "Families in dense embeddings",
    14: "Dark matter and pursuit", 15: "Invertible concept explanations", 16: "Discover-then-Name", 17: "ELUDE",
    18: "Your own activations",
}  # fmt: skip
RAW = ("check", "row", "title", "seed", "code", "claim", "figure", "unit", "least", "most", "control", "control_is",
       "expected", "holds", "note", "error")  # fmt: skip
SHOWN = ("row", "method", "check", "claim", "unit", "figure", "lowest", "highest", "limit", "control", "control_is",
         "n_seeds", "verdict", "note")  # fmt: skip
HOLDS, SHORT, BROKEN = "holds", "shortfall, as expected", "does not hold"
MISSING, FAILED = "missing", "failed"


def run_checks(
    run: Path, seeds: Sequence[int], *, size: str = "small", workers: int | None = None
) -> pd.DataFrame:
    """Run the checks that were not run with their present code, and return all raw rows (columns `RAW`).

    Args:
        run: Run folder.
        seeds: Of every check.
        size: Of every check.
        workers: Processes; by default one per core.
    """
    table = read_checks(run)
    if not seeds:
        return table
    known = checks()
    code = {name: _code_of(one) for name, one in known.items()}
    done = set(zip(table["check"], table["seed"], table["code"], strict=True))
    todo = [(name, seed) for name in known for seed in seeds if (name, seed, code[name]) not in done]
    if not todo:
        return table
    context = multiprocessing.get_context("spawn")
    n_workers = workers or min(len(todo), os.cpu_count() or 1)
    with (
        Progress(len(todo), "checking methods", "checks") as progress,
        ProcessPoolExecutor(n_workers, context, torch.set_num_threads, (1,)) as pool,
    ):
        waiting = {pool.submit(claims_of, name, seed, size): (name, seed) for name, seed in todo}
        for future in as_completed(waiting):
            name, seed = waiting[future]
            table = _with(run, table, _raw(known[name], seed, code[name], future.result()))
            progress.advance(1, f"{name}, seed {seed}")
    return table


def claims_of(name: str, seed: int, size: str) -> list[Claim] | str:
    """The claims of a check, or the sentence with which it failed."""
    try:
        return check(name, seed=seed, size=size)
    except Exception as error:  # a check that fails is a row of the table, not the end of the comparison
        return f"{type(error).__name__}: {error}"


def read_checks(run: Path) -> pd.DataFrame:
    """The raw rows of a run; none where no check was run."""
    path = run / CHECKS
    found = pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=list(RAW))
    return found if list(found.columns) == list(RAW) else pd.DataFrame(columns=list(RAW))


def _code_of(one: Check) -> str:
    """Short hash of the file of a check."""
    return sha256_file(Path(str(sys.modules[one.run.__module__].__file__)))[:16]


def _raw(one: Check, seed: int, code: str, found: list[Claim] | str) -> list[dict[str, Any]]:
    about = {"check": one.name, "row": one.row, "title": one.title, "seed": seed, "code": code}
    if isinstance(found, str):
        return [
            {**dict.fromkeys(RAW), **about, "claim": "", "error": found, "holds": False, "expected": True}
        ]
    return [
        {
            **about, **{name: getattr(claim, name) for name in ("figure", "unit", "least", "most", "control")},
            "claim": claim.says, "control_is": claim.control_is, "expected": claim.expected, "holds": claim.holds,
            "note": claim.note, "error": "",
        }
        for claim in found
    ]  # fmt: skip


def _with(run: Path, table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table with the rows of one check and seed in place of older ones, written."""
    name, seed = rows[0]["check"], rows[0]["seed"]
    kept: Any = table[~((table["check"] == name) & (table["seed"] == seed))]
    added = pd.DataFrame(rows, columns=list(RAW))
    joined: Any = pd.concat([kept, added], ignore_index=True) if len(kept) else added
    with atomic_file(run / CHECKS) as temporary:
        joined.astype(dict.fromkeys(("figure", "least", "most", "control"), float)).to_parquet(
            temporary, index=False
        )
    return joined


def table_of_rows(raw: pd.DataFrame) -> pd.DataFrame:
    """One line per claim of the eighteen methods (columns `SHOWN`); methods without a check are there as missing."""
    lines = [_line(place, group) for place, group in raw.groupby(["row", "check", "claim"], sort=False)]
    found = {line["row"] for line in lines}
    lines += [_empty(row) for row in METHODS if row not in found]
    table = pd.DataFrame(lines, columns=list(SHOWN))
    return table.sort_values("row", kind="stable", ignore_index=True)


def _line(place: Any, group: Any) -> dict[str, Any]:
    row, name, claim = place
    first: Any = group.iloc[0]
    figures = group["figure"].astype(float)
    error = str(first["error"] or "")
    return {
        "row": int(row), "method": METHODS.get(int(row), str(first["title"])), "check": name,
        "claim": claim or str(first["title"]), "unit": first["unit"] or "", "figure": float(figures.mean()),
        "lowest": float(figures.min()), "highest": float(figures.max()), "limit": limit_text(first),
        "control": float(group["control"].astype(float).mean()), "control_is": first["control_is"] or "",
        "n_seeds": len(group), "verdict": FAILED if error else _verdict(group), "note": error or first["note"] or "",
    }  # fmt: skip


def _verdict(group: pd.DataFrame) -> str:
    if bool(group["holds"].astype(bool).all()):
        return HOLDS
    return BROKEN if bool(group["expected"].astype(bool).all()) else SHORT


def limit_text(claim: Any) -> str:
    """The limits of a claim in words."""
    parts = [
        f"{sign} {float(claim[name]):.3g}"
        for name, sign in (("least", "≥"), ("most", "≤"))
        if claim[name] is not None and not math.isnan(float(claim[name]))
    ]
    return ", ".join(parts)


def _empty(row: int) -> dict[str, Any]:
    numbers = dict.fromkeys(("figure", "lowest", "highest", "control"), math.nan)
    return {
        **dict.fromkeys(SHOWN, ""),
        **numbers,
        "row": row,
        "method": METHODS[row],
        "n_seeds": 0,
        "verdict": MISSING,
    }
