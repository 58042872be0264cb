"""Capture to disk beside a hand-written forward hook that exits early and only fills a preallocated array.

    python tests/benchmarks/bench_capture.py [--layers 6] [--d-model 768] [--hook-layer 3] [--tokens 24576]

Both run the same GPT-2-shaped random-weight model over the same blocks. The baseline is the plain Hugging
Face model with one `register_forward_hook` that copies and raises. Ours tokenises nothing (the ids are given
as an array), but does the rest: row index, conversion, moments, SHA-256, fsync. Runs alternate; the ratio is
of medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from workbench.capture.engine import Engine
from workbench.capture.options import CaptureOptions
from workbench.capture.session import Session
from workbench.models import embedded_model_dir
from workbench.store import ActivationStore, StoreWriter

N_CTX, BATCH = 256, 16


class _Stop(Exception):  # noqa: N818
    pass


def make_model(folder: Path, layers: int, d_model: int) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": d_model, "n_layer": layers, "n_head": d_model // 64, "n_positions": N_CTX}
    config = GPT2Config(vocab_size=4096, bos_token_id=0, eos_token_id=0, **sizes)
    GPT2LMHeadModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded_model_dir() / name, folder / name)
    return folder


def baseline(folder: Path, ids: torch.Tensor, layer: int) -> tuple[Callable[[], None], torch.Tensor]:
    """(function that captures all ids, the array it fills)."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    array = torch.empty(ids.numel(), model.config.n_embd)
    place = [0]

    def hook(module: object, inputs: object, output: object) -> None:
        rows = (output[0] if isinstance(output, tuple) else output).flatten(0, 1)  # type: ignore[union-attr]
        array[place[0] : place[0] + len(rows)] = rows
        place[0] += len(rows)
        raise _Stop

    model.h[layer].register_forward_hook(hook)

    @torch.no_grad()
    def run() -> None:
        place[0] = 0
        for part in ids.split(BATCH):
            try:
                model(part)
            except _Stop:
                continue

    return run, array


def options(folder: Path, ids: Path, hooks: list[str], n_tokens: int, **changes: object) -> CaptureOptions:
    return CaptureOptions(
        model=str(folder), hooks=hooks, text=str(ids), n_tokens=n_tokens, n_ctx=N_CTX, leave_out=(),
        batch_tokens=BATCH * N_CTX, dtype="bfloat16", **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {
        "layers": 6,
        "d-model": 768,
        "hook-layer": 3,
        "tokens": 24_576,
        "repeats": 5,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        compare(Path(temporary), given)


def compare(scratch: Path, given: argparse.Namespace) -> None:
    folder = make_model(scratch / "model", given.layers, given.d_model)
    ids = np.random.default_rng(0).integers(1, 4096, (given.tokens // N_CTX, N_CTX)).astype(np.int32)
    np.save(scratch / "ids.npy", ids)
    hook = f"blocks.{given.hook_layer}.hook_resid_post"
    several = [f"blocks.{i}.hook_resid_post" for i in range(given.hook_layer + 1)]
    ways = {}
    for label, hooks in (("one hook to disk", [hook]), (f"{len(several)} hooks to disk", several)):
        made = options(folder, scratch / "ids.npy", hooks, ids.size)
        ways[label], session = ours(scratch / label.replace(" ", "-"), made)
    ordered = torch.from_numpy(np.stack([s.tokens for s in session.sequences])).long()
    ways["hand-written hook"], array = baseline(folder, ordered, given.hook_layer)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.repeats + 1):
        for name, run in ways.items():
            elapsed = seconds(run)
            if turn:
                taken[name].append(elapsed)
    base, one = median(taken["hand-written hook"]), median(taken["one hook to disk"])
    for name, times in taken.items():
        rate = ids.size / median(times)
        print(f"{name:20} {rate:10,.0f} tokens/s   {base / median(times):6.1%} of the hand-written hook")
    every = median(taken[f"{len(several)} hooks to disk"])
    print(f"{len(several)} hooks take {every / one:.3f} of the time of the deepest alone")
    store = ActivationStore.open(scratch / "one-hook-to-disk" / "activations" / hook)
    error = (store.take(range(store.n_rows)).float() - array).abs().max() / array.abs().max()  # type: ignore[attr-defined]
    print(f"largest difference of the rows: {float(error):.2g} of the largest value (bfloat16 keeps 2^-8)")
    n_bytes = sum(entry["bytes"] for entry in store.entries)
    index = sum(entry["bytes"] for entry in store.row_entries)
    whole = store.n_rows * store.row_bytes
    print(
        f"bytes on disk: {n_bytes / whole:.5f} x rows x d x 2; with the row index {(n_bytes + index) / whole:.5f}"
    )


def ours(run: Path, made: CaptureOptions) -> tuple[Callable[[], None], Session]:
    """A function that captures everything anew with a session that stays open, and the session."""
    engine = Engine(made)
    session = Session(made, engine)

    def capture() -> None:
        shutil.rmtree(run, ignore_errors=True)
        writer = StoreWriter(run / "activations", session.rows, engine.origins)
        with open(os.devnull, "w") as null, redirect_stdout(null):
            session.capture(writer)
        writer.merge()
        writer.mark(complete=True)

    return capture, session


if __name__ == "__main__":
    main()
