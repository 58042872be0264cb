"""Training steps and kernels on one GPU: tokens per second, the floor that the card itself sets, and two others.

    python tests/benchmarks/bench_gpu.py [--repeats 10] [--minutes 8] [--smoke]

Rates of the card are measured first: a bfloat16 product of the encoder's shape and a copy of the encoder. The
floor of a step is then, one after the other and every byte from memory,

    encoder product          2 * batch * d * d_sae operations, and the encoder read once in float32
    sparse passes            candidates decided, decode, decoder gradient, encoder gradient: 4 * batch * k * d * 4 bytes
    gradients and Adam       written once, and 28 bytes per weight

Other arrangements of the same step are in `gpu/steps.py`, the kernels one by one in `gpu/kernels.py`. Without a
GPU there is nothing to measure: `--smoke` runs every line on tiny sizes and the CPU, to see that it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import nullcontext

if "--smoke" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before anything can import Triton

import torch
from gpu import kernels, steps
from gpu.rates import Rates, Size, measured, time_ms

from workbench.kernels.backend import using

SIZES = (Size(768, 24_576, 32, 8192), Size(2304, 65_536, 64, 8192), Size(4096, 131_072, 64, 8192))
SMOKE = (Size(16, 96, 3, 4),)
FLOAT, ADAM_BYTES = 4, 28
BASELINES = {"dense, compiled": steps.dense, "dense forward, sparse backward": steps.half}


def floor_ms(size: Size, rates: Rates) -> float:
    """Least time of a step; see the module."""
    entries = FLOAT * size.batch * size.k * size.d
    n_bytes = FLOAT * size.n_weights / 2 + 4 * entries + (FLOAT + ADAM_BYTES) * size.n_weights
    return rates.ms(flops=2.0 * size.batch * size.d * size.d_sae, n_bytes=n_bytes)


def step_lines(size: Size, rates: Rates, device: torch.device, repeats: int) -> None:
    """Print the steps of all arrangements; each frees its memory before the next."""
    x = torch.randn(size.batch, size.d, generator=torch.Generator().manual_seed(0)).to(device)
    floor, mine = floor_ms(size, rates), 0.0
    print(f"{'step':34} {'ms':>9} {'tokens/s':>11} {'x floor':>8} {'x ours':>7} {'peak GB':>8}")
    for name, make in {"ours": steps.ours, **BASELINES}.items():
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        step = make(size, x)
        taken = time_ms(step, device, repeats)
        mine, peak = mine or taken, torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
        rate = 1e3 * size.batch / taken
        print(f"{name:34} {taken:9.2f} {rate:11,.0f} {taken / floor:8.2f} {taken / mine:7.2f} {peak:8.1f}")
        del step
    print(f"{'floor':34} {floor:9.2f} {1e3 * size.batch / floor:11,.0f}", flush=True)


def run(sizes: tuple[Size, ...], device: torch.device, repeats: int, minutes: float) -> None:
    """Every size while there is time; then say which were left out."""
    start = time.monotonic()
    for size in sizes:
        if time.monotonic() - start > 60 * minutes:
            print(f"\nleft out, {minutes:g} minutes are over: {size}")
            continue
        rates = measured(size, device, repeats)
        print(
            f"\n{size}: product {rates.product_flops / 1e12:.3g} TFLOP/s, copy {rates.copy_bytes / 1e9:.3g} GB/s"
        )
        step_lines(size, rates, device, repeats)
        for line in kernels.table(size, rates, device, repeats):
            print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=8.0, help="no size begins after so many")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU, in Triton's interpreter")
    arguments = parser.parse_args()
    if not arguments.smoke and not torch.cuda.is_available():
        print("no CUDA device: nothing to measure (--smoke runs tiny sizes in Triton's interpreter)")
        return
    device = torch.device("cpu" if arguments.smoke else "cuda")
    print("smoke run, the numbers mean nothing" if arguments.smoke else torch.cuda.get_device_name())
    with using("triton") if arguments.smoke else nullcontext():
        run(
            SMOKE if arguments.smoke else SIZES,
            device,
            1 if arguments.smoke else arguments.repeats,
            arguments.minutes,
        )


if __name__ == "__main__":
    main()
