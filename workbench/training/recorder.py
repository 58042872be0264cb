"""Turns every few steps into a row of the log, and measures where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.dictionaries import StepLosses
from workbench.training.metrics import Metrics, MetricsLog
from workbench.training.step import Trainer
from workbench.training.trackers import Tracker


class Recorder:
    """Rows of a training's log.

    Attributes:
        note: The last row in a few words, for the line of progress.
    """

    def __init__(
        self,
        log: MetricsLog,
        trainer: Trainer,
        batch_size: int,
        *,
        every_steps: int,
        tracker: Tracker | None = None,
    ) -> None:
        self.log, self.trainer, self.batch_size = log, trainer, batch_size
        self.every_steps, self.tracker, self.note = every_steps, tracker, ""
        self._step, self._time, self._waited = trainer.step, time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the block the training waits for data."""
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    def wants(self, step: int) -> bool:
        """Whether the step that makes them `step` in all is to be measured and recorded."""
        return step % self.every_steps == 0 or step == self.trainer.schedule.n_steps

    def record(self, losses: StepLosses) -> None:
        """Add the row of the step that was just done, if it is one of those."""
        if not self.wants(self.trainer.step):
            return
        row = self._row(losses)
        self.note = f"FVU {row.fvu:.3f}, dead {row.dead_frac:.1%}"
        self.log.add(row)
        if self.tracker is not None:
            self.tracker.add(row.row())

    def _row(self, losses: StepLosses) -> Metrics:
        step, now = self.trainer.step, time.monotonic()
        elapsed = max(now - self._time, 1e-9)
        rate, waited = (step - self._step) * self.batch_size / elapsed, min(1.0, self._waited / elapsed)
        self._step, self._time, self._waited = step, now, 0.0
        names = ("fvu", "explained_variance", "l0", "dead_frac")
        return Metrics(
            step=step,
            tokens=step * self.batch_size,
            loss=float(losses.loss.detach()),
            parts={name: float(value) for name, value in losses.parts.items()},
            **{name: float(getattr(losses, name)) for name in names},
            grad_norm=float(self.trainer.grad_norm),
            lr=self.trainer.schedule.at(step - 1),
            tokens_per_s=rate,
            wait_frac=waited,
        )

    def write(self) -> None:
        """Bring the log's file up to date."""
        self.log.write()

    def close(self) -> None:
        """Write what is in memory."""
        self.log.write()
        if self.tracker is not None:
            self.tracker.close()
