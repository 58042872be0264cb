"""Ctrl-C and SIGTERM as a wish: the work in hand is finished and kept, then the program stops.

A second Ctrl-C does not wait.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Within the block the first signal only sets `requested`; handlers are put back at the end.

    Outside the main thread Python cannot set handlers, and the block then changes nothing.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._previous: dict[int, object] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = number

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ):
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def stop(self, message: str) -> None:
        """Leave as the signal asks: KeyboardInterrupt for Ctrl-C, exit status 143 for SIGTERM."""
        print(message, flush=True)  # noqa: T201 - the last line of an interrupted stage
        if self.requested == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message)
