"""A tiny GPT-2 directory made in the test's folder: random weights, the embedded model's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from workbench.models import embedded_model_dir


def tiny_model_dir(folder: Path, *, seed: int = 0, n_ctx: int = 64) -> Path:
    """Two layers of width 32 over the embedded model's vocabulary."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=4096, n_positions=n_ctx, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded_model_dir() / name, folder / name)
    return folder
