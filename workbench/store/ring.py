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

    Everything is allocated at the beginning: small pieces that come and go between large batches would leave
    holes in the heap, and the process would grow to twice the ring.

    Attributes:
        buffer: The slots, and one more at the end for what is written and not wanted (capacity + 1, width).
        spare: Number of that slot.
        n_free: Slots that hold nothing that is still wanted.
        loaded: Rows of the next window that are in their slots.
    """

    def __init__(self, capacity: int, width: int, dtype: torch.dtype) -> None:
        self.buffer, self.spare = torch.empty(capacity + 1, width, dtype=dtype), capacity
        self._free = torch.arange(
            capacity
        )  # a circle of slot numbers, in the order in which they became free
        self._first_free, self.n_free = 0, capacity
        self._next, self.loaded = torch.empty(capacity, dtype=torch.int64), 0
        self._order, self._n_order, self._served = torch.empty(capacity, dtype=torch.int64), 0, 0
        self._batch = torch.empty(0, width, dtype=dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.buffer.nbytes

    @property
    def remaining(self) -> int:
        """Rows of the present window that have not been served."""
        return self._n_order - self._served

    def reserve(self, n_rows: int) -> Int64[Tensor, " slot"]:
        """Free slots for the next rows of the next window; the caller writes them into `buffer` at once."""
        slots = self._next[self.loaded : self.loaded + n_rows]
        first, capacity = self._first_free, len(self._free)
        until_end = min(n_rows, capacity - first)
        slots[:until_end] = self._free[first : first + until_end]
        slots[until_end:] = self._free[: n_rows - until_end]
        self._first_free = (first + n_rows) % capacity
        self.n_free, self.loaded = self.n_free - n_rows, self.loaded + n_rows
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
        self.skip(self.remaining)
        order = torch.randperm(self.loaded, generator=generator)
        torch.index_select(self._next[: self.loaded], 0, order, out=self._order[: self.loaded])
        self._n_order, self._served, self.loaded = self.loaded, 0, 0

    def again(self, generator: torch.Generator) -> None:
        """Serve the rows of the present window, all of which were kept, in another order."""
        order = torch.randperm(self._n_order, generator=generator)
        whole = self._order[: self._n_order].sort().values
        torch.index_select(whole, 0, order, out=self._order[: self._n_order])
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
        if dtype is None or dtype == self.buffer.dtype:
            rows = torch.index_select(self.buffer, 0, slots)
        else:
            if len(self._batch) < n_rows:
                self._batch = torch.empty(n_rows, self.buffer.shape[1], dtype=self.buffer.dtype)
            rows = torch.index_select(self.buffer, 0, slots, out=self._batch[:n_rows]).to(dtype)
        self.skip(n_rows, keep=keep)
        return rows

    def _release(self, slots: Int64[Tensor, " slot"]) -> None:
        """Put slots at the end of the circle of free ones."""
        capacity = len(self._free)
        first = (self._first_free + self.n_free) % capacity
        until_end = min(len(slots), capacity - first)
        self._free[first : first + until_end] = slots[:until_end]
        self._free[: len(slots) - until_end] = slots[until_end:]
        self.n_free += len(slots)
