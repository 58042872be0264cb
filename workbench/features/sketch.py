"""The best few records of every group of a stream, exactly and in bounded memory.

Records pass a threshold per group (the worst key that a full group holds), wait in a buffer and are merged
by one sort when the buffer is full: no Python loop over groups, and late in the stream almost every record
is refused by the threshold alone. The result does not depend on how the stream is cut into pieces.

Two sketches in a row give examples without overlap: what the first gives up is what the second is offered.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, Shaped, UInt64

BUFFER_RECORDS = 1 << 18


class BestPerGroup:
    """Keeps, for each of `n_groups` groups, the `capacity` records with the largest keys.

    Keys are unsigned, above zero, and different within a group. Memory: 8 bytes a group, plus at most
    n_groups · capacity records and a buffer of the same size or `BUFFER_RECORDS`.
    """

    def __init__(self, n_groups: int, capacity: int, dtype: np.dtype) -> None:
        self.capacity = capacity
        self._threshold = np.zeros(n_groups, np.uint64)
        self._group = np.empty(0, np.int64)
        self._key = np.empty(0, np.uint64)
        self._records = np.empty(0, dtype)
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._n_waiting = 0

    def offer(
        self,
        group: Int64[np.ndarray, " n"],
        key: UInt64[np.ndarray, " n"],
        records: Shaped[np.ndarray, " n"],
    ) -> Shaped[np.ndarray, " lost"]:
        """Offer records; returns those that are certainly not among the best, old ones included."""
        if self.capacity == 0:
            return records
        passes = key > self._threshold[group]
        self._waiting.append((group[passes], key[passes], records[passes]))
        self._n_waiting += int(passes.sum())
        lost = records[~passes]
        if self._n_waiting > max(BUFFER_RECORDS, len(self._key)):
            lost = np.concatenate([lost, self._merge()])
        return lost

    def finish(self) -> Shaped[np.ndarray, " lost"]:
        """Settle what waits; returns the last losers. Afterwards `best` is exact."""
        return self._merge()

    def best(self) -> tuple[Int64[np.ndarray, " kept"], Shaped[np.ndarray, " kept"]]:
        """Groups and records kept, ordered by group, largest key first; call `finish` before."""
        return self._group, self._records

    def _merge(self) -> Shaped[np.ndarray, " lost"]:
        """Sort kept and waiting records together, keep the best, raise the thresholds of full groups."""
        group = np.concatenate([self._group, *(w[0] for w in self._waiting)])
        key = np.concatenate([self._key, *(w[1] for w in self._waiting)])
        records = np.concatenate([self._records, *(w[2] for w in self._waiting)])
        order = np.lexsort((~key, group))
        rank = rank_in_group(group[order])
        kept, lost = order[rank < self.capacity], order[rank >= self.capacity]
        self._group, self._key, self._records = group[kept], key[kept], records[kept]
        full = order[rank == self.capacity - 1]
        self._threshold[group[full]] = key[full]
        self._waiting, self._n_waiting = [], 0
        return records[lost]


def rank_in_group(group: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """0, 1, 2, ... within each run of equal values."""
    new = np.ones(len(group), bool)
    new[1:] = group[1:] != group[:-1]
    start = np.flatnonzero(new)
    return np.arange(len(group)) - np.repeat(start, np.diff(np.append(start, len(group))))
