"""Whole captures of models of other families, made on the spot, saved, and loaded back without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models_on_disk import architecture_dir, native_model
from workbench.capture import capture
from workbench.errors import UserError
from workbench.models import load_model

HOOKS = {
    "llama": [
        "blocks.0.hook_resid_pre",
        "blocks.1.attn.hook_z",
        "blocks.1.hook_mlp_out",
        "blocks.2.hook_resid_post",
    ],
    "gemma2": ["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out", "blocks.2.hook_resid_post"],
    "gemma3": ["blocks.1.hook_attn_out", "blocks.2.hook_resid_post"],
    "neox": ["blocks.1.attn.hook_z", "blocks.2.hook_resid_post"],
    "qwen3": ["blocks.1.attn.hook_z", "blocks.2.hook_resid_post"],
}


@pytest.mark.parametrize("architecture", HOOKS)
def test_decoders(tmp_path: Path, architecture: str) -> None:
    folder = architecture_dir(tmp_path / architecture, architecture)
    text = tmp_path / "text.txt"
    text.write_text("def add(a, b):\n    return a + b\n\n" * 100)
    hooks = HOOKS[architecture]
    stores = capture(
        tmp_path / "run",
        model=str(folder),
        text=str(text),
        hooks=hooks,
        n_tokens=300,
        n_ctx=32,
        dtype="float32",
    )
    model = load_model(folder)
    shard = stores[hooks[0]].shard(0)
    _, cache = model.run_with_cache(shard.tokens.long(), names_filter=hooks)
    for hook in hooks:
        expected = cache[hook].flatten(2)[shard.block.long(), shard.pos.long()]
        found = stores[hook].activations(0)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert stores[hook].description["path"] == "plain"


def test_an_encoder_with_padded_batches(tmp_path: Path) -> None:
    """Sentences of different length share batches; each row is what the sentence alone gives."""
    folder = architecture_dir(tmp_path / "bert", "bert")
    text = tmp_path / "text.jsonl"
    words = ["the quick brown fox", "jumps", "over the lazy dog and runs far away from here", "why not so"]
    text.write_text("".join(f'{{"text": "{w} {w[:i]}"}}\n' for i, w in enumerate(words * 6)))
    hooks = ["blocks.1.hook_resid_post", "blocks.2.hook_mlp_out"]
    stores = capture(
        tmp_path / "run", model=str(folder), text=str(text), hooks=hooks, n_tokens=2000, n_ctx=60,
        layout="documents", leave_out=["special"], dtype="float32", batch_tokens=240,
    )  # fmt: skip
    model = load_model(folder)
    for hook in hooks:
        shard = stores[hook].shard(0)
        assert len(set(shard.length.tolist())) > 5
        for block in range(len(shard.tokens)):
            ids = shard.tokens[block, : int(shard.length[block])].long()[None]
            _, cache = model.run_with_cache(ids, names_filter=[hook])
            here = shard.block == block
            expected = cache[hook][0][shard.pos[here].long()]
            torch.testing.assert_close(shard.activations[here], expected, atol=2e-5, rtol=1e-4)


def test_attention_patterns_on_request(tmp_path: Path) -> None:
    """A row is one query's attention to all keys at every head; it sums to one per head."""
    folder = architecture_dir(tmp_path / "gpt2", "gpt2")
    text = tmp_path / "text.txt"
    text.write_text("def add(a, b):\n    return a + b\n\n" * 100)
    hook = "blocks.1.attn.hook_pattern"
    store = capture(
        tmp_path / "run",
        model=str(folder),
        text=str(text),
        hooks=[hook],
        n_tokens=200,
        n_ctx=16,
        dtype="float32",
    )[hook]
    shard, model = store.shard(0), load_model(folder)
    rows = shard.activations.unflatten(1, (-1, 16))
    torch.testing.assert_close(rows.sum(2), torch.ones(rows.shape[:2]))
    _, cache = model.run_with_cache(shard.tokens.long(), names_filter=[hook])
    expected = cache[hook][shard.block.long(), :, shard.pos.long()]
    torch.testing.assert_close(rows, expected, atol=1e-6, rtol=0)


def test_the_model_over_several_devices(tmp_path: Path) -> None:
    folder = architecture_dir(tmp_path / "llama", "llama")
    text = tmp_path / "text.txt"
    text.write_text("def add(a, b):\n    return a + b\n\n" * 50)
    options = {
        "model": str(folder),
        "text": str(text),
        "hooks": HOOKS["llama"][-1:],
        "n_tokens": 100,
        "n_ctx": 32,
    }
    one = capture(tmp_path / "one", **options)  # type: ignore[arg-type]
    spread = capture(tmp_path / "spread", device_map="auto", **options)  # type: ignore[arg-type]
    assert [s.hash for s in one.values()] == [s.hash for s in spread.values()]


def test_a_native_model_that_is_loaded_already(tmp_path: Path) -> None:
    """TransformerLens' own transformer: no directory, no tokenizer, token ids as text."""
    model = native_model()
    ids = torch.randint(1, 64, (20, 16), generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "ids.npy", ids.numpy().astype(np.int32))
    hooks = ["blocks.0.attn.hook_z", "blocks.2.hook_resid_post"]
    options = {
        "text": str(tmp_path / "ids.npy"),
        "n_ctx": 16,
        "leave_out": (),
        "dtype": "float32",
        "model": "toy",
    }
    stores = capture(tmp_path / "run", hooks=hooks, n_tokens=320, bridge=model, **options)  # type: ignore[arg-type]
    shard = stores[hooks[0]].shard(0)
    assert sorted(shard.tokens.tolist()) == sorted(ids.tolist())
    _, cache = model.run_with_cache(shard.tokens.long(), names_filter=hooks)
    for hook in hooks:
        expected = cache[hook].flatten(2).flatten(0, 1)
        torch.testing.assert_close(stores[hook].activations(0), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="needs a tokenizer and this model has none"):
        capture(tmp_path / "other", hooks=hooks, bridge=model, text="stdlib", n_ctx=16)
