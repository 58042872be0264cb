"""A tiny random model, and a run folder with its activations and a dictionary trained on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.stores import write_store
from workbench.hooks import capture_forward
from workbench.models import model_hash

HOOK = "blocks.0.hook_resid_post"
N_CTX = 16


@pytest.fixture(scope="session")
def model():
    """Two layers of width 16, random weights, no tokenizer."""
    from transformer_lens.model_bridge import TransformerBridge

    config = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 32, "d_vocab": 13}
    bridge = TransformerBridge.boot_native({**config, "n_ctx": N_CTX, "act_fn": "gelu", "seed": 0})
    bridge.eval().requires_grad_(False)
    return bridge


@pytest.fixture
def tokens() -> Tensor:
    """Forty blocks, each starting with token 0."""
    ids = torch.randint(1, 13, (40, N_CTX), generator=torch.Generator().manual_seed(3), dtype=torch.int32)
    ids[:, 0] = 0
    return ids


@pytest.fixture
def run(tmp_path: Path, model, tokens) -> Path:
    """A run folder with the model's activations on the blocks."""
    x = capture_forward(model, tokens.long(), [HOOK])[HOOK][:, 1:].flatten(0, 1)
    write_store(tmp_path, HOOK, x, tokens=tokens, model_hash=model_hash(model), about={"model": "tiny"})
    return tmp_path
