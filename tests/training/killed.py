"""Trains in processes of its own and kills them: `python -m tests.training.killed`, one job per line of JSON.

    {"run": folder, "options": {...}, "at": 17}   ->   {"status": -9}

Every file operation of a training and every end of a step is counted; at operation `at` the process sends
itself SIGKILL, before the operation or, of a write, with half of it done. The server forks a process for
each job, so that a job costs no imports.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE_OPERATIONS = ("replace", "fsync", "unlink", "rmdir", "mkdir")


def kill() -> None:
    """The end."""
    os.kill(os.getpid(), signal.SIGKILL)


class Counter:
    """Counts operations and ends the process at one of them."""

    def __init__(self, at: int) -> None:
        self.at, self.done = at, -1

    def reached(self) -> bool:
        """Count one; whether it is the last."""
        self.done += 1
        return self.done == self.at

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the end before it where that is due."""

        def counted(*args: Any, **options: Any) -> Any:
            if self.reached():
                kill()
            return function(*args, **options)

        return counted

    def halfway(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """A write, of which half is done when the end comes."""

        def counted(file: Any, data: Any) -> Any:
            if self.reached():
                write(file, memoryview(data)[: len(data) // 2])
                kill()
            return write(file, data)

        return counted


def arm(at: int) -> None:
    """Let operation `at` of this process be its last."""
    from workbench.store import files
    from workbench.training.step import Trainer

    counter = Counter(at)
    for name in FILE_OPERATIONS:
        setattr(os, name, counter.before(getattr(os, name)))
    files.write_all = counter.halfway(files.write_all)
    Trainer.train_batch = counter.before(Trainer.train_batch)


def train(job: dict[str, Any]) -> None:
    """One training."""
    from workbench.training import train

    train(Path(job["run"]), **job["options"])


def child(job: dict[str, Any]) -> int:
    """The exit status of a process that does the job, as `subprocess` gives it."""
    process = os.fork()
    if process == 0:
        arm(job["at"])
        try:
            train(job)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main() -> None:
    """Serve jobs until the input ends; the first one only loads what the others need."""
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for number, line in enumerate(sys.stdin):
        job = json.loads(line)
        status = train(job) if number == 0 else child(job)
        print(json.dumps({"status": status}), file=answers, flush=True)


if __name__ == "__main__":
    main()
