"""Activations on disk: shards with checksums, a shared row index, shuffled reading that resumes exactly."""

from workbench.store.errors import StoreError
from workbench.store.lock import writing
from workbench.store.moments import Moments, merge_moments, moments, norm_edges
from workbench.store.ring import Ring
from workbench.store.rows import Rows
from workbench.store.shuffle import Reader
from workbench.store.store import ActivationStore, Shard
from workbench.store.writer import ROWS, Origin, RowShard, StoreWriter

__all__ = [
    "ROWS",
    "ActivationStore",
    "Moments",
    "Origin",
    "Reader",
    "Ring",
    "RowShard",
    "Rows",
    "Shard",
    "StoreError",
    "StoreWriter",
    "merge_moments",
    "moments",
    "norm_edges",
    "writing",
]
