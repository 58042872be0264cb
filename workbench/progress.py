"""Progress: what is being done, how fast, how long is left.

On a terminal one line with a bar, drawn over itself. Everywhere else plain lines, because the same text must
be readable in a notebook's saved output, in the log of a job and in CI.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType


def seconds_text(seconds: float) -> str:
    """`75.2` -> `1 min 15 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


BAR_CELLS = 24
CLEAR_LINE = "\r\x1b[2K"


def bar(share: float) -> str:
    """A share of 1 as a bar of `BAR_CELLS` characters."""
    full = round(BAR_CELLS * min(max(share, 0.0), 1.0))
    return "█" * full + "░" * (BAR_CELLS - full)


_HEARER: ContextVar[Callable[[Progress, str], None] | None] = ContextVar("hearer", default=None)


@contextmanager
def listening(hear: Callable[[Progress, str], None]) -> Iterator[None]:
    """Within the block `hear(progress, note)` is called instead of lines being printed, at every `advance`.

    It may raise to end the work: that is how a panel cancels. Other threads are not affected.
    """
    token = _HEARER.set(hear)
    try:
        yield
    finally:
        _HEARER.reset(token)


class Progress:
    """Counts done units of a known total and shows a line at most every `interval_s` seconds.

    >>> with Progress(1_000, "capturing", "tokens") as progress:
    ...     progress.advance(500)
    """

    def __init__(
        self,
        total: int,
        label: str,
        unit: str,
        *,
        done: int = 0,
        interval_s: float = 2.0,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done = self._resumed_at = done
        self._in_place = write is None and sys.stdout.isatty()
        self._interval_s, self._write = interval_s, write or self._print
        self._started = self._shown = time.monotonic()

    def _print(self, line: str) -> None:
        if self._in_place:
            share = self.done / self.total if self.total else 1.0
            print(f"{CLEAR_LINE}{bar(share)} {line}", end="", file=sys.stdout, flush=True)
        else:
            print(line, file=sys.stdout, flush=True)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` (for instance the loss) is shown at the end of the line."""
        self.done += n
        hear = _HEARER.get()
        if hear is not None:
            return hear(self, note)
        now = time.monotonic()
        if now - self._shown >= self._interval_s:
            self._shown = now
            self._write(self.line(note))

    def skip(self, n: int) -> None:
        """Count `n` units that were there already: they are done, and no part of the rate."""
        self.done += n
        self._resumed_at += n

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self._resumed_at) / max(time.monotonic() - self._started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; None before there is one."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def line(self, note: str = "") -> str:
        """The present state as one line of text."""
        rate = self.rate
        left = "unknown time" if self.seconds_left is None else seconds_text(self.seconds_left)
        share = 100 * self.done / self.total if self.total else 100
        speed = f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.2g}"
        text = f"{self.label}: {self.done:,}/{self.total:,} {self.unit} ({share:.0f}%), {speed} {self.unit}/s"
        return f"{text}, {left} left" + (f", {note}" if note else "")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ):
        if _HEARER.get() is not None:
            return
        elapsed = time.monotonic() - self._started
        if kind is None and elapsed >= self._interval_s:
            self._write(f"{self.label}: {self.done:,} {self.unit} in {seconds_text(elapsed)}")
        if self._in_place and elapsed >= self._interval_s:
            print(file=sys.stdout, flush=True)
