"""Lines of a running stage on the terminal, at once, each with the stage's name and place in the chain.

    [2/6 train] training: 1,228,800/5,100,000 rows (24%), 61,000 rows/s, 1 min 03 s left, loss 0.1

A stage that prints nothing for a while gets a line from here that names the cell it is in, so that the
terminal says at every moment what is being done.
"""

from __future__ import annotations

import threading
import time
from io import TextIOBase
from typing import TextIO

from workbench.progress import seconds_text


class StageLines:
    """A text stream that puts a label before each line and breaks long silences.

    Used as papermill's `stdout_file` and `stderr_file`; `cell` is the notebook client's `on_cell_start`.
    """

    def __init__(
        self, label: str, out: TextIO | TextIOBase, *, n_cells: int, silence_s: float = 10.0
    ) -> None:
        self._label, self._out, self._n_cells, self._silence_s = label, out, n_cells, silence_s
        self._rest = ""
        self._cell, self._what = 0, "starting the kernel"
        self._started = self._shown = self._cell_started = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._break_silence, daemon=True)

    def __enter__(self) -> StageLines:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watch.join()
        if self._rest:
            self.write("\n")

    def say(self, line: str) -> None:
        """One line of our own."""
        with self._lock:
            self._shown = time.monotonic()
            print(f"[{self._label}] {line}", file=self._out, flush=True)

    def elapsed(self) -> str:
        """Time since the start, for people."""
        return seconds_text(time.monotonic() - self._started)

    def write(self, text: str) -> int:
        """Show the whole lines in `text` and keep the rest for later."""
        *lines, self._rest = (self._rest + text.replace("\r", "\n")).split("\n")
        for line in lines:
            if line.strip():
                self.say(line)
        return len(text)

    def flush(self) -> None:
        """Nothing to do: lines are shown as they end."""

    def cell(self, *, number: int, what: str) -> None:
        """A cell starts; it is named only if it stays silent."""
        self._cell, self._what, self._cell_started = number, what, time.monotonic()

    def _break_silence(self) -> None:
        while not self._stop.wait(0.5):
            now = time.monotonic()
            if now - self._shown >= self._silence_s:
                spent = seconds_text(now - self._cell_started)
                self.say(f"{self._what} (cell {self._cell} of {self._n_cells}, for {spent})")
