"""Your own activations: any array of vectors as a store, so that every later room works on it.

Images, diffusion models, sentence embeddings: a `.npy` or `.safetensors` file of shape (row, d), with a
label per row where there are labels. In the row index each row is a sequence of one token, whose id is the
number of its label; `ActivationStore.labels` has the names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.artifacts import sha256_file
from workbench.capture.options import DTYPES
from workbench.capture.space import check_space, refuse_full_disk
from workbench.capture.where import ACTIVATIONS
from workbench.errors import UserError, nearest
from workbench.interrupt import Interruption
from workbench.progress import Progress
from workbench.store import ROWS, ActivationStore, Origin, Rows, RowShard, StoreError, StoreWriter, writing
from workbench.store.files import CODES

SHARD_BYTES = 64 << 20
NO_LABEL = "(no label)"


def import_array(
    run: Path,
    array: Path,
    *,
    name: str = "array",
    labels: Path | None = None,
    tensor: str | None = None,
    dtype: str = "native",
) -> ActivationStore:
    """Copy an array of vectors into `run/activations/<name>/`.

    Args:
        run: Run folder; made if missing.
        array: `.npy` or `.safetensors` file of floats (row, ...); further dimensions are put side by side.
        name: What the run calls it, as a hook point's name elsewhere.
        labels: `.txt` file with a line per row, or `.npy` of numbers or texts (row).
        tensor: Which tensor of a `.safetensors` file; needed where it has several.
        dtype: `"native"`, `"bfloat16"`, `"float16"` or `"float32"` on disk.

    Returns:
        The finished store; an interrupted import goes on.

    Raises:
        UserError: a name that is no folder's, a file that is no array of floats, labels that do not fit, or values
            that are not finite.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not a storage type; {nearest(dtype, DTYPES)}")
    check_name(name)
    values = _open_array(array, tensor)
    names, numbers = _labels(labels, len(values))
    stored = DTYPES[dtype] or values.dtype
    rows, hook = _origins(array, labels, tensor, name, names, stored, len(values))
    try:
        with writing(run / ACTIVATIONS):
            writer = StoreWriter(run / ACTIVATIONS, rows, {name: hook})
            if not writer.complete:
                _copy(writer, values, numbers, name, stored)
        return ActivationStore.open(run / ACTIVATIONS / name)
    except StoreError as error:
        raise UserError(str(error)) from error


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a column's folder.

    Raises:
        UserError: it is empty, a path, hidden, or the name of the row index.
    """
    if name == ROWS or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(
            f"name {name!r} cannot name an array: use letters, figures, '.', '-' and '_', and not {ROWS!r}"
        )


def _origins(
    array: Path, labels: Path | None, tensor: str | None, name: str, names: list[str], stored: torch.dtype,
    n_rows: int,
) -> tuple[Origin, Origin]:  # fmt: skip
    label_hash = None if labels is None else sha256_file(labels)
    text = {"kind": "array", "labels_sha256": label_hash, "n_rows": n_rows}
    description = {"text": text, "n_ctx": 1, "d_vocab": len(names), "labels": names}
    made = {
        "model_hash": None,
        "hook": name,
        "dtype": str(stored).removeprefix("torch."),
        "array_sha256": sha256_file(array),
        "tensor": tensor,
    }
    return Origin(description, {"source": array.name}), Origin(made, {"model": None})


def _copy(writer: StoreWriter, values: Tensor, numbers: np.ndarray, name: str, stored: torch.dtype) -> None:
    check_space(writer.root, values.numel() * stored.itemsize)
    per_shard = max(1, SHARD_BYTES // (values.shape[1] * stored.itemsize))
    with (
        Interruption() as interruption,
        Progress(len(values), "copying the array", "rows") as progress,
        refuse_full_disk(
            writer.root, lambda: (len(values) - progress.done) * values.shape[1] * stored.itemsize
        ),
    ):
        for index, start in enumerate(range(0, len(values), per_shard)):
            part = values[start : start + per_shard]
            if writer.lacking(index):
                writer.add(
                    index, _row_shard(numbers, start, len(part), name), {name: _finite(part, start, stored)}
                )
            progress.advance(len(part))
            if interruption.requested is not None:
                interruption.stop(
                    f"copying: stopped after shard {index}; the same command goes on from there"
                )
        writer.mark(complete=True, exhausted=True)


def _row_shard(numbers: np.ndarray, start: int, n_rows: int, name: str) -> RowShard:
    """Rows as sequences of one token each, all of one document."""
    every = np.ones(n_rows, dtype=bool)
    edges = np.arange(n_rows + 1, dtype=np.int64)
    rows = Rows(numbers[start : start + n_rows], edges, every, np.zeros(n_rows, np.int32))
    return RowShard(rows, [name] if start == 0 else [])


def _finite(part: Tensor, start: int, stored: torch.dtype) -> Float[Tensor, "row d"]:
    rows = part.to(stored).contiguous()
    if not bool(torch.isfinite(rows).all()):
        row = start + int((~torch.isfinite(rows)).any(1).nonzero()[0])
        raise UserError(
            f"row {row} of the array is not finite in {stored}: clean the array or choose another dtype"
        )
    return rows


def _open_array(path: Path, tensor: str | None) -> Float[Tensor, "row d"]:
    """The array as a mapped or loaded tensor (row, d)."""
    if not path.is_file():
        raise UserError(f"array {str(path)!r} is not a file: give a .npy or .safetensors file of floats")
    values = _from_safetensors(path, tensor) if path.suffix == ".safetensors" else _from_npy(path)
    if values.ndim < 2 or 0 in values.shape or values.dtype not in CODES or not values.is_floating_point():
        raise UserError(
            f"array {str(path)!r} has shape {tuple(values.shape)} of {values.dtype}: give floats of shape (row, d) in "
            "16, 32 or 64 bits"
        )
    return values.flatten(1)


def _from_npy(path: Path) -> Tensor:
    try:
        loaded = np.load(path, mmap_mode="c", allow_pickle=False)
        return torch.from_numpy(loaded)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"array {str(path)!r} cannot be read ({error}): save it with numpy.save") from error


def _from_safetensors(path: Path, tensor: str | None) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            if tensor is None and len(names) != 1:
                raise UserError(
                    f"array {str(path)!r} holds {len(names)} tensors: name one; {nearest('', names)}"
                )
            chosen = names[0] if tensor is None else tensor
            if chosen not in names:
                raise UserError(f"tensor {chosen!r} is not in {str(path)!r}; {nearest(chosen, names)}")
            return file.get_tensor(chosen)
    except SafetensorError as error:
        raise UserError(f"array {str(path)!r} cannot be read ({error})") from error


def _labels(path: Path | None, n_rows: int) -> tuple[list[str], np.ndarray]:
    """(names of the labels, number of each row's label)."""
    if path is None:
        return [NO_LABEL], np.zeros(n_rows, np.int32)
    values = _read_labels(path)
    if len(values) != n_rows:
        raise UserError(
            f"labels {str(path)!r} has {len(values)} entries, the array {n_rows} rows: give one per row"
        )
    names, numbers = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    return [str(name) for name in names], numbers.astype(np.int32)


def _read_labels(path: Path) -> Sequence[Any]:
    try:
        if path.suffix == ".npy":
            return [str(value) for value in np.load(path, allow_pickle=False).ravel().tolist()]
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"labels {str(path)!r} cannot be read ({error}): give a .txt or .npy file") from error
