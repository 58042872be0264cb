"""Tiny models, each loaded once for all tests of the room; a test that changes one makes its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models_on_disk import architecture_model

RESIDUAL = ["hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z"]
MLP = ["mlp.hook_in", "mlp.hook_out", "mlp.hook_pre", "mlp.hook_post"]
CORE = ["hook_embed", *(f"blocks.{layer}.{name}" for layer in (0, 2) for name in RESIDUAL + MLP)]


def core_hooks(model: Any) -> list[str]:
    """The hooks that harvesting wants most; with `hook_resid_mid` where the architecture has it."""
    return [*CORE, *(name for name in ("blocks.1.hook_resid_mid",) if name in model.hook_dict)]


def some_ids(model: Any, rows: int = 2, pos: int = 20) -> Tensor:
    """Random tokens, past the special ones."""
    return torch.randint(5, int(model.cfg.d_vocab), (rows, pos))


def hook_counts(model: Any) -> dict[str, tuple[int, int, int]]:
    """Per module of the bridge and of the model inside: forward hooks, hooks before it, TransformerLens' own."""
    modules = {f"bridge.{n}": m for n, m in model.named_modules()}
    modules |= {f"inside.{n}": m for n, m in model.original_model.named_modules()}
    counts = {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in modules.items()}
    return {n: (*count, len(getattr(modules[n], "fwd_hooks", []))) for n, count in counts.items()}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an architecture's model; empty until the model was asked for."""
    return cache(lambda architecture: tmp_path_factory.mktemp(architecture))


@pytest.fixture(scope="session")
def model_of(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """The bridge of an architecture, loaded on first use."""
    return cache(lambda architecture: architecture_model(folder_of(architecture), architecture))
