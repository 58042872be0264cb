"""ActivationStore: activations of one hook point on disk, with the tokens they belong to.

A store is a folder of safetensors shards and a manifest. The manifest is rewritten atomically after each
shard, so a killed capture leaves a valid, incomplete store which the same capture continues. Each shard's
SHA-256 stands in the manifest and is checked before its rows are first used.

Shuffled reading: shards are put in a seeded order, taken a window at a time, and the rows of a window are
permuted; batch `i` is a pure function of (seed, i), so a reader resumes from one integer. With no more
shards than a window holds, the shuffle is a uniform permutation of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int32
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.artifacts import atomic_file, read_json, sha256_file, sha256_json, write_json

MANIFEST = "manifest.json"
WINDOW_SHARDS = 16


class StoreError(ValueError):
    """A store that is missing, incomplete, damaged, or made from something else."""


@dataclass(frozen=True)
class Shard:
    """Whole blocks of text with the activations of their positions 1 to n_ctx-1, in order.

    Attributes:
        activations: In the stored dtype (row, d_model).
        tokens: Token ids of the blocks (block, pos); position 0 is the beginning-of-text token.
        block: Row of `tokens` that each activation belongs to (row).
        pos: Position in the block (row).
        document: Index into `ActivationStore.documents` of each row's text (row).
    """

    activations: Float[Tensor, "row d_model"]
    tokens: Int32[Tensor, "block pos"]
    block: Int32[Tensor, " row"]
    pos: Int32[Tensor, " row"]
    document: Int32[Tensor, " row"]


class ActivationStore:
    """Reading side of a store; `StoreWriter` is the writing side."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.description: dict[str, Any] = manifest["description"]
        self.hash: str = manifest["hash"]
        self.documents: list[str] = manifest["documents"]
        self.n_ctx: int = self.description["n_ctx"]
        self.d_model: int = manifest["d_model"]
        self.dtype: torch.dtype = getattr(torch, self.description["dtype"])
        self._checked: set[str] = set()

    @classmethod
    def open(cls, folder: Path) -> ActivationStore:
        """Open a complete store.

        Raises:
            StoreError: there is none, or its capture was interrupted.
        """
        manifest = read_manifest(folder)
        if manifest is None:
            raise StoreError(f"no activation store in {str(folder)!r}: capture first")
        if not manifest["complete"]:
            raise StoreError(
                f"the capture in {str(folder)!r} was interrupted: the same capture command continues it"
            )
        return cls(folder, manifest)

    @property
    def n_rows(self) -> int:
        """Number of activations."""
        return sum(shard["rows"] for shard in self.manifest["shards"])

    def shard(self, index: int) -> Shard:
        """One shard, its checksum verified the first time.

        Raises:
            StoreError: the file's bytes are not those that were written.
        """
        entry = self.manifest["shards"][index]
        self._check(entry)
        return Shard(**load_file(self.folder / entry["file"]))

    def shards(self) -> Iterator[Shard]:
        """All shards in the order of the text."""
        return (self.shard(index) for index in range(len(self.manifest["shards"])))

    def verify(self) -> None:
        """Check every shard's SHA-256; raises StoreError naming the first damaged file."""
        self._checked.clear()
        for entry in self.manifest["shards"]:
            self._check(entry)

    def _check(self, entry: dict[str, Any]) -> None:
        path = self.folder / entry["file"]
        if entry["file"] in self._checked:
            return
        if not path.exists() or sha256_file(path) != entry["sha256"]:
            state = "damaged" if path.exists() else "missing"
            raise StoreError(f"shard {str(path)!r} is {state}: delete the folder and capture again")
        self._checked.add(entry["file"])

    def batches(
        self, batch_size: int, *, seed: int, start: int = 0, window_shards: int = WINDOW_SHARDS
    ) -> Iterator[Float[Tensor, "row d_model"]]:
        """Endless shuffled float32 batches (batch_size, d_model), from batch `start` on.

        Batch i depends on (seed, i) only. In each pass a window's last rows that do not fill a batch are left out.

        Raises:
            StoreError: a window holds fewer rows than one batch.
        """
        epoch, index = 0, start
        while True:
            windows = self._windows(epoch, seed, window_shards)
            per_window = [sum(self.manifest["shards"][i]["rows"] for i in w) // batch_size for w in windows]
            if min(per_window) == 0:
                raise StoreError(
                    f"batch_size {batch_size} is larger than a window of the store ({self.n_rows} rows)"
                )
            for number, (window, n_batches) in enumerate(zip(windows, per_window, strict=True)):
                if index < n_batches:
                    yield from self._window_batches(
                        window, batch_size, (seed, epoch, number), index, n_batches
                    )
                index = max(0, index - n_batches)
            epoch += 1

    def _windows(self, epoch: int, seed: int, size: int) -> list[list[int]]:
        """Shard indices in this pass's order, `size` at a time (the last window is joined if it is small)."""
        generator = torch.Generator().manual_seed(_mix(seed, epoch, -1))
        order = torch.randperm(len(self.manifest["shards"]), generator=generator).tolist()
        windows = [order[i : i + size] for i in range(0, len(order), size)]
        if len(windows) > 1 and len(windows[-1]) < size // 2:
            windows[-2] += windows.pop()
        return windows

    def _window_batches(
        self, window: list[int], batch_size: int, key: tuple[int, int, int], first: int, n_batches: int
    ) -> Iterator[Tensor]:
        rows = torch.cat([self.shard(i).activations for i in window])
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_mix(*key)))
        for index in range(first, n_batches):
            yield rows[order[index * batch_size : (index + 1) * batch_size]].float()


