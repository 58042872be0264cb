"""The training log as a Parquet file that is always whole: rewritten atomically every few seconds."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.artifacts import atomic_file

SCHEMA = pa.schema(
    [("step", pa.int64()), ("tokens", pa.int64())]
    + [(n, pa.float64()) for n in ("loss", "fvu", "l0", "dead_frac", "aux_loss", "lr", "tokens_per_s")]
)
INTERVAL_S = 3.0


@dataclass(frozen=True)
class Metrics:
    """One row of the log: what one step measured on its own batch.

    Attributes:
        step: Steps done, this one included.
        tokens: Tokens trained on, with repetitions.
        loss: The minimised loss.
        fvu: Fraction of the batch's variance left unexplained.
        l0: Mean number of positive latents per token.
        dead_frac: Latents silent for longer than the limit.
        aux_loss: Auxiliary loss before its weight.
        lr: Learning rate of the step.
        tokens_per_s: Rate since the row before.
    """

    step: int
    tokens: int
    loss: float
    fvu: float
    l0: float
    dead_frac: float
    aux_loss: float
    lr: float
    tokens_per_s: float


class MetricsLog:
    """Rows in memory and on disk; opening at step n forgets the rows of later steps."""

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        self.path, self._written = path, time.monotonic()
        kept = pq.read_table(path).to_pylist() if after_step and path.exists() else []
        self.rows = [Metrics(**row) for row in kept if row["step"] <= after_step]

    def add(self, row: Metrics) -> None:
        """Append a row; the file follows within a few seconds."""
        self.rows.append(row)
        if time.monotonic() - self._written >= INTERVAL_S:
            self.write()

    def write(self) -> None:
        """Write the file now."""
        with atomic_file(self.path) as temporary:
            pq.write_table(pa.Table.from_pylist([asdict(row) for row in self.rows], schema=SCHEMA), temporary)
        self._written = time.monotonic()
