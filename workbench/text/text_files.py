"""A corpus of text files: one document per file, in order of the hash of seed and name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workbench.text.files import TextFile
from workbench.text.identity import files_identity
from workbench.text.order import by_hash
from workbench.text.records import Record


@dataclass(frozen=True)
class TextFiles:
    """Text files; an empty or binary one is refused when its turn comes."""

    files: list[TextFile]
    kind: str = "text"
    column: None = None

    def describe(self) -> dict[str, Any]:
        """What identifies the content."""
        return {"files": files_identity(self.files)}

    def records(self, seed: int) -> Iterator[Record]:
        """The documents in seeded order.

        Raises:
            UserError: a file is empty or is not UTF-8 text.
        """
        for file in by_hash(self.files, seed):
            yield Record(file.name, f"text file {str(file.path)!r}", file.read())
