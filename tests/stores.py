"""Stores made of given rows, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from workbench.store import ActivationStore, Origin, Rows, RowShard, StoreWriter


def block_rows(tokens: Tensor, *, document: int = 0) -> Rows:
    """The row index of blocks (block, pos) whose first position has no row."""
    n_blocks, n_ctx = tokens.shape
    kept = np.ones((n_blocks, n_ctx), bool)
    kept[:, 0] = False
    flat = tokens.numpy().astype(np.int32).ravel()
    offsets = np.arange(n_blocks + 1, dtype=np.int64) * n_ctx
    return Rows(flat, offsets, kept.ravel(), np.full(len(flat), document, np.int32))


def write_store(
    run: Path,
    hook: str,
    rows: Tensor,
    *,
    tokens: Tensor,
    blocks_per_shard: int | None = None,
    documents: tuple[str, ...] = ("made up",),
    about: Mapping[str, Any] | None = None,
    **description: Any,
) -> ActivationStore:
    """A finished store in `run/activations/<hook>`: `rows` of the blocks `tokens`, the first position left out."""
    n_blocks, n_ctx = tokens.shape
    step = blocks_per_shard or n_blocks
    base = {"n_ctx": n_ctx, "d_vocab": int(tokens.max()) + 1, "text": {"kind": "made up"}}
    made = {
        "model_hash": None,
        "hook": hook,
        "dtype": str(rows.dtype).removeprefix("torch."),
        "precision": "float32",
        **description,
    }
    told = {"model": None, "source": "made up", **(about or {})}
    writer = StoreWriter(run / "activations", Origin(base), {hook: Origin(made, told)})
    for index, start in enumerate(range(0, n_blocks, step)):
        part = tokens[start : start + step]
        values = rows[start * (n_ctx - 1) : (start + len(part)) * (n_ctx - 1)].contiguous()
        shard = RowShard(
            block_rows(part), documents if index == 0 else (), {"beginning-of-text tokens": len(part)}
        )
        writer.add(index, shard, {hook: values})
    writer.mark(complete=True)
    return ActivationStore.open(run / "activations" / hook)
