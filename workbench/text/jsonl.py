"""JSON lines: one document per line, `.jsonl` or `.ndjson`, plain or compressed with gzip.

A plain file is indexed once per iteration (8 bytes per line) and its lines are then read in a permutation
of the whole file. A compressed file can only be read from its start, so its lines are permuted within
windows. The documents of one file are together; files come in order of the hash of seed and name.

A document is known by its file and line, counted from 1: `"corpus.jsonl#17"`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from workbench.errors import UserError
from workbench.text.files import TextFile, readable
from workbench.text.identity import files_identity
from workbench.text.order import by_hash, permutation, windowed
from workbench.text.records import Record, pick

CHUNK_BYTES = 1 << 24
NEWLINE = 10


def line_edges(path: Path) -> Int64[np.ndarray, " edge"]:
    """Byte offsets of the starts of all lines, and the file's size at the end."""
    edges, base = [np.zeros(1, dtype=np.int64)], 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == NEWLINE)
            edges.append(found.astype(np.int64) + (base + 1))
            base += len(chunk)
    found = np.concatenate(edges)
    return found if found[-1] == base else np.append(found, np.int64(base))


def parse_line(line: bytes, where: str) -> dict[str, Any] | None:
    """The object of a line; None for a blank line.

    Raises:
        UserError: the line is not a JSON object in UTF-8.
    """
    if not line.strip():
        return None
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start}): convert the file first") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}): correct or remove it") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} is a JSON {type(row).__name__}, not an object with named columns")
    return row


@dataclass(frozen=True)
class JsonLines:
    """Files of JSON lines and the column that is read from them."""

    files: list[TextFile]
    column: str
    kind: str = "jsonl"

    def describe(self) -> dict[str, Any]:
        """What identifies the content."""
        return {"files": files_identity(self.files)}

    def records(self, seed: int) -> Iterator[Record]:
        """The documents in seeded order.

        Raises:
            UserError: a line is no JSON object or lacks the column, or a compressed file is damaged.
        """
        for file in by_hash(self.files, seed):
            key = f"{seed}|{file.name}"
            packed = file.path.suffix == ".gz"
            lines = _compressed_lines(file.path, key) if packed else _plain_lines(file.path, key)
            for number, line in lines:
                where = f"line {number} of {str(file.path)!r}"
                row = parse_line(line, where)
                value = None if row is None else pick(row, self.column, where)
                yield Record(f"{file.name}#{number}", where, value)


def _plain_lines(path: Path, key: str) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line, permuted over the whole file."""
    with readable(path):
        edges = line_edges(path)
        with path.open("rb", buffering=0) as file:
            for index in permutation(len(edges) - 1, key):
                file.seek(int(edges[index]))
                yield int(index) + 1, file.read(int(edges[index + 1] - edges[index]))


def _compressed_lines(path: Path, key: str) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line, permuted within windows."""
    yield from windowed(_gzip_lines(path), key=key, size=lambda item: len(item[1]))


def _gzip_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with readable(path), gzip.open(path, "rb") as file:
        try:
            yield from enumerate(file, start=1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"text file {str(path)!r} is no whole gzip file ({error}): make it again"
            ) from error
