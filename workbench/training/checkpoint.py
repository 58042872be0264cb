"""Checkpoints: one folder per kept step, whole or absent, and an identity that says what it belongs to.

    checkpoints/step-00000200/state.safetensors   weights, Adam moments, counters
                              state.json          step, identity, SHA-256 of the tensors

There is no random state in it: batches are pure in (seed, step). The identity is everything that decides
the result (store, parameters); a checkpoint of another identity is never continued.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.artifacts import atomic_folder, read_json, sha256_file, write_json

TENSORS, RECORD = "state.safetensors", "state.json"
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A training state: steps done, the tensors, and where the reader of the activations stands."""

    step: int
    tensors: dict[str, Tensor]
    reader: dict[str, int]


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    identity: Mapping[str, Any],
    *,
    reader: Mapping[str, int],
) -> Path:
    """Write the state after `step` steps and remove all but the two newest checkpoints.

    Args:
        folder: The `checkpoints` folder.
        step: Steps done.
        tensors: Weights, moments and counters by name.
        identity: What the training is made from; compared at resume.
        reader: State of the reader of the activations.
    """
    path = folder / f"step-{step:08d}"
    with atomic_folder(path) as temporary:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, temporary / TENSORS)
        record = {"step": step, "identity": dict(identity), "reader": dict(reader)}
        write_json(temporary / RECORD, {**record, "sha256": sha256_file(temporary / TENSORS)})
    for old in checkpoint_folders(folder)[:-KEEP]:
        shutil.rmtree(old)
    return path


def checkpoint_folders(folder: Path) -> list[Path]:
    """The checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{RECORD}"))


def load_checkpoint(
    folder: Path, identity: Mapping[str, Any], *, say: Callable[[str], object] = print
) -> Checkpoint | None:
    """The newest checkpoint of this identity that is whole; None where training starts from nothing.

    Args:
        folder: The `checkpoints` folder.
        identity: What the training is made from.
        say: Called with one line for each checkpoint that is not used, and why.
    """
    for path in reversed(checkpoint_folders(folder)):
        problem, record = _problem(path, identity)
        if problem is None:
            return Checkpoint(record["step"], load_file(path / TENSORS), record["reader"])
        say(f"training: the checkpoint {path.name} is not continued: {problem}")
    return None


def _problem(path: Path, identity: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Why a checkpoint cannot be continued, or None; and its record."""
    try:
        record = read_json(path / RECORD)
    except ValueError:
        return "its record is damaged", {}
    if (other := difference(record["identity"], identity)) is not None:
        return f"it was made with another {other}", record
    if not (path / TENSORS).exists() or sha256_file(path / TENSORS) != record["sha256"]:
        return "its tensors are damaged", record
    return None, record


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first key whose value differs, as `k (64, not 32)`; None if the two are equal."""
    for key in {**wanted, **found}:
        if found.get(key) != wanted.get(key):
            return f"{key} ({found.get(key)!r}, not {wanted.get(key)!r})"
    return None
