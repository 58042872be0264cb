"""A store whose rows say where they came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.store import ActivationStore, Origin, Rows, RowShard, StoreWriter

HOOK = "blocks.0.hook_resid_post"
D = 6
N_CTX = 9


def row_shard(index: int, n_blocks: int = 10, *, first_document: int = 0) -> RowShard:
    """Blocks of `N_CTX` tokens with a document change every 30 tokens."""
    flat = np.arange(n_blocks * N_CTX, dtype=np.int32) + 1000 * index
    kept = np.ones((n_blocks, N_CTX), bool)
    kept[:, 0] = False
    document = (np.arange(len(flat)) // 30 + first_document).astype(np.int32)
    names = tuple(f"doc{i}" for i in range(first_document, int(document[-1]) + 1))
    rows = Rows(flat, np.arange(n_blocks + 1, dtype=np.int64) * N_CTX, kept.ravel(), document)
    return RowShard(rows, names, {"beginning-of-text tokens": n_blocks})


def values(shard: RowShard, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Per row its token id, its document, its position, and a few fixed numbers."""
    of, rows = shard.rows.token_of_row, shard.rows
    columns = [rows.tokens[of], rows.document[of], rows.pos_of_token[of]]
    base = torch.from_numpy(np.stack(columns, 1).astype(np.float32))
    return torch.cat([base, base.sin()], 1).to(dtype)


def writer(root: Path, *, part: str | None = None, hook: str = HOOK, **changes: object) -> StoreWriter:
    rows = Origin({"text": {"kind": "made up"}, "n_ctx": N_CTX, "d_vocab": 70_000}, {"source": "made up"})
    made = {"model_hash": "m", "hook": hook, "dtype": "float32", **changes}
    return StoreWriter(root, rows, {hook: Origin(made, {"model": "tiny"})}, part=part)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ActivationStore]:
    """Makes stores of some shards in `tmp_path/name`."""

    def made(n_shards: int = 4, *, n_blocks: int = 10, name: str = "a") -> ActivationStore:
        out, first = writer(tmp_path / name), 0
        for index in range(n_shards):
            shard = row_shard(index, n_blocks, first_document=first)
            first += len(shard.documents)
            out.add(index, shard, {HOOK: values(shard)})
        out.mark(complete=True, exhausted=True)
        return ActivationStore.open(tmp_path / name / HOOK)

    return made
