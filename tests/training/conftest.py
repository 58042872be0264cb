"""Planted sparse features: activations whose true directions are known, as a captured run folder.

Rows are sums of exactly `n_active` of `n_features` random unit directions with magnitudes uniform on
0.5 to 1.5, plus a constant offset. The control shuffles each coordinate independently: every marginal is
kept, no feature is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from workbench.store import Shard, StoreWriter

HOOK = "blocks.0.hook_resid_post"
N_CTX = 101


@dataclass(frozen=True)
class Planted:
    """A run folder with activations, and the directions they are made of (feature, d)."""

    run: Path
    features: Tensor


def write_store(folder: Path, rows: Tensor, *, name: str = "planted", n_shards: int = 2) -> None:
    """A complete store of float32 rows, as blocks of `N_CTX` made-up tokens."""
    description = {"model": None, "hook": HOOK, "text": {"source": name}, "n_ctx": N_CTX, "dtype": "float32"}
    writer = StoreWriter(folder / "activations" / HOOK, description, ["planted"])
    width = N_CTX - 1
    for part in rows[: len(rows) // width * width].split(-(-len(rows) // (n_shards * width)) * width):
        n_blocks = len(part) // width
        block = torch.arange(n_blocks, dtype=torch.int32).repeat_interleave(width)
        pos = torch.arange(1, N_CTX, dtype=torch.int32).repeat(n_blocks)
        tokens = torch.zeros(n_blocks, N_CTX, dtype=torch.int32)
        writer.append(Shard(part.contiguous(), tokens, block, pos, torch.zeros(len(part), dtype=torch.int32)))
    writer.finish()


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., Planted]:
    """Makes planted runs; see the module."""

    def make(
        *, n_rows=20_000, n_features=64, d=32, n_active=3, shuffled=False, seed=0, name="run"
    ) -> Planted:
        generator = torch.Generator().manual_seed(seed)
        features = torch.nn.functional.normalize(torch.randn(n_features, d, generator=generator), dim=1)
        chosen = torch.rand(n_rows, n_features, generator=generator).topk(n_active).indices
        magnitudes = torch.rand(n_rows, n_active, generator=generator) + 0.5
        codes = torch.zeros(n_rows, n_features).scatter(1, chosen, magnitudes)
        rows = codes @ features + torch.randn(d, generator=generator)
        if shuffled:
            rows = torch.stack(
                [column[torch.randperm(n_rows, generator=generator)] for column in rows.T], dim=1
            )
        write_store(tmp_path / name, rows, name=f"{seed} {shuffled}")
        return Planted(tmp_path / name, features)

    return make
