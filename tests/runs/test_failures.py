"""Every exception becomes one sentence and the right exit status."""

from __future__ import annotations

import errno

import pytest
from papermill.exceptions import PapermillExecutionError

from workbench.errors import UserError
from workbench.runs.failures import FAILED, FULL_DISK, INTERRUPTED, USER, explain, explain_papermill


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (UserError("k 9 is too large"), USER, "k 9 is too large"),
        (OSError(errno.ENOSPC, "No space left on device"), USER, "the disk is full"),
        (
            RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "..." })'),
            USER,
            "the disk is full",
        ),
        (KeyboardInterrupt(), INTERRUPTED, "goes on from there"),
        (ZeroDivisionError("division by zero"), FAILED, "ZeroDivisionError: division by zero"),
        (OSError(errno.EACCES, "Permission denied"), FAILED, "Permission denied"),
    ],
)
def test_explain(error: BaseException, status: int, part: str) -> None:
    failure = explain(error)
    assert failure.status == status
    assert part in failure.sentence
    assert "\n" not in failure.sentence


@pytest.mark.parametrize(
    ("name", "value", "status", "sentence"),
    [
        ("UserError", "hook 'x' is unknown", USER, "hook 'x' is unknown"),
        ("AssertionError", "fvu 0.9", FAILED, "the claim in cell 5 does not hold: fvu 0.9"),
        ("KeyError", "'a'", FAILED, "cell 5 raised KeyError: 'a'"),
        ("OSError", "[Errno 28] No space left on device", USER, FULL_DISK.sentence),
        (
            "KeyboardInterrupt",
            "",
            INTERRUPTED,
            "stopped by the keyboard; the same command goes on from there",
        ),
    ],
)
def test_explain_papermill(name: str, value: str, status: int, sentence: str) -> None:
    error = PapermillExecutionError(
        cell_index=4, exec_count=3, source="", ename=name, evalue=value, traceback=["..."]
    )
    failure = explain_papermill(error)
    assert failure is not None
    assert (failure.status, failure.sentence) == (status, sentence)


def test_other_errors_are_not_papermills() -> None:
    assert explain_papermill(ValueError("x")) is None
