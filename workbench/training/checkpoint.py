"""Checkpoints: one folder per kept step, whole or absent, and an identity that says what it belongs to.

    checkpoints/step-00000200/state.safetensors   weights, moments, averages, buffers, state of the generator
                              state.json          step, identity, reader, SHA-256 of the tensors

A folder is written under another name, brought to the disk and renamed, and the two newest are kept, so a
process that is killed at any moment leaves the one before. The identity is everything that decides the
result (store, parameters); a checkpoint of another identity is never continued.

Tensors are stored in the order of their memory; those whose dimensions are the other way round are named in
the record.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from workbench.artifacts import atomic_folder, read_json, sha256_file, write_json
from workbench.store.files import write_tensors

TENSORS, RECORD = "state.safetensors", "state.json"
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A training state: steps done, the tensors, and where the reader of the activations stands."""

    step: int
    tensors: dict[str, Tensor]
    reader: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    identity: Mapping[str, Any],
    *,
    reader: Mapping[str, Any],
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
    turned = [name for name, tensor in tensors.items() if _is_turned(tensor)]
    ordered = {
        name: tensor.detach().T if name in turned else tensor.detach() for name, tensor in tensors.items()
    }
    with atomic_folder(path) as temporary:
        written = write_tensors(temporary / TENSORS, {n: t.contiguous().cpu() for n, t in ordered.items()})
        record = {"step": step, "identity": dict(identity), "reader": dict(reader), "turned": turned}
        write_json(temporary / RECORD, {**record, "sha256": written.sha256})
    for old in checkpoint_folders(folder)[:-KEEP]:
        shutil.rmtree(old)
    return path


def _is_turned(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and not tensor.is_contiguous() and tensor.T.is_contiguous()


def checkpoint_folders(folder: Path) -> list[Path]:
    """The checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{RECORD}"))


def remove_remains(folder: Path) -> None:
    """Remove what a killed process had begun to write or to delete."""
    whole = set(checkpoint_folders(folder))
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)


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
            tensors = load_file(path / TENSORS)
            turned = {name: tensors[name].T for name in record["turned"]}
            return Checkpoint(record["step"], {**tensors, **turned}, record["reader"])
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
