"""The store beside the plainest way to move the same bytes: `dd` for writing, one pass of `np.memmap` for reading.

    python tests/benchmarks/bench_store.py [--rows 1048576] [--d-model 768] [--repeats 3]

Writing: shards of bfloat16 rows with row index, moments, SHA-256 and fsync, one shard prepared while the other
is written as in a capture, against `dd conv=fsync` of random bytes of the same number. Reading: shuffled
float32 batches of 2048 rows at windows from 32k to 1M rows, from the page cache, against a pass of np.memmap
that copies every row once; and both again with the files dropped from the page cache. Memory: resident bytes
beyond those before the reader was made, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

from workbench.capture.pipeline import Behind
from workbench.store import ActivationStore, Origin, Rows, RowShard, StoreWriter
from workbench.store.files import read_header

HOOK, N_CTX, PER_SHARD, BATCH = "blocks.6.hook_resid_post", 257, 65_536, 2048
MEMORY = """
import sys
from itertools import islice
from pathlib import Path
from workbench.store import ActivationStore
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))) / 1024
store = ActivationStore.open(Path(sys.argv[1]))
before = resident()
reader, peak = store.reader(2048, window_rows=int(sys.argv[2])), 0.0
for number, _ in enumerate(islice(reader, int(sys.argv[3]))):
    peak = max(peak, resident() if number % 20 == 0 else 0.0)
print(f"{reader.plan.window_size(0) * store.row_bytes / 2**20:.0f} {peak - before:.0f}")
"""


def row_shard(index: int) -> RowShard:
    tokens = np.random.default_rng(index).integers(0, 50_257, PER_SHARD // 256 * N_CTX).astype(np.int32)
    kept = np.ones((len(tokens) // N_CTX, N_CTX), bool)
    kept[:, 0] = False
    offsets = np.arange(len(kept) + 1, dtype=np.int64) * N_CTX
    return RowShard(
        Rows(tokens, offsets, kept.ravel(), np.full(len(tokens), index, np.int32)), [f"document {index}"]
    )


def write_store(root: Path, n_shards: int, rows: list[torch.Tensor]) -> float:
    """Seconds to write a store."""
    index = [row_shard(i) for i in range(n_shards)]
    origin = Origin({"d_vocab": 50_257, "n_ctx": N_CTX})
    start = time.perf_counter()
    writer = StoreWriter(root, origin, {HOOK: Origin({"hook": HOOK, "dtype": "bfloat16"})})
    with Behind() as behind:
        for i in range(n_shards):
            behind.submit(lambda i=i: writer.add(i, index[i], {HOOK: rows[i % len(rows)]}))
    writer.mark(complete=True)
    return time.perf_counter() - start


def dd(source: Path, target: Path) -> float:
    """Seconds of `dd` with one fsync at the end."""
    start = time.perf_counter()
    command = ["dd", f"if={source}", f"of={target}", "bs=8M", "conv=fsync", "status=none"]
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def writing(scratch: Path, n_shards: int, d_model: int, repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(PER_SHARD, d_model, generator=generator).bfloat16() for _ in range(2)]
    total = n_shards * rows[0].nbytes
    source = Path("/dev/shm") / f"bench-{os.getpid()}"
    with source.open("wb") as file:
        for i in range(n_shards):
            file.write(rows[i % 2].view(torch.uint8).numpy().data)
    taken: dict[str, list[float]] = {"dd": [], "store": []}
    try:
        for _ in range(repeats):
            taken["dd"].append(dd(source, scratch / "dd"))
            (scratch / "dd").unlink()
            os.sync()
            shutil.rmtree(scratch / "store", ignore_errors=True)
            taken["store"].append(write_store(scratch / "store", n_shards, rows))
            os.sync()
    finally:
        source.unlink()
    base = median(taken["dd"])
    print(f"write {total / 1e9:.2f} GB: dd conv=fsync {total / base / 1e6:,.0f} MB/s", end=", ")
    ours = median(taken["store"])
    print(f"store {total / ours / 1e6:,.0f} MB/s ({base / ours:.0%})")


def drop(store: ActivationStore) -> None:
    """Out of the page cache with the store's files."""
    for path, _ in store.files():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memmap_pass(store: ActivationStore, *, convert: bool = False) -> None:
    """Every row copied once, in order; on request into float32, as training takes it."""
    target = np.empty((BATCH, store.d_model), np.uint32 if convert else np.uint16)
    for entry in store.entries:
        path = store.folder / entry["file"]
        place = read_header(path)["activations"]
        rows = np.memmap(path, np.uint16, "r", place.offset, place.shape)
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            target[: len(part)] = part
            if convert:
                np.left_shift(target, 16, out=target)  # the bits of float32


def shuffled_pass(store: ActivationStore, window: int) -> Callable[[], int]:
    """A function that reads one pass of batches."""
    reader = store.reader(BATCH, seed=0, window_rows=window)

    def run() -> int:
        return sum(len(batch) for batch in islice(reader, reader.plan.batches_per_pass))

    return run


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def reading(store: ActivationStore, repeats: int) -> None:
    passes = {window: shuffled_pass(store, window) for window in (1 << 15, 1 << 17, 1 << 19, 1 << 20)}
    taken: dict[object, list[float]] = {"memmap": [], "converted": [], **{window: [] for window in passes}}
    for _ in range(repeats):
        taken["converted"].append(timed(lambda: memmap_pass(store, convert=True)))
        taken["memmap"].append(timed(lambda: memmap_pass(store)))
        for window, run in passes.items():
            taken[window].append(timed(run))
    base = median(taken["converted"])
    print(f"page cache: np.memmap in order {store.n_rows / median(taken['memmap']):,.0f} rows/s", end=", ")
    print(f"converted to float32 {store.n_rows / base:,.0f} rows/s")
    for window in passes:
        rate = store.n_rows / median(taken[window])
        print(
            f"  shuffled, window {window:>9,}: {rate:,.0f} rows/s ({base / median(taken[window]):.0%} of the latter)"
        )


def cold(store: ActivationStore, repeats: int) -> None:
    taken: dict[str, list[float]] = {"memmap": [], "shuffled": []}
    for _ in range(repeats):
        drop(store)
        taken["memmap"].append(timed(lambda: memmap_pass(store)))
        run = shuffled_pass(store, 1 << 17)
        drop(store)
        taken["shuffled"].append(timed(run))
    base, ours = median(taken["memmap"]), median(taken["shuffled"])
    megabytes = store.n_rows * store.row_bytes / 1e6
    print(
        f"from disk: np.memmap {megabytes / base:,.0f} MB/s, shuffled {megabytes / ours:,.0f} MB/s ({base / ours:.0%})"
    )


def memory(store: ActivationStore) -> None:
    for window in (1 << 15, 1 << 18, 1 << 20):
        words = [sys.executable, "-c", MEMORY, str(store.folder), str(window), str(store.n_rows // BATCH)]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        print(f"memory, window {window:>9,}: {told[0]} MB of rows, {told[1]} MB resident")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1 << 20)
    parser.add_argument("--d-model", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        writing(Path(temporary), given.rows // PER_SHARD, given.d_model, given.repeats)
        store = ActivationStore.open(Path(temporary) / "store" / HOOK)
        reading(store, given.repeats)
        cold(store, given.repeats)
        memory(store)


if __name__ == "__main__":
    main()
