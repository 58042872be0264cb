"""What identifies a corpus: its file names, their sizes and SHA-256 of their content.

Up to 1 GiB in total every byte counts. Beyond that, reading everything only to name it would take longer
than many captures: then each file counts with its size, its first and its last MiB, and the description
says so (`"digest": "ends"`). A change in the middle of such a file that keeps its size is not noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.artifacts import sha256_file, sha256_json
from workbench.text.files import TextFile, readable

WHOLE_LIMIT_BYTES = 1 << 30
END_BYTES = 1 << 20


def _sha256_ends(path: Path, n_bytes: int) -> str:
    """SHA-256 of the first and the last MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(END_BYTES))
        file.seek(max(0, n_bytes - END_BYTES))
        digest.update(file.read(END_BYTES))
    return digest.hexdigest()


def files_identity(files: Sequence[TextFile]) -> dict[str, Any]:
    """Number of files, bytes in total, how they were read, and one SHA-256 over names, sizes and contents.

    Raises:
        UserError: a file could not be read.
    """
    sizes = []
    for file in files:
        with readable(file.path):
            sizes.append(file.path.stat().st_size)
    whole = sum(sizes) <= WHOLE_LIMIT_BYTES
    parts = []
    for file, n_bytes in zip(files, sizes, strict=True):
        with readable(file.path):
            content = sha256_file(file.path) if whole else _sha256_ends(file.path, n_bytes)
        parts.append([file.name, n_bytes, content])
    return {
        "digest": "whole" if whole else "ends",
        "n_files": len(files),
        "n_bytes": sum(sizes),
        "sha256": sha256_json(parts),
    }
