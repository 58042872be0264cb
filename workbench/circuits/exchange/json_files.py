"""JSON of unknown origin: bounded in size, with finite numbers only, refused by name where it is damaged.

JSON has no NaN and no Infinity; Python writes and reads them all the same, other readers stop there. Nothing in
a JSON file is executed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from workbench.errors import UserError

MAX_BYTES = 2**29


def read_strict_json(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        max_bytes: Refuse larger files; a parsed file takes about ten times its size in memory.

    Raises:
        UserError: no such file, too large, not UTF-8, not JSON, nested too deeply, NaN or Infinity, or no object.
    """
    if not path.is_file():
        raise UserError(f"file {path.name!r} does not exist: give the path of a JSON file")
    size = path.stat().st_size
    if size > max_bytes:
        raise UserError(
            f"file {path.name!r} has {size:,} bytes, more than max_bytes {max_bytes:,}: raise max_bytes, or write "
            "the graph anew with fewer links"
        )
    try:
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"file {path.name!r} is not JSON ({_reason(error)}): ask for it anew") from error
    if not isinstance(value, dict):
        raise UserError(
            f"file {path.name!r} holds a {type(value).__name__}, not an object: give another file"
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise UserError(
        f"the file holds the number {name}, which JSON does not have: write null or a finite number"
    )


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
