"""A ring of rows: memory that is filled in one order and served in another, allocated once.

Window g of a stream of rows is served as a uniform permutation, batch by batch. The slots that a batch
frees take the first rows of window g + 1 at once, so that the ring is always full, nothing is ever moved
within it, and the work of loading is spread evenly over the batches. A row is copied into its slot and from
its slot into its batch: two copies, whatever the size of the ring.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.artifacts import sha256_json

Load = Callable[[int], Tensor]
"""The next rows of a window in the order of the stream, at most as many as asked for; none at its end."""


def seeded(*parts: int) -> torch.Generator:
    """A generator that depends on several integers."""
    return torch.Generator().manual_seed(int(sha256_json(list(parts))[:15], 16))


class Ring:
    """`capacity` slots of rows; serves one window while the next one is being loaded into freed slots.

    Attributes:
        buffer: The slots, and one more at the end for what is written and not wanted (capacity + 1, width).
        spare: Number of that slot.
    """

    def __init__(self, capacity: int, width: int, dtype: torch.dtype) -> None:
        self.buffer, self.spare = torch.empty(capacity + 1, width, dtype=dtype), capacity
        self._free = torch.arange(capacity)
        self._next: list[Int64[Tensor, " slot"]] = []
        self._order: Int64[Tensor, " slot"] = torch.empty(0, dtype=torch.int64)
        self._served = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.buffer.nbytes

    @property
    def remaining(self) -> int:
        """Rows of the present window that have not been served."""
        return len(self._order) - self._served

    @property
    def loaded(self) -> int:
        """Rows of the next window that are in their slots."""
        return sum(len(slots) for slots in self._next)

    @property
    def n_free(self) -> int:
        """Slots that hold nothing that is still wanted."""
        return len(self._free)

    def reserve(self, n_rows: int) -> Int64[Tensor, " slot"]:
        """Free slots for the next rows of the next window; the caller writes them into `buffer`."""
        slots, self._free = self._free[:n_rows], self._free[n_rows:]
        self._next.append(slots)
        return slots

    def load(self, n_rows: int, load: Load) -> None:
        """Put up to `n_rows` further rows of the next window into free slots."""
        wanted = min(n_rows, self.n_free)
        while wanted > 0:
            rows = load(wanted)
            if not len(rows):
                return
            self.buffer.index_copy_(0, self.reserve(len(rows)), rows)
            wanted -= len(rows)

    def begin(self, generator: torch.Generator) -> None:
        """Serve what has been loaded, in random order; rows of the present window that are left are dropped."""
        self._release(self._order[self._served :])
        slots = torch.cat(self._next) if self._next else torch.empty(0, dtype=torch.int64)
        self._order = slots[torch.randperm(len(slots), generator=generator)]
        self._next, self._served = [], 0

    def again(self, generator: torch.Generator, slots: Int64[Tensor, " slot"]) -> None:
        """Serve the same rows in another order (a window that holds the whole stream)."""
        self._order = slots[torch.randperm(len(slots), generator=generator)]
        self._served = 0

    def skip(self, n_rows: int, *, keep: bool = False) -> None:
        """Go past rows of the present window without serving them."""
        if not keep:
            self._release(self._order[self._served : self._served + n_rows])
        self._served += n_rows

    def take(
        self, n_rows: int, dtype: torch.dtype | None = None, *, keep: bool = False
    ) -> Float[Tensor, "row d"]:
        """The next rows of the present window; their slots become free unless they are kept."""
        slots = self._order[self._served : self._served + n_rows]
        rows = torch.index_select(self.buffer, 0, slots)
        self.skip(n_rows, keep=keep)
        return rows if dtype is None else rows.to(dtype)

    def _release(self, slots: Int64[Tensor, " slot"]) -> None:
        if len(slots):
            self._free = torch.cat([self._free, slots])
