"""Every sparse kernel beside the dense torch expression that it replaces, alternating in one run.

    python tests/benchmarks/bench_kernels.py [--threads 2] [--repeats 7] [--clock wall] [--sizes 0 1 2]

The tables in `workbench/kernels/*/README.md` are its output: least time of the repeats, dense / ours. `--clock cpu`
counts the processor time of all threads, which other programs on the machine disturb less; with one thread it
is what a quiet machine takes. The last lines are a training step without its optimiser, and its peak memory
beyond parameters and gradients as a share of half of a float32 (row, d_sae) matrix.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from workbench.kernels import (
    batch_topk_encode,
    decode_loss,
    group_max_encode,
    latent_sum,
    sparse_decode,
    threshold_encode,
    topk_encode,
)
from workbench.kernels.backend import backend

SIZES = [(2048, 512, 8192, 32), (2048, 256, 4096, 32), (4096, 768, 24576, 32)]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
ROOT = Path(__file__).resolve().parents[2]
Pairs = dict[str, tuple[Callable[[], object], Callable[[], object]]]


def least_times(pairs: Pairs, repeats: int, clock: Callable[[], float]) -> dict[str, tuple[float, float]]:
    """Least time of ours and of the dense expression, each run in turn."""
    found = {}
    for name, both in pairs.items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(repeats + 1):
            for function, taken in zip(both, times, strict=True):
                start = clock()
                function()
                if turn:
                    taken.append(1e3 * (clock() - start))
        found[name] = min(times[0]), min(times[1])
        ours, dense = found[name]
        print(f"| {name} | {ours:.1f} | {dense:.1f} | {dense / ours:.1f} |", flush=True)
    return found


class Batch:
    """Rows, a dictionary and a code of one size."""

    def __init__(self, n_rows: int, d_in: int, d_sae: int, k: int) -> None:
        torch.manual_seed(0)
        self.n_rows, self.d_sae, self.k = n_rows, d_sae, k
        self.x, self.grad = torch.randn(n_rows, d_in), torch.randn(n_rows, d_in)
        self.W_dec = functional.normalize(torch.randn(d_sae, d_in), dim=1)
        self.W_enc = self.W_dec.clone().T
        self.b_enc, self.b_dec = 0.1 * torch.randn(d_sae), 0.1 * torch.randn(d_in)
        self.threshold = torch.full((d_sae,), 2.6)
        self.indices, self.values = topk_encode(self.x, *self.encoder, k=k)
        self.dense = self.scattered(self.values)

    @property
    def encoder(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.W_enc, self.b_enc, self.b_dec

    def pre(self) -> Tensor:
        """All pre-activations."""
        return torch.addmm(self.b_enc, self.x - self.b_dec, self.W_enc)

    def scattered(self, values: Tensor) -> Tensor:
        return torch.zeros(self.n_rows, self.d_sae).scatter_(1, self.indices, values)


def dense_batch_topk(batch: Batch) -> Tensor:
    pre = batch.pre().relu_()
    top = pre.flatten().topk(batch.n_rows * batch.k, sorted=False)
    return torch.zeros_like(pre).view(-1).scatter_(0, top.indices, top.values)


def dense_group_max(batch: Batch) -> Tensor:
    top = batch.pre().view(batch.n_rows, batch.k, -1).max(2)
    return top.values.relu()


def encode_pairs(b: Batch) -> Pairs:
    """The selection rules, forward."""
    zero = torch.zeros(b.d_sae)
    return {
        "topk": (lambda: topk_encode(b.x, *b.encoder, k=b.k), lambda: b.pre().topk(b.k)),
        "batch_topk": (lambda: batch_topk_encode(b.x, *b.encoder, k=b.k), lambda: dense_batch_topk(b)),
        "group_max": (lambda: group_max_encode(b.x, *b.encoder, k=b.k), lambda: dense_group_max(b)),
        "threshold, 0.5% active": (
            lambda: threshold_encode(b.x, *b.encoder, threshold=b.threshold),
            lambda: functional.threshold(b.pre(), 2.6, 0.0),
        ),
        "threshold, half active (ReLU at the start)": (
            lambda: threshold_encode(b.x, *b.encoder, threshold=zero),
            lambda: b.pre().relu_(),
        ),
    }


def decode_pairs(b: Batch) -> Pairs:
    """Decoding, the loss, and the pieces of the backward."""
    module, prefixes = backend("sparse_decode", b.x), (b.d_sae // 8, b.d_sae // 2, b.d_sae)

    def dense_loss() -> Tensor:
        return (torch.addmm(b.b_dec, b.scattered(b.values), b.W_dec) - b.x).square().sum()

    def dense_prefixes() -> list[Tensor]:
        dense = b.scattered(b.values)
        return [(torch.addmm(b.b_dec, dense[:, :p], b.W_dec[:p]) - b.x).square().sum() for p in prefixes]

    return {
        "decode": (
            lambda: sparse_decode(b.indices, b.values, b.W_dec),
            lambda: b.scattered(b.values) @ b.W_dec,
        ),
        "decode and loss": (
            lambda: decode_loss(b.indices, b.values, b.W_dec, b.b_dec, b.x),
            dense_loss,
        ),
        "decode and loss, 3 prefixes": (
            lambda: decode_loss(b.indices, b.values, b.W_dec, b.b_dec, b.x, prefixes=prefixes),
            dense_prefixes,
        ),
        "gradients of values and decoder": (
            lambda: module.gradients(b.indices.clone(), b.values, b.grad, b.W_dec),  # sorted anew
            lambda: ((b.grad @ b.W_dec.T).mul_(b.dense > 0), b.dense.T @ b.grad),
        ),
        "gradient of the encoder (latent_sum)": (
            lambda: latent_sum(b.indices, b.values, b.x, b.d_sae),
            lambda: b.dense.T @ b.x,
        ),
    }


def step_functions(b: Batch) -> tuple[Callable[[], None], Callable[[], None], list[Tensor]]:
    """Forward and backward of a TopK dictionary: ours, dense, and the parameters of both."""
    parameters = [t.clone().requires_grad_() for t in (b.W_dec, b.b_enc, b.W_dec, b.b_dec)]
    W_rows, b_enc, W_dec, b_dec = parameters

    def ours() -> None:
        indices, values = topk_encode(b.x, W_rows.T, b_enc, b_dec, k=b.k)
        decode_loss(indices, values, W_dec, b_dec, b.x)[0].sum().backward()

    def dense() -> None:
        top = ((b.x - b_dec) @ W_rows.T + b_enc).topk(b.k)
        code = torch.zeros(b.n_rows, b.d_sae).scatter(1, top.indices, top.values.relu())
        (code @ W_dec + b_dec - b.x).square().sum().backward()

    return ours, dense, parameters


def peak_bytes(function: Callable[[], None], parameters: list[Tensor]) -> int:
    """Resident memory at its highest during a call, beyond what it was before and the gradients; Linux only."""
    status = Path("/proc/self/status")

    def read(name: str) -> int:
        return 1024 * int(status.read_text().split(f"{name}:")[1].split()[0])

    function()
    gradient_bytes = sum(p.grad.numel() * 4 for p in parameters if p.grad is not None)
    for parameter in parameters:
        parameter.grad = None
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = read("VmRSS")
    function()
    return read("VmHWM") - before - gradient_bytes


def step_peak_bytes(size: tuple[int, int, int, int], *, dense: bool = False, threads: int = 1) -> int:
    """Peak memory of a step in a process of its own, whose allocator returns at once what is freed.

    Left to itself the allocator keeps reserves, and resident memory shows them: about 20 MB here.
    """
    code = (
        "import torch; from tests.benchmarks.bench_kernels import Batch, peak_bytes, step_functions\n"
        f"torch.set_num_threads({threads}); ours, dense, parameters = step_functions(Batch(*{size}))\n"
        f"print(peak_bytes({'dense' if dense else 'ours'}, parameters))"
    )
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", choices=["encode", "decode", "step"], default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for size in (SIZES[i] for i in arguments.sizes):
        print(f"\n{size[0]} rows, d_in {size[1]}, d_sae {size[2]}, k {size[3]}, {arguments.threads} threads")
        print("| kernel | ours, ms | dense torch, ms | dense / ours |\n|---|---|---|---|")
        batch, clock = Batch(*size), CLOCKS[arguments.clock]
        if arguments.only in (None, "encode"):
            least_times(encode_pairs(batch), arguments.repeats, clock)
        if arguments.only in (None, "decode"):
            least_times(decode_pairs(batch), arguments.repeats, clock)
        if arguments.only in (None, "step"):
            ours, dense, _ = step_functions(batch)
            least_times({"a training step without optimiser": (ours, dense)}, arguments.repeats, clock)
            if sys.platform == "linux":
                peak = step_peak_bytes(size, threads=arguments.threads)
                share = peak / (0.5 * size[0] * size[2] * 4)
                print(f"peak memory of our step: {peak / 1e6:.0f} MB, {share:.2f} of batch x d_sae x 2 bytes")


if __name__ == "__main__":
    main()
