"""Files of a corpus: their names, the standard library as a corpus, and the split that keeps text unseen.

A file is known by a name that does not depend on where it lies, so that a corpus has the same order and
the same identity on every machine. One file of the standard library in 25 is evaluation text, by hash of
its name.
"""

from __future__ import annotations

import glob
import hashlib
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import UserError

HELD_OUT_ONE_IN = 25
STDLIB, STDLIB_HELD_OUT = "stdlib", "stdlib-heldout"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn a failure of the file system into a sentence.

    Raises:
        UserError: the file could not be read.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"text file {str(path)!r} could not be read: {reason}") from error


@dataclass(frozen=True)
class TextFile:
    """A text on disk and the name it is known by, which does not depend on where it lies."""

    name: str
    path: Path

    def read(self) -> str:
        """The text.

        Raises:
            UserError: the file is empty or is not UTF-8 text.
        """
        with readable(self.path):
            data = self.path.read_bytes()
        if not data.strip():
            raise UserError(f"text file {str(self.path)!r} is empty: give files with text in them")
        if b"\0" in data:
            raise UserError(f"text file {str(self.path)!r} is binary (it holds NUL bytes): give UTF-8 text")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"text file {str(self.path)!r} is not UTF-8 (byte {error.start}): convert it first"
            ) from error


def is_held_out(name: str) -> bool:
    """Whether a file is evaluation text (one in 25, by hash of its name)."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


def stdlib_files() -> list[TextFile]:
    """Source files of the interpreter's standard library, sorted by name; no installed packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if "site-packages" not in relative.parts and path.stat().st_size:
            files.append(TextFile(f"stdlib/{relative.as_posix()}", path))
    return sorted(files, key=lambda f: f.name)


def _readable(file: TextFile) -> bool:
    """Whether a library file is UTF-8 text (a few test files of the standard library are not, on purpose)."""
    try:
        file.read()
    except UserError:
        return False
    return True


def match_files(pattern: str) -> list[TextFile]:
    """The files that a path or glob names, sorted by path; each is known by its last name."""
    matches = glob.glob(str(Path(pattern).expanduser()), recursive=True)
    return [TextFile(path.name, path) for path in sorted(p for p in map(Path, matches) if p.is_file())]


def find_text(source: str) -> list[TextFile]:
    """The files of a corpus.

    Args:
        source: `"stdlib"` (training part), `"stdlib-heldout"` (evaluation part), or a path or glob of text files.

    Raises:
        UserError: no file matches.
    """
    if source in (STDLIB, STDLIB_HELD_OUT):
        wanted = source == STDLIB_HELD_OUT
        return [f for f in stdlib_files() if is_held_out(f.name) == wanted and _readable(f)]
    files = match_files(source)
    if not files:
        raise UserError(
            f"text {source!r} matches no file: give {STDLIB!r}, {STDLIB_HELD_OUT!r}, a path or glob of text, JSONL, "
            "Parquet or token-array files, a dataset directory, or hf:NAME"
        )
    return files
