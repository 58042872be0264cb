"""Mean, variance and norms of a store's rows, kept per shard and merged in float64.

Each shard carries its count, mean and sum of squared deviations per coordinate, and a histogram of its rows'
norms. Those of several shards merge exactly in this sense: the mean and variance are what one two-pass
computation over all rows in float64 gives, up to rounding (Chan, Golub, LeVeque 1979); a norm's quantile is
known to within its bin, half a bin's width being 1.1% of the norm. Stored in the shard they are checked and
re-made with it: 16 bytes a coordinate and 8 kB, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

CHUNK_BYTES = (
    768 << 10
)  # stays in the second-level cache, and in the heap: a mapping per chunk would cost its pages
BINS_PER_OCTAVE = 32
LOWEST_OCTAVE = -16
N_BINS = 32 * BINS_PER_OCTAVE


def norm_edges() -> Float64[np.ndarray, " edge"]:
    """Edges of the norm histogram; the first bin also holds smaller norms and the last larger ones."""
    return 2.0 ** (LOWEST_OCTAVE + np.arange(N_BINS + 1) / BINS_PER_OCTAVE)


def _bins(norms: Float64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
    with np.errstate(divide="ignore"):
        place = np.floor((np.log2(norms) - LOWEST_OCTAVE) * BINS_PER_OCTAVE)
    return np.clip(np.nan_to_num(place, neginf=0), 0, N_BINS - 1).astype(np.int64)


@dataclass(frozen=True)
class Moments:
    """First and second moments of rows.

    Attributes:
        count: Number of rows.
        mean: Per coordinate (d).
        m2: Sum of squared deviations from the mean, per coordinate (d).
        norm_counts: Rows per bin of `norm_edges`.
        max_norm: Largest norm of a row.
    """

    count: int
    mean: Float64[np.ndarray, " d"]
    m2: Float64[np.ndarray, " d"]
    norm_counts: Int64[np.ndarray, " bin"]
    max_norm: float

    @property
    def variance(self) -> Float64[np.ndarray, " d"]:
        """Population variance per coordinate."""
        return self.m2 / max(self.count, 1)

    @property
    def mean_squared_norm(self) -> float:
        """Mean over rows of the squared norm."""
        return float((self.variance + self.mean**2).sum())

    def norm_quantile(self, q: float) -> float:
        """The norm below which a share `q` of the rows lies, to within its bin (±1.1%)."""
        if not 0 <= q <= 1 or self.count == 0:
            return float("nan")
        bin_ = int(np.searchsorted(np.cumsum(self.norm_counts), max(q * self.count, 1.0)))
        low, high = norm_edges()[bin_ : bin_ + 2].tolist()
        return min((low * high) ** 0.5, self.max_norm)

    def to_tensors(self) -> dict[str, Tensor]:
        """As they are stored in a shard."""
        return {
            "mean": torch.from_numpy(self.mean),
            "m2": torch.from_numpy(self.m2),
            "norm_counts": torch.from_numpy(self.norm_counts),
            "max_norm": torch.tensor([self.max_norm], dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """As `to_tensors` gave them."""
        counts = tensors["norm_counts"].numpy().copy()
        mean, m2 = (tensors[name].numpy().copy() for name in ("mean", "m2"))
        return cls(int(counts.sum()), mean, m2, counts, float(tensors["max_norm"]))


def _float64(rows: Tensor) -> np.ndarray:
    """Rows in float64 by numpy alone: torch's threads belong to the model's forward pass."""
    if rows.dtype == torch.bfloat16:
        return (rows.view(torch.uint16).numpy().astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return rows.numpy().astype(np.float64)


def moments(rows: Float[Tensor, "row d"]) -> Moments:
    """Moments of rows of any float dtype, two passes in float64 per few hundred rows, then merged."""
    if not len(rows):
        return empty_moments(rows.shape[1])
    chunk_rows = max(1, CHUNK_BYTES // (8 * rows.shape[1]))
    return merge_moments([_chunk(_float64(part)) for part in rows.split(chunk_rows)])


def empty_moments(d: int) -> Moments:
    """Moments of no rows."""
    return Moments(0, np.zeros(d), np.zeros(d), np.zeros(N_BINS, np.int64), 0.0)


def _chunk(wide: np.ndarray) -> Moments:
    """Moments of rows that are overwritten; not finite where a row is not."""
    squares = np.einsum("rd,rd->r", wide, wide)
    norms = np.sqrt(squares)
    if not np.isfinite(norms).all():
        return replace(empty_moments(wide.shape[1]), count=len(wide), max_norm=float("nan"))
    mean = wide.mean(0)
    wide -= mean
    counts = np.bincount(_bins(norms), minlength=N_BINS)
    return Moments(len(wide), mean, np.einsum("rd,rd->d", wide, wide), counts, float(norms.max()))


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Moments of all rows together."""
    first, *rest = parts
    for other in rest:
        count = first.count + other.count
        gap, share = other.mean - first.mean, other.count / max(count, 1)
        m2 = first.m2 + other.m2 + gap**2 * (first.count * share)
        counts = first.norm_counts + other.norm_counts
        largest = float(np.maximum(first.max_norm, other.max_norm))  # NaN wins
        first = Moments(count, first.mean + gap * share, m2, counts, largest)
    return first
