"""The table of kernels: time of each, of the torch expression it replaces, and the least the card could take.

The least time counts what a kernel must read and write, every byte from memory, and its product in bfloat16.
Rows that several programs read come from the cache the second time, so a gather can beat it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from gpu.rates import Rates, Size, time_ms
from torch import Tensor

from workbench.kernels.backend import backend
from workbench.kernels.latent_sum import order

Row = tuple[str, Callable[[], object], Callable[[], object] | None, float]
FLOAT = 4


def table(size: Size, rates: Rates, device: torch.device, repeats: int) -> Iterator[str]:
    """One line per kernel."""
    yield f"{'kernel':34} {'ms':>9} {'floor ms':>9} {'ratio':>6} {'torch ms':>9} {'x torch':>8}"
    for name, function, expression, floor in rows_of(size, rates, device):
        taken = time_ms(function, device, repeats)
        line = f"{name:34} {taken:9.3f} {floor:9.3f} {taken / floor:6.2f}"
        if expression is not None:
            torch_ms = time_ms(expression, device, repeats)
            line += f" {torch_ms:9.3f} {torch_ms / taken:8.2f}"
        yield line


def rows_of(size: Size, rates: Rates, device: torch.device) -> Iterator[Row]:
    """Name, ours, the torch expression (None: none without a dense gradient) and the floor in milliseconds."""
    x, W = torch.randn(size.batch, size.d, device=device), torch.randn(size.d_sae, size.d, device=device)
    bias, target = torch.zeros(size.d_sae, device=device), torch.randn_like(x)
    yield from _selections(size, rates, x, W, bias)
    indices, values = backend("encode", x).select_topk(x, W, bias, size.k)
    yield from _sums(size, rates, indices, values.relu(), W, target)


def _selections(size: Size, rates: Rates, x: Tensor, W: Tensor, bias: Tensor) -> Iterator[Row]:
    kernels, n_groups = backend("encode", x), size.k
    floor = rates.ms(flops=2.0 * size.batch * size.d * size.d_sae, n_bytes=FLOAT * W.numel())
    low_x, low_W, low_bias = x.bfloat16(), W.bfloat16(), bias.bfloat16()
    pre = lambda: low_x @ low_W.T + low_bias  # noqa: E731
    level = torch.full_like(bias, float((x[:64] @ W.T).topk(size.k).values[:, -1].mean()))
    yield (
        "select_topk float32",
        lambda: kernels.select_topk(x, W, bias, size.k),
        lambda: pre().topk(size.k),
        floor,
    )
    few = lambda: kernels.select_topk(low_x, low_W, low_bias, size.k)  # noqa: E731
    yield "select_topk bfloat16", few, lambda: pre().topk(size.k), floor
    n_keep = size.batch * size.k
    yield "select_batch_topk", lambda: kernels.select_batch_topk(x, W, bias, n_keep), None, floor
    yield (
        "select_above",
        lambda: kernels.select_above(x, W, bias, level),
        lambda: (pre() > level).nonzero(),
        floor,
    )
    if size.d_sae % n_groups == 0:
        grouped = lambda: pre().unflatten(1, (n_groups, -1)).max(2)  # noqa: E731
        yield "select_group_max", lambda: kernels.select_group_max(x, W, bias, n_groups), grouped, floor


def _sums(
    size: Size, rates: Rates, indices: Tensor, values: Tensor, W: Tensor, target: Tensor
) -> Iterator[Row]:
    decode, loss, sums = (backend(name, values) for name in ("sparse_decode", "decode_loss", "latent_sum"))
    entries, rows = FLOAT * indices.numel() * size.d, FLOAT * target.numel()
    bags = lambda: torch.nn.functional.embedding_bag(indices, W, per_sample_weights=values, mode="sum")  # noqa: E731
    gathered = rates.ms(n_bytes=entries + rows)
    yield "sparse_decode", lambda: decode.sparse_decode(indices, values, W), bags, gathered
    zero, quarter = torch.zeros(size.d, device=W.device), max(1, size.d_sae // 4)
    for prefixes in ((size.d_sae,), (quarter, 2 * quarter, size.d_sae)):
        floor = rates.ms(n_bytes=entries + (2 + len(prefixes)) * rows)
        ours = lambda p=prefixes: loss.decode_loss(indices, values, W, zero, target, p)  # noqa: E731
        yield f"decode_loss, prefixes {len(prefixes)}", ours, None, floor
    yield (
        "latent order",
        lambda: order.build(indices, size.d_sae),
        None,
        rates.ms(n_bytes=16 * indices.numel()),
    )
    gradients = lambda: decode.gradients(indices, values, target, W)  # noqa: E731
    yield "decoder and value gradients", gradients, None, rates.ms(n_bytes=entries + 2 * FLOAT * W.numel())
    flat, total = indices.flatten(), torch.zeros(size.d_sae, device=W.device)
    added = lambda: total.clone().index_add_(0, flat, values.flatten())  # noqa: E731
    floor = rates.ms(n_bytes=entries + FLOAT * W.numel())
    yield "latent_sum", lambda: sums.latent_sum(indices, values, target, size.d_sae), None, floor
    few = rates.ms(n_bytes=8 * indices.numel() + FLOAT * size.d_sae)
    yield "latent_total", lambda: sums.latent_total(indices, values, size.d_sae), added, few
