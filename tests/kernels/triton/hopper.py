"""Compile every Triton kernel for compute capability 9.0, to machine code, on a machine that has no GPU.

    python -m tests.kernels.triton.hopper

The interpreter accepts more than the compiler does (types that change in a branch, shapes it cannot lay out).
Prints kernel, shared memory, registers of a thread and bytes of its stack, which is registers spilled to memory.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from workbench.kernels.decode_loss.triton import loss_kernel
from workbench.kernels.encode import triton_kernels as encode
from workbench.kernels.encode import triton_rescore as rescore
from workbench.kernels.latent_sum import triton as sums
from workbench.kernels.sparse_decode import triton as decode

SHARED_BYTES, STACK_BYTES = 227 * 1024, 128
LONG, INT, FLOAT, HALF = "*i64", "*i32", "*fp32", "*bf16"
PRODUCT = {"PRECISION": "ieee", "EVEN": True}
SCREEN = PRODUCT | {"SLACK": True, "BD": 64}
BASE = {
    "counts_ptr": LONG, "members_ptr": INT, "list_ptr": LONG, "listed_ptr": LONG, "limit_ptr": LONG,
    "indices_ptr": LONG, "offsets_ptr": LONG, "owner_ptr": LONG, "ends_ptr": LONG, "slots_ptr": LONG,
    "edges_ptr": LONG, "long_ptr": LONG, "keys_ptr": LONG, "accumulation": "fp32", "inflation": "fp32",
    "failed_ptr": INT, "kept_ptr": INT,
}  # fmt: skip
LISTS = {"counts_ptr": INT, "out_ptr": LONG}
LOW = {"x_ptr": HALF, "rows_ptr": HALF}


def kernels() -> Iterator[tuple[Any, dict[str, str | None], dict[str, Any], int, int]]:
    """Kernel, pointer types beside `BASE` (others: float32), options, warps, stages."""
    append = SCREEN | {"GROUP": 8, "BM": 128, "BN": 128}
    yield encode.append_kernel, LISTS | LOW, append | {"LIMITS": "row"}, 8, 4
    yield (
        encode.append_kernel,
        LISTS | LOW | {"limit_ptr": FLOAT},
        append | {"LIMITS": "latent", "BM": 64, "BN": 64},
        8,
        4,
    )
    yield encode.append_kernel, LISTS | LOW, append | {"LIMITS": "group", "BM": 64, "BN": 64}, 8, 4
    none, sized = {"list_ptr": None, "listed_ptr": None}, {"BM": 64, "BN": 64}
    yield encode.running_kernel, LISTS | LOW | none, SCREEN | sized | {"LISTED": False, "K": 64}, 8, 3
    none = {"x_slack_ptr": None, "rows_slack_ptr": None}
    exact = PRODUCT | sized | {"SLACK": False, "LISTED": True, "K": 32, "BD": 32}
    yield encode.running_kernel, LISTS | none, exact, 8, 3
    exact_group = {name: value for name, value in exact.items() if name != "K"}
    merge = {"COUNTED": True, "LISTED": False, "K": 32, "BM": 4, "BC": 128}
    yield encode.merge_kernel, LISTS | {"listed_ptr": None}, merge, 4, 3
    yield rescore.rescore_kernel, LISTS, {"KC": 128, "KO": 64, "BD": 64}, 4, 3
    yield (
        rescore.rescore_list_kernel,
        LISTS | {"limit_ptr": FLOAT},
        {"RESCORE": True, "BC": 32, "BD": 64},
        4,
        3,
    )
    yield rescore.rescore_group_kernel, LISTS, {"BC": 32, "BD": 64}, 4, 3
    yield encode.group_kernel, LISTS | none, exact_group, 4, 3
    low_group = SCREEN | sized | {"LISTED": False}
    yield encode.group_kernel, LISTS | LOW | {"list_ptr": None, "listed_ptr": None}, low_group, 4, 3
    yield rescore.split_kernel, {"high_ptr": HALF}, {"FACTORS": True, "BM": 8, "BD": 256}, 4, 3
    for BS, BD, warps in ((4, 1024, 4), (1, 4096, 8)):
        yield sums.entry_kernel, {}, {"EDGES": 3, "VALUES": True, "BS": BS, "BD": BD}, warps, 3
    plain = {"W_ptr": None, "edges_ptr": None, "for_values_ptr": None}
    yield sums.entry_kernel, plain, {"EDGES": 1, "VALUES": False, "BS": 4, "BD": 1024}, 4, 3
    yield sums.finish_kernel, {}, {"BS": 4, "BD": 1024}, 4, 3
    for firings, kind in ((True, INT), (False, FLOAT)):
        yield sums.total_kernel, {"out_ptr": kind}, {"FIRINGS": firings, "BS": 128}, 1, 3
        yield sums.piece_total_kernel, {"pieces_ptr": kind}, {"FIRINGS": firings, "BS": 128}, 1, 3
    yield decode.decode_kernel, {}, {"BS": 4, "BD": 1024}, 4, 3
    yield decode.value_kernel, {}, {"BS": 16, "BD": 256}, 4, 3
    yield loss_kernel, {}, {"BS": 4, "BD": 1024}, 4, 3


def compiled(
    kernel: Any, types: dict[str, str | None], options: dict[str, Any], warps: int, stages: int
) -> Any:
    """The kernel in machine code; sizes are int32, and sizes and addresses multiples of 16."""
    signature, constants, aligned = {}, dict(options), {}
    for place, name in enumerate(kernel.arg_names):
        kind = (BASE | types).get(name, FLOAT if name.endswith("_ptr") else "i32")
        if name in options or kind is None:
            constants.setdefault(name, None)
            signature[name] = "constexpr"
        else:
            signature[name] = kind
            aligned |= (
                {(place,): [["tt.divisibility", 16]]} if kind.startswith("*") or name in ("d", "d_in") else {}
            )
    source = ASTSource(kernel, signature, constants, aligned)
    chosen = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=chosen)


def used(code: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack: registers that were spilled to memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", path]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(p, said)[1]) for p in (r"REG:(\d+)", r"STACK:(\d+)"))


def main() -> int:
    failed = 0
    for kernel, types, options, warps, stages in kernels():
        code = compiled(kernel, types, options, warps, stages)
        registers, stack = used(code.asm["cubin"])
        bad = code.metadata.shared > SHARED_BYTES or stack > STACK_BYTES
        failed += bad
        sys.stdout.write(
            f"{kernel.fn.__name__:20} shared {code.metadata.shared:6}  registers {registers:3}  stack {stack:4}"
            f"{'  too much' if bad else ''}\n"
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
