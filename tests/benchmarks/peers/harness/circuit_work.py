"""One piece of work of a circuit tool, repeated and measured inside the tool's own environment.

A harness defines classes of `Work` and calls `serve` with them by name; `do` of the task, the JSON of the first
argument, chooses. The process loads what the task names and then answers JSON lines on standard input with one JSON
line each on standard output:

    {"do": "run"}                -> {"seconds": s, "cpu_seconds": c, "before_bytes": b, "peak_rss_bytes": p}
    {"do": "save", "path": p}    -> {}        what the last run found, as safetensors

The clocks and the memory are of `run` alone. `before_bytes` is resident before it, with model and inputs loaded and
the allocator's free pages given back; `peak_rss_bytes` is the high-water mark of resident memory during it, all of
the process counted (Linux; both 0 elsewhere).
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from serving import channel, resident, settle  # isort: skip
import torch
from safetensors.torch import save_file
from torch import Tensor


class Work(Protocol):
    """What a harness measures."""

    package: str

    def __init__(self, task: SimpleNamespace) -> None:
        """Load everything that is not to be measured."""

    def run(self) -> Any:
        """The work, by the tool's own functions."""

    def tensors(self, found: Any) -> dict[str, Tensor]:
        """What it found, in the form that the harness describes."""


class Worker:
    """The work and the answers to the commands."""

    def __init__(self, work: Work) -> None:
        self.work, self.found = work, None

    def run(self) -> dict[str, float]:
        self.found, before = None, settle()
        if before:
            Path("/proc/self/clear_refs").write_text("5")
        wall, cpu = time.perf_counter(), time.process_time()
        self.found = self.work.run()
        taken = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        return {**taken, "before_bytes": before, "peak_rss_bytes": resident("VmHWM")}

    def save(self, path: str) -> dict[str, float]:
        found = self.work.tensors(self.found)
        save_file({name: t.detach().contiguous() for name, t in found.items()}, path)
        return {}


def serve(kinds: Mapping[str, type[Work]]) -> None:
    """Answer commands until standard input ends."""
    task = SimpleNamespace(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    worker = Worker(kinds[task.do](task))
    packages = ("torch", "transformer-lens", worker.work.package)
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps(versions), file=channel, flush=True)
    for line in sys.stdin:
        words = json.loads(line)
        answer = getattr(worker, words.pop("do"))(**words)
        print(json.dumps(answer), file=channel, flush=True)
