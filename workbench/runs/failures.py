"""From an exception to what a person is told: one sentence and an exit status.

Bad input and a full disk are status 2, an interruption 130, everything else (a claim that does not hold, a
defect) 1. Errors that come out of a notebook are known only by name and text, because they happened in
another process.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from workbench.errors import UserError

FAILED, USER, INTERRUPTED = 1, 2, 130
_FULL_DISK = ("No space left on device", "StorageFull", "Disk quota exceeded")


@dataclass(frozen=True)
class Failure:
    """What went wrong, in one sentence, and the exit status that says so."""

    status: int
    sentence: str


def is_full_disk(error: BaseException) -> bool:
    """Whether a write failed for want of space; safetensors and pyarrow hide the number in their text."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or any(text in str(error) for text in _FULL_DISK)


FULL_DISK = Failure(
    USER, "the disk is full: free some space and run the same command again; nothing half-written is kept"
)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def explain(error: BaseException) -> Failure:
    """The failure that an exception of this process stands for."""
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTED, "stopped by the keyboard; the same command goes on from there")
    if isinstance(error, UserError):
        return Failure(USER, _one_line(error))
    if is_full_disk(error):
        return FULL_DISK
    return Failure(FAILED, f"{type(error).__name__}: {_one_line(error)}")


def explain_papermill(error: BaseException) -> Failure | None:
    """The failure behind papermill's account of a cell that raised, or None if `error` is something else."""
    from papermill.exceptions import PapermillExecutionError

    if not isinstance(error, PapermillExecutionError):
        return None
    name, value = error.ename, _one_line(error.evalue)
    if name == "UserError":
        return Failure(USER, value)
    if name == "KeyboardInterrupt":
        return explain(KeyboardInterrupt())
    if any(text in value for text in _FULL_DISK):
        return FULL_DISK
    number, value = error.cell_index + 1, f": {value}" if value else ""
    if name == "AssertionError":
        return Failure(FAILED, f"the claim in cell {number} does not hold{value}")
    return Failure(FAILED, f"cell {number} raised {name}{value}")
