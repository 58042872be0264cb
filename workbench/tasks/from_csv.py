"""A task given by its user: a CSV or Parquet table of prompt pairs, one row a pair.

    clean,counterfactual,answer,counterfactual_answer
    "When Mary and John left, John spoke to","When Mary and John left, Mary spoke to"," Mary"," John"

Cells are taken as they are, leading spaces included: most tokenizers write ` Mary` and `Mary` differently. The
beginning-of-text token is put before each prompt where the tokenizer has one. Rows are numbered from 1, without
the header. Nothing in the table is executed.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

from workbench.errors import UserError, nearest
from workbench.tasks.base import PromptPair, Task, TokenizerLike, text_pair

COLUMNS = ("clean", "counterfactual", "answer", "counterfactual_answer")
SUFFIXES = (".csv", ".parquet")


def is_table(name: str) -> bool:
    """Whether a task's name is the path of a table."""
    return name.lower().endswith(SUFFIXES)


def task_from_table(path: Path, tokenizer: TokenizerLike, *, n_pairs: int, seed: int) -> Task:
    """`n_pairs` different rows of a table, drawn without replacement; the task's name is the file's stem.

    Args:
        path: A `.csv` file (UTF-8) or a `.parquet` file with the columns of `COLUMNS`.
        tokenizer: The model's; every row is checked with it.
        n_pairs: Number of pairs, at least 1.
        seed: Which rows, and their order.

    Raises:
        UserError: no such file, no table, a column that is missing, fewer different rows than `n_pairs`, or a row
            (which is named) with an empty cell, too many or too few cells, prompts of unequal length, an answer that
            is not one token, or equal answers.
    """
    rows = read_rows(path)
    pairs: dict[tuple[int, ...], PromptPair] = {}
    for number, row in enumerate(rows, start=1):
        pair = _pair(row, tokenizer, f"{path.name}, row {number}")
        key = (*pair.clean_ids, *pair.counterfactual_ids, pair.answer_id, pair.counterfactual_answer_id)
        pairs.setdefault(key, pair)
    if len(pairs) < n_pairs:
        raise UserError(
            f"n_pairs {n_pairs} is more than the {len(pairs)} different rows of {path.name}: lower it or add rows"
        )
    drawn = random.Random(f"{path.stem}-{seed}").sample(list(pairs.values()), n_pairs)
    return Task(path.stem, path.stem, f"{len(pairs)} prompt pairs of {path.name}", tuple(drawn))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The four texts of every row.

    Raises:
        UserError: no such file, a file that is no table, a missing column, a row of another length, or no row.
    """
    if not path.is_file():
        raise UserError(f"task table {str(path)!r} is not a file: give the path of a .csv or .parquet file")
    try:
        columns, rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except (ValueError, OSError, csv.Error) as error:
        why = (str(error).splitlines() or ["empty"])[0]
        raise UserError(
            f"{path.name} cannot be read as a table ({why}): save it as UTF-8 CSV with a header and texts with commas "
            "in double quotes, or as Parquet"
        ) from error
    _check_table(path.name, columns, rows)
    return [{name: row[columns.index(name)] for name in COLUMNS} for row in rows]


def _check_table(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns that are there, at least one row, and as many cells in each as there are columns."""
    missing = next((column for column in COLUMNS if column not in columns), None)
    if missing is not None:
        raise UserError(
            f"{name} has no column {missing!r}: a task needs {', '.join(COLUMNS)}; {nearest(missing, columns)}"
        )
    if not rows:
        raise UserError(f"{name} has no row: give at least one prompt pair")
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(columns)), None)
    if wrong is not None:
        raise UserError(
            f"{name}, row {wrong + 1}: {len(rows[wrong])} cells for {len(columns)} columns: put texts with commas in "
            "double quotes"
        )


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows; empty lines are left out."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    return header, rows


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows; a cell without a value is empty."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    columns = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
    return table.column_names, [list(cells) for cells in zip(*columns, strict=True)]


def _pair(row: dict[str, str], tokenizer: TokenizerLike, where: str) -> PromptPair:
    """One checked pair."""
    empty = next((name for name in COLUMNS if not row[name]), None)
    if empty is not None:
        raise UserError(f"{where}: {empty} is empty: fill it in or remove the row")
    try:
        return text_pair(tokenizer, **row)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
