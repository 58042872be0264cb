"""The training log's rows in another tool too: TensorBoard or Weights & Biases, if the user has it.

Neither is a dependency: the package is imported when it is asked for. The Parquet log is written in any case.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from workbench.artifacts import sha256_json
from workbench.errors import UserError, nearest

TRACKERS = ("tensorboard", "wandb")


@runtime_checkable
class Tracker(Protocol):
    """Takes rows of the log."""

    def add(self, row: Mapping[str, float | int]) -> None:
        """Take a row; its `step` is among the values."""
        ...

    def close(self) -> None:
        """Write out what is still in memory."""
        ...


class TensorBoard:
    """Event files in `tensorboard/` beside the log; a resumed training hides what it does again."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        writer = _import("tensorboard", "torch.utils.tensorboard").SummaryWriter
        self._writer = writer(log_dir=str(folder / "tensorboard"), purge_step=after_step + 1)

    def add(self, row: Mapping[str, float | int]) -> None:
        """A scalar per column."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, the same one when the training is resumed."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        name = sha256_json([str(folder.resolve()), dict(identity)])[:16]
        module = _import("wandb", "wandb")
        self._run = module.init(
            project="workbench", id=name, resume="allow", dir=str(folder), config=dict(identity)
        )

    def add(self, row: Mapping[str, float | int]) -> None:
        """One entry per row."""
        self._run.log(dict(row), step=int(row["step"]))

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def open_tracker(
    name: str | None, folder: Path, identity: Mapping[str, Any], *, after_step: int
) -> Tracker | None:
    """The tracker of a name; None for None.

    Args:
        name: One of `TRACKERS`, or None.
        folder: Where the training keeps its files.
        identity: What the training is made from.
        after_step: Steps done before.

    Raises:
        UserError: the name is not known, or its package is not installed.
    """
    check_tracker(name)
    if name == "tensorboard":
        return TensorBoard(folder, after_step=after_step)
    return WeightsAndBiases(folder, identity) if name == "wandb" else None


def check_tracker(name: str | None) -> None:
    """Refuse a name that is not known.

    Raises:
        UserError: it is not.
    """
    if name is not None and name not in TRACKERS:
        raise UserError(f"log_to {name!r} is not known; {nearest(name, TRACKERS)}")


def _import(package: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"log_to {package!r} needs the package {package}: install it, or leave log_to out"
        ) from error
