"""Seeded orders that stay the same: over machines, over versions of the libraries, over runs.

Files are ordered by the hash of seed and name. Records are permuted with the raw output of PCG64, which
NumPy keeps fixed (it does not promise that for `Generator.permutation`). Where records can only be read
one after another, they are permuted within windows of at most 8192 records or 64 Mi characters: two
records further apart than a window never change places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int64

WINDOW_RECORDS = 8192
WINDOW_CHARACTERS = 1 << 26


@runtime_checkable
class _Named(Protocol):
    @property
    def name(self) -> str: ...


Item = TypeVar("Item")
NamedItem = TypeVar("NamedItem", bound=_Named)


def by_hash(items: Iterable[NamedItem], seed: int) -> list[NamedItem]:
    """The items ordered by the hash of seed and name; items of one name keep their order."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}|{item.name}".encode()).hexdigest())


def permutation(n: int, key: str) -> Int64[np.ndarray, " n"]:
    """The numbers 0 to n - 1 in an order that follows from `key` alone."""
    state = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
    raw = np.asarray(np.random.PCG64(state).random_raw(n), dtype=np.uint64)
    return np.argsort(raw, kind="stable").astype(np.int64)


def windowed(items: Iterable[Item], *, key: str, size: Callable[[Item], int]) -> Iterator[Item]:
    """The items, permuted within windows that are bounded in number and in size."""
    window: list[Item] = []
    held, number = 0, 0
    for item in items:
        window.append(item)
        held += size(item)
        if len(window) == WINDOW_RECORDS or held >= WINDOW_CHARACTERS:
            yield from (window[i] for i in permutation(len(window), f"{key}|{number}"))
            window, held, number = [], 0, number + 1
    yield from (window[i] for i in permutation(len(window), f"{key}|{number}"))
