"""The host side of the four steps of `workbench.kernels.encode.triton`: operands, tiles, launches.

Nothing here reads a value back from the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from workbench.kernels.encode import triton_kernels as device
from workbench.kernels.encode import triton_rescore
from workbench.kernels.triton_support import LOWEST, launch, next_power_of_2

SHARES = 16
STEPS = ((1, 3), (4, 12))  # first share and number of shares that are compared with the limit at once
ROUNDINGS = 64  # roundings of a bound besides those of its sum, all below this many units
UNIT = 2.0**-23
INFLATION = 1 + 2.0**-10  # the bound is itself computed in float32
PROGRAMS = 512  # some for every multiprocessor; more only make more to merge
SPLIT_ENTRIES, MOST_SPLITS = 1 << 24, 32


@dataclass(frozen=True)
class Operands:
    """Two factors, a bias, and the bound of what rounding has taken from the factors (None: nothing)."""

    x: Tensor
    rows: Tensor
    bias: Tensor
    x_slack: Tensor | None = None
    rows_slack: Tensor | None = None

    def options(self, **chosen: Any) -> dict[str, Any]:
        """Compile-time options of a kernel that multiplies these."""
        BD = 64 if self.x.element_size() == 2 else 32
        return {
            "SLACK": self.x_slack is not None,
            "PRECISION": "ieee",
            "EVEN": self.x.shape[1] % BD == 0,
            "BD": BD,
        } | chosen

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """The pointers that every such kernel begins with."""
        return self.x, self.rows, self.bias, self.x_slack, self.rows_slack


@dataclass(frozen=True)
class Share:
    """Of every `stride` consecutive latents the `width` that start with `first`."""

    first: int
    width: int
    stride: int

    def size(self, d_sae: int) -> int:
        """Number of latents below d_sae in it."""
        whole, rest = divmod(d_sae, self.stride)
        return whole * self.width + min(max(rest - self.first, 0), self.width)


ALL = Share(0, 1, 1)


def screened(exact: Operands) -> Operands:
    """Bfloat16 operands whose scores are upper bounds of the float32 pre-activations."""
    high, slack = _split(exact.x, factors=True)
    rows_high, rows_slack = _split(exact.rows, factors=False)
    return Operands(high, rows_high, exact.bias + 4 * UNIT * exact.bias.abs(), slack, rows_slack)


def lower(bounds: Operands, bias: Tensor) -> Operands:
    """The lower bounds that belong to upper ones, given the bias itself."""
    assert bounds.x_slack is not None
    return replace(bounds, bias=2 * bias - bounds.bias, x_slack=-bounds.x_slack)


def _split(full: Tensor, *, factors: bool) -> tuple[Tensor, Tensor]:
    n, d = full.shape
    high, slack = torch.empty_like(full, dtype=torch.bfloat16), full.new_empty(n, 2)
    accumulation = (d + ROUNDINGS) * UNIT
    options = {"FACTORS": factors, "BM": 8, "BD": 256, "num_warps": 4}
    launch(
        triton_rescore.split_kernel,
        (-(-n // 8),),
        full,
        high,
        slack,
        n,
        d,
        accumulation,
        INFLATION,
        **options,
    )
    return high, slack


def running(operands: Operands, K: int, share: Share, listed: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The K largest keys (row, K) of each row within a share of the latents, descending.

    Args:
        operands: What is multiplied.
        K: A power of two, at least 16.
        share: The latents to look at.
        listed: Rows to do, in this order, and how many of them (on the device); by default all. Further rows
            of the result are not written.
    """
    n_rows, d_in = operands.x.shape
    n_set, BN = share.size(len(operands.rows)), max(64, K)
    BM = min(64, max(16, 8192 // BN))
    n_splits = max(1, PROGRAMS * BM // max(1, n_rows))
    if listed:  # usually a few rows: as many programs for each as memory allows
        n_splits = min(MOST_SPLITS, max(1, SPLIT_ENTRIES // max(1, n_rows * K)))
    n_splits = min(n_splits, -(-n_set // BN))
    per_split = -(-n_set // (n_splits * BN)) * BN
    n_splits = -(-n_set // per_split)
    parts = torch.empty(n_rows, n_splits, K, dtype=torch.int64, device=operands.x.device)
    rows_todo, n_todo = listed or (None, None)
    shape = (n_rows, d_in, n_set, per_split, share.first, share.width, share.stride)
    options = operands.options(LISTED=listed is not None, K=K, BM=BM, BN=BN, num_warps=8, num_stages=3)
    grid = (-(-n_rows // BM), n_splits)
    launch(device.running_kernel, grid, *operands.arguments, parts, rows_todo, n_todo, *shape, **options)
    if n_splits == 1:
        return parts[:, 0]
    best = torch.empty(n_rows, K, dtype=torch.int64, device=parts.device)
    _merge(parts.flatten(1), best, K, n_splits * K, n_todo=n_todo)
    return best


def _merge(
    keys: Tensor,
    out: Tensor,
    K: int,
    n_fixed: int,
    counts: Tensor | None = None,
    n_todo: Tensor | None = None,
) -> None:
    """The K largest of the first `n_fixed` columns, and of the `counts` that were appended behind them."""
    n_rows, width = keys.shape
    shape = (n_rows, width, out.stride(0), n_fixed, width - n_fixed)
    options = {
        "COUNTED": counts is not None,
        "LISTED": n_todo is not None,
        "K": K,
        "BM": 4,
        "BC": max(128, K),
    }
    launch(device.merge_kernel, (-(-n_rows // 4),), keys, counts, out, n_todo, *shape, **options, num_warps=4)


def append(
    operands: Operands, limits: Tensor, out: Tensor, share: Share, kind: str, *, group_size: int = 1
) -> Tensor:
    """Write to `out` (row, capacity) the keys of a share that reach their limit; returns how many (row) did.

    Limits are keys, one a row or one for each row and group; for the kind "latent" thresholds.
    """
    n_rows, d_in = operands.x.shape
    n_set = share.size(len(operands.rows))
    counts = torch.zeros(n_rows, dtype=torch.int32, device=operands.x.device)
    BM = BN = 128 if operands.x.element_size() == 2 else 64
    strides = (out.stride(0), out.shape[1], limits.stride(0), group_size)
    shape = (n_rows, d_in, n_set, share.first, share.width, share.stride, *strides)
    options = operands.options(LIMITS=kind, GROUP=8, BM=BM, BN=BN, num_warps=8, num_stages=4)
    grid = (-(-n_rows // BM) * -(-n_set // BN),)
    launch(device.append_kernel, grid, *operands.arguments, limits, counts, out, *shape, **options)
    return counts


def propose(operands: Operands, K: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Lists whose first K columns are the K largest keys of each row, and how many keys a step found at most.

    A row for which that number is above `capacity` has lost some, so its list is not to be used.
    """
    n_rows, device_of = len(operands.x), operands.x.device
    lists = torch.empty(n_rows, K + capacity, dtype=torch.int64, device=device_of)
    lists[:, :K] = running(operands, K, Share(0, 1, SHARES))
    most = torch.zeros(n_rows, dtype=torch.int32, device=device_of)
    for first, width in STEPS:
        share = Share(first, width, SHARES)
        counts = append(operands, lists[:, K - 1 :], lists[:, K:], share, "row")
        _merge(lists, lists, K, K, counts)
        most = torch.maximum(most, counts)
    return lists, most


def decide(
    exact: Operands, bounds: Operands, lists: Tensor, most: Tensor, k: int, K: int
) -> tuple[Tensor, Tensor]:
    """Keys (row, k) by float32 dot products of the candidates, and which rows (row) they do not settle."""
    n_rows, d_in = exact.x.shape
    out, failed = lists.new_empty(n_rows, k), torch.empty(n_rows, dtype=torch.int32, device=lists.device)
    shape = (d_in, lists.shape[1], k, lists.shape[1] - K)
    launch(
        triton_rescore.rescore_kernel, (n_rows,), exact.x, exact.rows, exact.bias, bounds.x_slack, bounds.rows_slack,
        lists, most, out, failed, *shape, KC=K, KO=k, BD=max(16, min(64, 8192 // K)), num_warps=4,
    )  # fmt: skip
    return out, failed > 0


def repeat_failed(exact: Operands, keys: Tensor, failed: Tensor, k: int) -> Tensor:
    """`keys` (row, k) with the failed rows selected anew from products of all latents."""
    return _with_failed(keys, failed, lambda listed: running(exact, max(16, next_power_of_2(k)), ALL, listed))


def _with_failed(keys: Tensor, failed: Tensor, again: Callable[[tuple[Tensor, Tensor]], Tensor]) -> Tensor:
    position = failed.cumsum(0)
    order = failed.logical_not().to(torch.uint8).sort(stable=True).indices
    anew = again((order, position[-1:]))
    return torch.where(failed[:, None], anew[(position - 1).clamp_min(0)][:, : keys.shape[1]], keys)


def list_decided(
    exact: Operands, lists: Tensor, counts: Tensor, threshold: Tensor, *, rescore: bool
) -> tuple[Tensor, Tensor]:
    """Lists by ascending latent (latent in the upper half, value in the lower), and how many are above."""
    n_rows, capacity = lists.shape
    kept = torch.empty(n_rows, dtype=torch.int32, device=lists.device)
    launch(
        triton_rescore.rescore_list_kernel, (n_rows,), exact.x, exact.rows, exact.bias, threshold, counts, lists, kept,
        exact.x.shape[1], capacity, RESCORE=rescore, BC=32, BD=64, num_warps=4,
    )  # fmt: skip
    return lists.sort(dim=1).values, kept


def group_maxima(operands: Operands, k: int, listed: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The largest key of each row in each of k groups (row, k); `listed` as in `running`."""
    n_rows, d_in = operands.x.shape
    out = torch.empty(n_rows, k, dtype=torch.int64, device=operands.x.device)
    options = operands.options(LISTED=listed is not None, BM=64, BN=64, num_warps=4, num_stages=3)
    rows_todo, n_todo = listed or (None, None)
    shape = (n_rows, d_in, len(operands.rows) // k)
    launch(
        device.group_kernel,
        (k, -(-n_rows // 64)),
        *operands.arguments,
        out,
        rows_todo,
        n_todo,
        *shape,
        **options,
    )
    return out


def proposed_group_maxima(exact: Operands, k: int, capacity: int) -> Tensor:
    """`group_maxima` of float32 operands at bfloat16 speed.

    The largest lower bound of a group is a limit that the upper bound of its largest entry reaches; what reaches
    it is decided by float32 dot products. Rows with more than `capacity` such entries are done anew.
    """
    bounds, (n_rows, d_in), size = screened(exact), exact.x.shape, len(exact.rows) // k
    limits = group_maxima(lower(bounds, exact.bias), k)
    lists = torch.empty(n_rows, capacity, dtype=torch.int64, device=exact.x.device)
    counts = append(bounds, limits, lists, ALL, "group", group_size=size)
    out = torch.full_like(limits, LOWEST.value)
    launch(
        triton_rescore.rescore_group_kernel, (n_rows,), exact.x, exact.rows, exact.bias, counts, lists, out, d_in,
        capacity, k, size, BC=32, BD=64, num_warps=4,
    )  # fmt: skip
    return _with_failed(out, counts > capacity, lambda listed: group_maxima(exact, k, listed))
