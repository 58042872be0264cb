"""Sixteen dictionaries on one stream against sixteen trainings one after another.

    python tests/benchmarks/bench_sweep.py [--members 16] [--tokens 65536] [--threads 2]

Three streams: rows of a store on disk, and rows that the embedded model computes while it is trained on them
(with small and with larger dictionaries). What is shared is what a stream costs; the work on the members
themselves is the same in both, one thread each instead of all threads for one.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from workbench.capture import LiveStore, import_array
from workbench.capture.options import CaptureOptions
from workbench.training import train
from workbench.training.sweep import grid, sweep

HOOK = "blocks.2.hook_resid_post"


def timed(function: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(
    name: str, run: Path, n: int, open_stream: Callable[[], LiveStore | None], **common: object
) -> None:
    """One line of the table: both ways in turns on the same rows."""
    members = grid(start_seed=list(range(n)))

    def one_after_another() -> None:
        for member in members.values():
            shutil.rmtree(run / "dictionary", ignore_errors=True)
            train(run, store=open_stream(), **common, **member)

    def together() -> None:
        shutil.rmtree(run / "dictionaries", ignore_errors=True)
        sweep(run, members, store=open_stream(), **common)

    alone, stacked = timed(one_after_another), timed(together)
    print(f"{name:34} {alone:8.1f} {stacked:8.1f} {stacked / alone:7.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    options = {"n_tokens": given.tokens, "batch_size": 1024, "k": 16}
    print(f"{given.members} dictionaries, {given.tokens} tokens each, {given.threads} threads")
    print(f"{'stream':34} {'alone s':>8} {'stack s':>8} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "array"
        rows = torch.randn(given.tokens, 256, generator=torch.Generator().manual_seed(0))
        np.save(Path(folder) / "rows.npy", rows.numpy())
        import_array(run, Path(folder) / "rows.npy")
        compare("disk, d 256, d_sae 512", run, given.members, lambda: None, d_sae=512, **options)
        compare("disk, d 256, d_sae 4096", run, given.members, lambda: None, d_sae=4096, **options)
        live = Path(folder) / "live"

        def opened() -> LiveStore:
            return LiveStore(CaptureOptions(hooks=[HOOK]), capacity_rows=16_384)

        compare("embedded model, d 256, d_sae 512", live, given.members, opened, d_sae=512, **options)
        compare("embedded model, d 256, d_sae 4096", live, given.members, opened, d_sae=4096, **options)


if __name__ == "__main__":
    main()
