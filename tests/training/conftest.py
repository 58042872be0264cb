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

from tests.stores import write_store

HOOK = "blocks.0.hook_resid_post"
N_CTX = 101


@dataclass(frozen=True)
class Planted:
    """A run folder with activations, and the directions they are made of (feature, d)."""

    run: Path
    features: Tensor


def write_planted(run: Path, rows: Tensor, *, name: str = "planted", n_shards: int = 2) -> None:
    """A complete store of float32 rows, as blocks of `N_CTX` made-up tokens."""
    n_blocks = len(rows) // (N_CTX - 1)
    tokens = torch.zeros(n_blocks, N_CTX, dtype=torch.int32)
    kept = rows[: n_blocks * (N_CTX - 1)]
    write_store(run, HOOK, kept, tokens=tokens, blocks_per_shard=-(-n_blocks // n_shards), array=name)


def make_planted(
    run: Path, *, n_rows=20_000, n_features=64, d=32, n_active=3, shuffled=False, seed=0
) -> Planted:
    """A planted run in a folder; its generator never draws what a training with a small seed starts from."""
    generator = torch.Generator().manual_seed(77_000 + seed)
    features = torch.nn.functional.normalize(torch.randn(n_features, d, generator=generator), dim=1)
    chosen = torch.rand(n_rows, n_features, generator=generator).topk(n_active).indices
    magnitudes = torch.rand(n_rows, n_active, generator=generator) + 0.5
    codes = torch.zeros(n_rows, n_features).scatter(1, chosen, magnitudes)
    rows = codes @ features + torch.randn(d, generator=generator)
    if shuffled:
        rows = torch.stack([column[torch.randperm(n_rows, generator=generator)] for column in rows.T], dim=1)
    write_planted(run, rows, name=f"{seed} {shuffled}")
    return Planted(run, features)


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., Planted]:
    """Makes planted runs; see the module."""
    return lambda *, name="run", **options: make_planted(tmp_path / name, **options)
