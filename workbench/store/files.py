"""Shard files: safetensors, written once and atomically, mapped for reading, checked in two depths.

A file is an eight-byte length, a JSON header and the tensors' bytes, as the safetensors format says, so
that any tool of the field opens it; tensors start at multiples of 64 bytes, so that a mapping is aligned.
The SHA-256 is taken while the bytes are on their way to the disk. The fast check compares size and header,
the full check the SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from workbench.artifacts import atomic_file
from workbench.store.errors import StoreError

PIECE_BYTES = 8 << 20
ALIGNMENT = 64
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U16": torch.uint16,
    "U8": torch.uint8,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Written:
    """A file that was written: its size and the SHA-256 of its bytes."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file: byte offset, dtype and shape."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, not copied."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    """Length and JSON header, padded so that the data starts at a multiple of `ALIGNMENT`."""
    entries, start = {}, 0
    for name, tensor in tensors.items():
        stop = start + tensor.numel() * tensor.itemsize
        entries[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _pieces(
    tensors: Mapping[str, Tensor], rest: Callable[[], object] | None = None
) -> Iterator[memoryview | bytes]:
    yield _header(tensors)
    for number, tensor in enumerate(tensors.values()):
        if number == 1 and rest is not None:
            rest()
        data = bytes_of(tensor)
        yield from (data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, rest: Callable[[], object] | None = None
) -> Written:
    """Write contiguous CPU tensors to `path`, whole or not at all, and wait until the disk has them.

    Args:
        path: The file.
        tensors: In the order of the file.
        rest: Called when the first tensor has been handed over and before the others are read, which may
            therefore be computed while the first one is being written.
    """
    with atomic_file(path) as temporary, temporary.open("wb", buffering=0) as file:
        written = _write(file, tensors, rest)
        os.fsync(file.fileno())
    return written


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the file that these tensors would make."""
    digest = hashlib.sha256()
    for piece in _pieces(tensors):
        digest.update(piece)
    return digest.hexdigest()


def _write(file: BinaryIO, tensors: Mapping[str, Tensor], rest: Callable[[], object] | None) -> Written:
    """Write and digest at the same time, the digest on a thread of its own."""
    digest, size = hashlib.sha256(), 0
    with ThreadPoolExecutor(1) as hasher:
        pending = []
        for piece in _pieces(tensors, rest):
            pending.append(hasher.submit(digest.update, piece))
            write_all(file.write, piece)
            size += len(piece)
        for done in pending:
            done.result()
    return Written(size, digest.hexdigest())


def write_all(write: Callable[[memoryview], int], data: memoryview | bytes) -> None:
    """Write all of `data`: one call may write less of it, on a disk that is nearly full for instance."""
    left = memoryview(data)
    while len(left):
        left = left[write(left) :]


def read_header(path: Path) -> dict[str, Place]:
    """The tensors of a file by name.

    Raises:
        StoreError: the file is missing, or its header or its size is not that of a whole file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            if not 0 < length <= size - 8:
                raise ValueError("length of the header")
            entries: dict[str, Any] = json.loads(file.read(length))
        places = {
            name: _place(entry, 8 + length) for name, entry in entries.items() if name != "__metadata__"
        }
    except FileNotFoundError as error:
        raise StoreError(
            f"shard {str(path)!r} is missing: `workbench store repair` makes it again"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, "its header cannot be read") from error
    end = max((p.offset + _size(p) for p in places.values()), default=8 + length)
    if end != size:
        raise damaged(path, f"it has {size:,} bytes, its header says {end:,}")
    return places


def damaged(path: Path, reason: str) -> StoreError:
    """The refusal of a shard."""
    return StoreError(f"shard {str(path)!r} is damaged ({reason}): `workbench store repair` makes it again")


def _place(entry: Mapping[str, Any], start: int) -> Place:
    return Place(start + entry["data_offsets"][0], DTYPES[entry["dtype"]], tuple(entry["shape"]))


def _size(place: Place) -> int:
    return int(np.prod(place.shape, dtype=np.int64)) * place.dtype.itemsize


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file as views of a private memory mapping: nothing is read before it is touched.

    Writing into such a tensor changes memory only, never the file.

    Raises:
        StoreError: as `read_header`.
    """
    places = read_header(path)
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return {name: _view(mapping, place) for name, place in places.items()}


def _view(mapping: mmap.mmap, place: Place) -> Tensor:
    count = int(np.prod(place.shape, dtype=np.int64))
    if count == 0:
        return torch.zeros(place.shape, dtype=place.dtype)
    return torch.frombuffer(mapping, dtype=place.dtype, count=count, offset=place.offset).reshape(place.shape)
