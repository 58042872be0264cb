"""Every expression that was considered for the sparse operations, timed in one run.

    python tests/benchmarks/bench_sparse_expressions.py [--threads 1] [--repeats 9] [--clock wall]

The tables in `workbench/kernels/*/README.md` are its output.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
from torch.nn import functional

from workbench.kernels.latent_sum import cpu as latent_sum_cpu
from workbench.kernels.latent_sum import reference as latent_sum_reference
from workbench.kernels.sparse_decode import cpu as decode_cpu
from workbench.kernels.sparse_decode import reference as decode_reference
from workbench.kernels.topk_encode import cpu as encode_cpu

ROWS, D, D_SAE, K = 2048, 256, 4096, 32
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def time_all(expressions: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]) -> None:
    """Print the median of each, and how many times slower it is than the fastest."""
    taken: dict[str, list[float]] = {name: [] for name in expressions}
    for turn in range(repeats + 1):
        for name, function in expressions.items():
            start = clock()
            function()
            if turn:
                taken[name].append(1e3 * (clock() - start))
    best = min(median(times) for times in taken.values())
    for name, times in taken.items():
        print(f"  {name:45} {median(times):8.2f} ms  {median(times) / best:6.1f} x")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: immune to other load; one thread only"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # torch's sparse CSR announces that it is in beta
    x, grad, W = (
        torch.randn(ROWS, D),
        torch.randn(ROWS, D),
        functional.normalize(torch.randn(D_SAE, D), dim=1),
    )
    bias = torch.zeros(D_SAE)
    values, indices = (x @ W.T).topk(K)
    dense = torch.zeros(ROWS, D_SAE).scatter(1, indices, values)
    starts = torch.arange(0, ROWS * K + 1, K)
    csr = torch.sparse_csr_tensor(starts, indices.flatten(), values.flatten(), size=(ROWS, D_SAE))
    print(f"{ROWS} rows, d {D}, d_sae {D_SAE}, k {K}, {arguments.threads} threads")
    print("topk_encode: pre-activations and selection")
    time_all(
        {
            "tiles, oneDNN product, topk (used)": lambda: encode_cpu.topk_linear(x, W, bias, K),
            "whole batch, oneDNN product, topk": lambda: encode_cpu.select(encode_cpu.linear(x, W, bias), K),
            "tiles, addmm, topk": lambda: [
                encode_cpu.select(torch.addmm(bias, part, W.T), K) for part in x.split(512)
            ],
            "whole batch, addmm, topk": lambda: torch.addmm(bias, x, W.T).topk(K),
            "whole batch, addmm, stable sort (definition)": lambda: torch.addmm(bias, x, W.T).sort(
                dim=1, descending=True, stable=True
            ),
        },
        arguments.repeats,
        CLOCKS[arguments.clock],
    )
    print("sparse_decode: values @ W_dec[indices]")
    time_all(
        {
            "embedding_bag (used)": lambda: decode_cpu.sparse_decode(indices, values, W),
            "scatter and dense product (definition)": lambda: decode_reference.sparse_decode(
                indices, values, W
            ),
            "gather and einsum": lambda: torch.einsum("rk,rkd->rd", values, W[indices]),
            "torch.sparse CSR": lambda: csr @ W,
        },
        arguments.repeats,
        CLOCKS[arguments.clock],
    )
    print("sparse_decode: gradient of the values")
    time_all(
        {
            "embedding_bag's backward (used)": lambda: decode_cpu.value_gradients(indices, grad, W),
            "dense product and gather (definition)": lambda: decode_reference.value_gradients(
                indices, grad, W
            ),
            "gather and einsum": lambda: torch.einsum("rd,rkd->rk", grad, W[indices]),
        },
        arguments.repeats,
        CLOCKS[arguments.clock],
    )
    print("latent_sum: gradient of the decoder (and of the encoder)")
    time_all(
        {
            "radix sort and embedding_bag (used)": lambda: latent_sum_cpu.latent_sum(
                indices, values, grad, D_SAE
            ),
            "dense product, latents given dense": lambda: dense.T @ grad,
            "outer products and index_add (definition)": lambda: latent_sum_reference.latent_sum(
                indices, values, grad, D_SAE
            ),
            "torch.sparse CSR, transposed": lambda: csr.to_sparse_coo().t().coalesce() @ grad,
        },
        arguments.repeats,
        CLOCKS[arguments.clock],
    )


if __name__ == "__main__":
    main()
