"""Capture: run a model over text and write the activations of chosen hook points into stores.

One forward per batch serves all hooks and stops after the deepest. The beginning-of-text position of each
block is left out (its activations are the model's, not the text's) and counted in the description.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from workbench.errors import UserError, nearest
from workbench.hooks import capture_forward, check_context, check_hook, self_check
from workbench.models import EMBEDDED, load_model, model_hash
from workbench.progress import Progress
from workbench.store import ActivationStore, Shard, StoreError, StoreWriter
from workbench.text import STDLIB, Blocks, pack

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
DEFAULT_HOOK = "blocks.2.hook_resid_post"
BLOCKS_PER_SHARD = 256


def store_folder(run: Path, hook: str) -> Path:
    """Where a run keeps the activations of `hook`."""
    return run / "activations" / hook


def open_store(run: Path, hook: str | None = None) -> ActivationStore:
    """The store of `hook`, or the run's only one.

    Raises:
        UserError: there is none, there are several and no hook was named, or it is damaged or incomplete.
    """
    made = sorted(p.parent.name for p in (run / "activations").glob("*/manifest.json"))
    if hook is None and len(made) == 1:
        hook = made[0]
    if hook is None or hook not in made:
        what = (
            f"hook {hook!r} was not captured in run {str(run)!r}"
            if hook
            else f"run {str(run)!r}: name a hook"
        )
        raise UserError(
            f"{what}; captured: {', '.join(made)}" if made else f"run {str(run)!r}: capture first"
        )
    try:
        return ActivationStore.open(store_folder(run, hook))
    except StoreError as error:
        raise UserError(str(error)) from error


def capture(
    run: Path,
    *,
    model: str = EMBEDDED,
    hooks: Sequence[str] = (DEFAULT_HOOK,),
    text: str = STDLIB,
    n_tokens: int = 510_000,
    n_ctx: int = 256,
    dtype: str = "bfloat16",
    batch_blocks: int = 16,
    seed: int = 0,
    device: str | None = None,
) -> dict[str, ActivationStore]:
    """Capture activations into `run/activations/<hook>/`.

    Args:
        run: Run folder; made if missing.
        model: `"embedded"`, a Hugging Face directory, or a hub name.
        hooks: TransformerLens hook-point names whose activations are (batch, pos, ...).
        text: `"stdlib"`, `"stdlib-heldout"`, or a path or glob of UTF-8 files.
        n_tokens: Text tokens to capture; rounded up to whole blocks.
        n_ctx: Block length in tokens, the beginning-of-text token included.
        dtype: `"bfloat16"` or `"float32"` on disk.
        batch_blocks: Blocks per forward.
        seed: Order of the documents.
        device: Torch device.

    Returns:
        A complete store per hook. A store that exists already is returned as it is; an interrupted one continues.

    Raises:
        UserError: an unknown hook, model, text or dtype, a context longer than the model's, or a store in the
            way that was made from something else.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not a storage type; {nearest(dtype, DTYPES)}")
    if n_tokens < 1 or batch_blocks < 1 or not hooks:
        raise UserError(
            f"n_tokens {n_tokens} and batch_blocks {batch_blocks} must be at least 1, and hooks not empty"
        )
    bridge = load_model(model, device=device)
    names = [check_hook(bridge, name) for name in hooks]
    check_context(bridge, n_ctx)
    blocks = pack(bridge.tokenizer, text, n_tokens=n_tokens, n_ctx=n_ctx, seed=seed)
    probe = blocks.tokens[:1, : min(n_ctx, 32)].long().to(bridge.cfg.device)
    self_check(bridge, probe, names)
    try:
        writers = {name: _writer(run, bridge, model, name, blocks, dtype) for name in names}
        _write_missing(bridge, blocks, writers, DTYPES[dtype], batch_blocks)
        return {name: writer.finish() for name, writer in writers.items()}
    except StoreError as error:
        raise UserError(str(error)) from error


def _writer(
    run: Path, bridge: TransformerBridge, model: str, hook: str, blocks: Blocks, dtype: str
) -> StoreWriter:
    n_blocks, n_ctx = blocks.tokens.shape
    description = {
        "model": model,
        "model_hash": model_hash(bridge),
        "hook": hook,
        "text": blocks.description,
        "n_ctx": n_ctx,
        "n_blocks": n_blocks,
        "dtype": dtype,
        "left_out": {"beginning-of-text positions": n_blocks},
    }
    return StoreWriter(store_folder(run, hook), description, blocks.documents)


def _write_missing(
    bridge: TransformerBridge,
    blocks: Blocks,
    writers: dict[str, StoreWriter],
    dtype: torch.dtype,
    batch_blocks: int,
) -> None:
    """Capture the shards that some writer still lacks."""
    n_blocks, n_ctx = blocks.tokens.shape
    todo = [w.n_shards for w in writers.values() if not w.complete]
    first = min(todo, default=n_blocks)
    done = min(first * BLOCKS_PER_SHARD, n_blocks) * (n_ctx - 1)
    with Progress(n_blocks * (n_ctx - 1), "capturing", "tokens", done=done) as progress:
        for start in range(first * BLOCKS_PER_SHARD, n_blocks, BLOCKS_PER_SHARD):
            lacking = [name for name, w in writers.items() if w.n_shards == start // BLOCKS_PER_SHARD]
            tokens = blocks.tokens[start : start + BLOCKS_PER_SHARD]
            document = blocks.document[start : start + BLOCKS_PER_SHARD]
            kept = _forward_shard(bridge, tokens, lacking, dtype, batch_blocks, progress)
            for name in lacking:
                writers[name].append(_shard(kept[name], tokens, document))


def _forward_shard(
    bridge: TransformerBridge,
    tokens: Int32[Tensor, "block pos"],
    names: list[str],
    dtype: torch.dtype,
    batch_blocks: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Activations (block, pos - 1, d) of one shard's blocks per hook, on the CPU in the stored dtype."""
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    for ids in tokens.long().split(batch_blocks):
        seen = capture_forward(bridge, ids.to(bridge.cfg.device), names)
        for name in names:
            kept[name].append(_rows(name, seen[name], ids.shape).to("cpu", dtype))
        progress.advance(ids[:, 1:].numel())
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _rows(name: str, value: Tensor, shape: torch.Size) -> Float[Tensor, "block pos d"]:
    """One vector per position (heads side by side), the first position left out."""
    if value.shape[:2] != shape or value.ndim not in (3, 4):
        raise UserError(
            f"hook {name!r} gives {tuple(value.shape)}, not one vector per token: choose another hook"
        )
    return value[:, 1:].flatten(2)


def _shard(
    rows: Float[Tensor, "block pos1 d"],
    tokens: Int32[Tensor, "block pos"],
    document: Int32[Tensor, "block pos"],
) -> Shard:
    n_blocks, width = rows.shape[:2]
    block = torch.arange(n_blocks, dtype=torch.int32).repeat_interleave(width)
    pos = torch.arange(1, width + 1, dtype=torch.int32).repeat(n_blocks)
    return Shard(rows.flatten(0, 1), tokens, block, pos, document[:, 1:].flatten())
