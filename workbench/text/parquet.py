"""Parquet: one document per row of one column.

Row groups come in a seeded order and rows are permuted within windows, so that only a window of one column
is in memory. A document is known by its file and row, counted from 0: `"part.parquet#17"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import UserError, nearest
from workbench.text.files import TextFile, readable
from workbench.text.identity import files_identity
from workbench.text.order import by_hash, permutation, windowed
from workbench.text.records import Record, characters

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

BATCH_ROWS = 1024


@contextmanager
def _opened(file: TextFile) -> Iterator[ParquetFile]:
    """The open file.

    Raises:
        UserError: it is no Parquet file, or a damaged one.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with readable(file.path), pyarrow.parquet.ParquetFile(file.path) as opened:
            yield opened
    except pyarrow.ArrowException as error:
        first = str(error).splitlines()[0]
        raise UserError(f"text file {str(file.path)!r} is no whole Parquet file ({first})") from error


@dataclass(frozen=True)
class Parquet:
    """Parquet files and the column that is read from them."""

    files: list[TextFile]
    column: str
    kind: str = "parquet"

    def check(self) -> None:
        """Refuse a file without the column.

        Raises:
            UserError: a file is no Parquet file or lacks the column.
        """
        for file in self.files:
            with _opened(file) as opened:
                names = opened.schema_arrow.names
            if self.column not in names:
                raise UserError(
                    f"text file {str(file.path)!r} has no column {self.column!r}; {nearest(self.column, names)}"
                )

    def describe(self) -> dict[str, Any]:
        """What identifies the content."""
        return {"files": files_identity(self.files)}

    def records(self, seed: int) -> Iterator[Record]:
        """The documents in seeded order.

        Raises:
            UserError: a file is damaged.
        """
        for file in by_hash(self.files, seed):
            key = f"{seed}|{file.name}"
            yield from windowed(self._rows(file, key), key=key, size=characters)

    def _rows(self, file: TextFile, key: str) -> Iterator[Record]:
        """Rows of the file, row groups in seeded order."""
        with _opened(file) as opened:
            counts = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
            first = np.cumsum([0, *counts])
            for group in permutation(len(counts), f"{key}|row groups"):
                row = int(first[group])
                batches = opened.iter_batches(BATCH_ROWS, row_groups=[int(group)], columns=[self.column])
                for batch in batches:
                    for value in batch.column(0).to_pylist():
                        yield Record(f"{file.name}#{row}", f"row {row} of {str(file.path)!r}", value)
                        row += 1