def _mix(*parts: int) -> int:
    """A generator seed from several integers."""
    return int(sha256_json(list(parts))[:15], 16)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a store, complete or not; None where there is none."""
    path = folder / MANIFEST
    return read_json(path) if path.exists() else None


class StoreWriter:
    """Appends shards to a store; continues an interrupted one if it was made from the same things."""

    def __init__(self, folder: Path, description: dict[str, Any], documents: list[str]) -> None:
        self.folder, self.description = folder, description
        manifest = read_manifest(folder)
        if manifest is not None:
            _refuse_other(folder, manifest["description"], description)
        self.manifest: dict[str, Any] = manifest or {
            "format": 1,
            "hash": sha256_json(description),
            "description": description,
            "d_model": None,
            "complete": False,
            "documents": documents,
            "shards": [],
        }

    @property
    def n_shards(self) -> int:
        """Shards already written."""
        return len(self.manifest["shards"])

    @property
    def complete(self) -> bool:
        """Whether the capture has finished."""
        return bool(self.manifest["complete"])

    def append(self, shard: Shard) -> None:
        """Write one shard, then the manifest that names it."""
        name = f"shard-{self.n_shards:05d}.safetensors"
        with atomic_file(self.folder / name) as temporary:
            save_file({k: v.contiguous() for k, v in vars(shard).items()}, temporary)
            entry = {"file": name, "rows": len(shard.activations), "sha256": sha256_file(temporary)}
        self.manifest["d_model"] = shard.activations.shape[1]
        self.manifest["shards"].append(entry)
        write_json(self.folder / MANIFEST, self.manifest)

    def finish(self) -> ActivationStore:
        """Mark the store complete and open it."""
        self.manifest["complete"] = True
        write_json(self.folder / MANIFEST, self.manifest)
        return ActivationStore.open(self.folder)


def _refuse_other(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to add to a store of another model, text, hook or option, naming the field that differs."""
    for key in {**found, **wanted}:
        if found.get(key) != wanted.get(key):
            raise StoreError(
                f"the store in {str(folder)!r} was made with another {key} ({found.get(key)!r}, not "
                f"{wanted.get(key)!r}): use another run folder or delete it"
            )
