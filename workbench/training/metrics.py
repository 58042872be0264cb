"""The training log as a Parquet file that is always whole: rewritten atomically, never more than 1% of the time.

Rows that are in the file already are kept as columns, so that a write converts only the new ones. A write
takes longer the longer the log is (about 0.1 s at 200,000 rows); the next one is put off accordingly.

    step, tokens, loss, part_<name> ..., fvu, explained_variance, l0, dead_frac, grad_norm, lr, tokens_per_s, wait_frac

Which parts there are depends on the architecture; a part that a row does not have is null in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.artifacts import atomic_file

INTERVAL_S = 3.0
SHARE = 0.01
PART = "part_"


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One row of the log: what one step measured on its own batch.

    Attributes:
        step: Steps done, this one included.
        tokens: Tokens trained on, with repetitions.
        loss: The minimised loss.
        parts: Its parts before their weights, by name.
        fvu: Fraction of the batch's variance left unexplained.
        explained_variance: 1 - variance of the error over that of the target.
        l0: Mean number of positive latents per token.
        dead_frac: Latents silent for longer than the limit.
        grad_norm: Length of all gradients as one vector, before clipping and projection.
        lr: Learning rate of the step.
        tokens_per_s: Rate since the row before.
        wait_frac: Share of that time spent waiting for data.
    """

    step: int
    tokens: int
    loss: float
    parts: Mapping[str, float] = field(default_factory=dict)
    fvu: float
    explained_variance: float
    l0: float
    dead_frac: float
    grad_norm: float
    lr: float
    tokens_per_s: float
    wait_frac: float

    def row(self) -> dict[str, float | int]:
        """The columns of the log with their values."""
        values = asdict(self)
        parts = {PART + name: value for name, value in values.pop("parts").items()}
        first = {name: values.pop(name) for name in ("step", "tokens", "loss")}
        return {**first, **parts, **values}


class MetricsLog:
    """Rows in memory and on disk; opening at step n forgets the rows of later steps."""

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        self.path, self._new, self._table = path, [], None
        self._next_write = time.monotonic() + INTERVAL_S
        if after_step and path.exists():
            self._table = pq.read_table(path, filters=[("step", "<=", after_step)])

    def add(self, row: Metrics) -> None:
        """Append a row; the file follows within a few seconds."""
        self._new.append(row.row())
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write the file now."""
        started = time.monotonic()
        if self._new:
            self._table = joined(self._table, self._new)
            self._new = []
        if self._table is not None:
            with atomic_file(self.path) as temporary:
                pq.write_table(self._table, temporary, use_dictionary=False)
        ended = time.monotonic()
        self._next_write = ended + max(INTERVAL_S, (ended - started) / SHARE)


def joined(table: pa.Table | None, rows: list[dict[str, float | int]]) -> pa.Table:
    """A table with further rows; columns that one of the two has not are null there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {"step": pa.int64(), "tokens": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in names])
    new = pa.Table.from_pylist(rows, schema=schema)
    return (
        new if table is None else pa.concat_tables([table, new], promote_options="default").combine_chunks()
    )
