"""When a training writes a checkpoint: after so many steps, or by the clock.

By the clock: every 30 s, or less often where writing takes longer than 2% of that. Which steps have a
checkpoint then depends on the machine; the result does not, because a training that goes on from any of them
ends in the same bits.

The state is written while the training waits: a copy for a thread in the background would take as much memory
as weights and moments together, to save less than those 2%.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.training.checkpoint import checkpoint_folders, save_checkpoint
from workbench.training.source import Reader
from workbench.training.step import Trainer

INTERVAL_S = 30.0
SHARE = 0.02
GENERATOR = "generator"


class Checkpointer:
    """Writes the state of a training to a folder.

    Attributes:
        folder: The `checkpoints` folder.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        trainer: Trainer,
        reader: Reader,
        *,
        every_steps: int | None = None,
    ) -> None:
        self.folder, self.identity, self.trainer, self.reader = folder, identity, trainer, reader
        self.every_steps = every_steps
        self._next = time.monotonic() + INTERVAL_S

    def due(self) -> bool:
        """Whether it is time for one; never while the loss is under suspicion."""
        if self.trainer.watch.suspicious:
            return False
        if self.every_steps is not None:
            return self.trainer.step % self.every_steps == 0
        return time.monotonic() >= self._next

    def save(self) -> Path:
        """Write the present state.

        Raises:
            DivergedError: it is not good; nothing is written.
        """
        started = time.monotonic()
        self.trainer.settle()
        tensors = {**self.trainer.state(), GENERATOR: torch.get_rng_state()}
        path = self.write(self.trainer.step, tensors)
        ended = time.monotonic()
        self._next = ended + max(INTERVAL_S, (ended - started) / SHARE)
        return path

    def write(self, step: int, tensors: Mapping[str, Tensor]) -> Path:
        """Bring a state to the disk."""
        return save_checkpoint(self.folder, step, tensors, self.identity, reader=self.reader.state())

    def stopping(self, requested: int | None) -> bool:
        """Whether the training is to stop, given the signal that came."""
        return requested is not None

    def last_good(self) -> str:
        """Write the present state if it is not under suspicion; says where the training can go on."""
        name = self.newest() if self.trainer.watch.suspicious else self.save().name
        return (
            f"checkpoint {name}; the same call continues it"
            if name
            else "no checkpoint; the same call starts anew"
        )

    def newest(self) -> str | None:
        """Name of the last checkpoint, if there is one."""
        folders = checkpoint_folders(self.folder)
        return folders[-1].name if folders else None
