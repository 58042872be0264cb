"""Processes that die on purpose: a forked child captures and is killed, at a chosen call or at a chosen time.

Forking keeps the loaded model, so that a kill point costs a fraction of a second. The child computes with
one thread, as these tests do (OMP_NUM_THREADS=1), because OpenMP's threads do not survive a fork.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 120.0


def forked(work: Callable[[], object], *, after_s: float | None = None, number: int = signal.SIGKILL) -> int:
    """Run `work` in a child and return its wait status; the child gets signal `number` after some time."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            silence()
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            os._exit(code)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, number)
    return waited(child)


def silence() -> None:
    """No output from the child: it shares the parent's captured streams."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def waited(child: int) -> int:
    """The wait status of a child; one that hangs is killed and fails the test."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


class DyingOs:
    """Counts the calls that change files; at the n-th the process is killed, having done half of it if it writes."""

    def __init__(self, n: int) -> None:
        self.left, self._lock = n, threading.Lock()

    def install(self) -> None:
        """Put the counting in place of `os`' own functions; only ever called in a child."""
        for name in ("replace", "fsync", "truncate", "write"):
            setattr(os, name, self._wrapped(getattr(os, name), halves=name == "write"))

    def _wrapped(self, real: Callable[..., Any], *, halves: bool) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self._lock:
                self.left -= 1
                dies = self.left == 0
            if dies:
                if halves:
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call
