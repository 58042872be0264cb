"""One writer at a time, or several that share the shards among them.

The lock belongs to the operating system: it is gone when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from workbench.store.errors import StoreError

LOCK = ".lock"


@contextmanager
def writing(root: Path, part: str | None = None) -> Iterator[None]:
    """Hold the stores in `root` for writing: alone, or (`part`, such as `"2-of-8"`) beside the other parts.

    Raises:
        StoreError: another process holds them, or this very part.
    """
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        held.enter_context(_held(root / LOCK, fcntl.LOCK_EX if part is None else fcntl.LOCK_SH))
        if part is not None:
            held.enter_context(_held(root / f"{LOCK}-part-{part}", fcntl.LOCK_EX))
        yield


@contextmanager
def _held(path: Path, kind: int) -> Iterator[None]:
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise StoreError(
                f"the stores in {str(path.parent)!r} are being written by process {holder}: wait for it, stop it, or "
                "let each process capture its part of the shards"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
