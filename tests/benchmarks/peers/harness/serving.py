"""The side of the comparison that runs inside a tool's own environment: it imports torch and nothing of the workbench.

A harness defines `build(rows, task)` and calls `serve(build)`. The process then answers JSON lines on standard
input with one JSON line each on standard output:

    {"do": "train", "steps": n}    -> {"wall": [...], "cpu": [...]}   milliseconds of each of the next n batches
    {"do": "watch"}                -> {}                              the peak of memory starts again from here
    {"do": "memory"}               -> {"peak_bytes": b or null}       see below
    {"do": "export", "path": p}    -> {"difference": x}               ReLU(topk(x W_enc + b_enc)) W_dec + b_dec

Whatever the tool itself prints goes to standard error. `difference` is between the tool's own reconstruction of
held-out rows and that of the exported weights, over the largest value: it says that the export is the same function.

Memory is counted from outside, since no counter inside sees all of torch, MKL and compiled loops: the kernel's
high-water mark of resident pages during the watched steps, less what was resident before the trainer was made
(after a small one of the same kind had been made, run and dropped, so that libraries and compiled code are in
place), less the bytes of parameters, gradients (one per parameter) and optimiser state. Linux with glibc only: it
is asked in a process whose allocator gives every block back at once (`MALLOC_MMAP_THRESHOLD_`), or freed blocks
that the allocator keeps would be counted too; that process is not timed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import struct
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # a tool's own prints must not look like answers

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SAMPLE_ROWS, SMALL = 32_768, {"d_sae": 512, "batch": 256, "steps": 100}


class Tool(Protocol):
    """One trainer under measurement."""

    def step(self, x: Tensor) -> None:
        """A full training step on one batch, optimiser and constraints included."""

    def state(self) -> Iterable[Tensor]:
        """The tensors of the optimiser that outlive a step."""

    def parameters(self) -> Iterable[Tensor]:
        """The trained tensors."""

    def weights(self) -> dict[str, Tensor]:
        """`W_enc`, `b_enc`, `W_dec`, `b_dec` of the trained dictionary, any centring and scale folded in."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """The tool's own reconstruction of raw rows."""


class Rows:
    """Rows of one float32 tensor of a safetensors file, read with plain reads so that no page stays mapped."""

    def __init__(self, path: Path, name: str) -> None:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            entry = json.loads(file.read(length))[name]
        assert entry["dtype"] == "F32"
        self.path, (self.n_rows, self.width) = path, entry["shape"]
        self._start = 8 + length + entry["data_offsets"][0]

    def batch(self, number: int, n_rows: int) -> Tensor:
        """A copy of the batch of that number, `n_rows` rows; from the first again after the last whole one."""
        n_rows = min(n_rows, self.n_rows)
        start = number % (self.n_rows // n_rows) * n_rows
        buffer = bytearray(n_rows * self.width * 4)
        with self.path.open("rb") as file:
            file.seek(self._start + start * self.width * 4)
            file.readinto(buffer)
        return torch.frombuffer(buffer, dtype=torch.float32).reshape(n_rows, self.width)


def resident(field: str = "VmRSS") -> int:
    """Resident bytes now, or their high-water mark (`VmHWM`); 0 where there is no /proc."""
    if not Path("/proc/self/status").exists():
        return 0
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def settle() -> int:
    """Resident bytes after garbage and the allocator's unused pages have gone back."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()


def reconstruction(weights: dict[str, Tensor], x: Tensor, k: int) -> Tensor:
    """ReLU of the k largest of x W_enc + b_enc, times W_dec, plus b_dec."""
    top = (x @ weights["W_enc"] + weights["b_enc"]).topk(k, dim=1)
    z = torch.zeros(len(x), len(weights["b_enc"])).scatter(1, top.indices, top.values.relu())
    return z @ weights["W_dec"] + weights["b_dec"]


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each storage once."""
    return sum(
        {t.untyped_storage().data_ptr(): t.numel() * t.element_size() for t in tensors if t.numel()}.values()
    )


class Server:
    """The tool, its position in the data, and the answers to the commands."""

    def __init__(self, build: Callable[[Tensor, Any], Tool], task: dict[str, Any]) -> None:
        self.task, self.done = SimpleNamespace(**task), 0
        self.rows = {name: Rows(Path(self.task.data), name) for name in ("train", "held_out")}
        torch.set_num_threads(self.task.threads)
        self._rehearse(build, SimpleNamespace(**{**task, **SMALL}))
        self.base = settle()
        self.tool = build(self.rows["train"].batch(0, SAMPLE_ROWS), self.task)

    def _rehearse(self, build: Callable[[Tensor, Any], Tool], small: SimpleNamespace) -> None:
        tool = build(self.rows["train"].batch(0, small.batch), small)
        for number in range(2):
            tool.step(self.rows["train"].batch(number, small.batch))

    def train(self, steps: int) -> dict[str, Any]:
        taken: dict[str, list[float]] = {name: [] for name in CLOCKS}
        for _ in range(steps):
            x = self.rows["train"].batch(self.done, self.task.batch)
            start = {name: clock() for name, clock in CLOCKS.items()}
            self.tool.step(x)
            for name, clock in CLOCKS.items():
                taken[name].append(1e3 * (clock() - start[name]))
            self.done += 1
        return taken

    def watch(self) -> dict[str, Any]:
        settle()
        Path("/proc/self/clear_refs").write_text("5") if resident() else None
        return {}

    def memory(self) -> dict[str, Any]:
        state = 2 * nbytes(self.tool.parameters()) + nbytes(self.tool.state())
        peak = resident("VmHWM") - self.base - state
        return {"peak_bytes": peak if resident() else None, "state_bytes": state}

    def export(self, path: str) -> dict[str, Any]:
        from safetensors.torch import save_file

        with torch.no_grad():
            weights = {name: t.detach().float().contiguous() for name, t in self.tool.weights().items()}
            x = self.rows["held_out"].batch(0, 256)
            own, ours = self.tool.reconstruct(x), reconstruction(weights, x, self.task.k)
        save_file(weights, path)
        return {"difference": float((own - ours).abs().max() / own.abs().max())}


def serve(build: Callable[[Tensor, Any], Tool]) -> None:
    """Answer commands until standard input ends; the task is the JSON of the first argument."""
    server = Server(build, json.loads(sys.argv[1]))
    print(json.dumps({"torch": torch.__version__}), file=channel, flush=True)
    for line in sys.stdin:
        words = json.loads(line)
        answer = getattr(server, words.pop("do"))(**words)
        print(json.dumps(answer), file=channel, flush=True)
