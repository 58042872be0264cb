"""Disk space: asked for before a capture begins, and told when it runs out all the same."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


def size_text(n_bytes: int) -> str:
    """`1.5e9` -> `1.5 GB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:,.1f} {unit}"
    return f"{n_bytes / 1e3:,.1f} kB"


def free_bytes(folder: Path) -> int:
    """Bytes free where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot end.

    Raises:
        UserError: less is free than needed; names both.
    """
    free = free_bytes(folder)
    if needed > free:
        raise UserError(
            f"the capture needs {size_text(needed)} in {str(folder)!r} and {size_text(free)} are free: free some "
            "space, capture fewer tokens or hooks, or train from memory (LiveStore); nothing was written for it"
        )


@contextmanager
def refuse_full_disk(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Turn a full disk inside the block into what is needed and what is free.

    Raises:
        UserError: a write found no space; everything written before it stays.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"the disk is full: about {size_text(needed())} more are needed in {str(folder)!r} and "
            f"{size_text(free_bytes(folder))} are free; every finished shard is kept, free some space and run the "
            "same command again"
        ) from error
