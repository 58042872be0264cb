"""Forward passes for harvesting: ours against a hand-written hook with early exit on the plain Hugging Face model.

    python tests/benchmarks/bench_forward.py [--threads 2] [--repeats 9] [--clock wall]

A GPT-2 of 6 layers with random weights; the hook is the output of block 2, so half of the model runs. The
hand-written side is a `register_forward_hook` that copies into a preallocated array and raises; ours calls a
`Forward` and copies its value into the same array. Alternatives alternate, so that other load on the machine
meets all of them; the ratios are of medians.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor

from tests.models_on_disk import architecture_dir
from workbench.hooks import capture_forward, open_forward
from workbench.models import load_model

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
HOOK = "blocks.2.hook_resid_post"
SEVERAL = [
    f"blocks.{i}.{name}" for i in (0, 1, 2) for name in ("hook_resid_post", "attn.hook_z", "hook_mlp_out")
]
LAYERS = 6


class Stop(Exception):  # noqa: N818 - control flow
    """What the hand-written hook raises."""


def hand_written(folder: Path, shape: tuple[int, int, int]) -> Callable[[Tensor], None]:
    """The plain model with one hook, as one writes it for a single experiment."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    kept = torch.empty(shape)

    def hook(module: object, args: object, output: Any) -> None:
        kept.copy_(output if isinstance(output, Tensor) else output[0])
        raise Stop

    model.transformer.h[2].register_forward_hook(hook)

    @torch.no_grad()
    def run(ids: Tensor) -> None:
        with suppress(Stop):
            model(ids, use_cache=False)

    return run


def alternatives(folder: Path, n_rows: int, n_pos: int, width: int) -> dict[str, Callable[[Tensor], Any]]:
    """The passes to compare, by name."""
    bridge = load_model(folder, device="cpu")
    probe = torch.randint(0, 4096, (2, 16))
    kept = torch.empty(n_rows, n_pos, width)
    one = open_forward(bridge, [HOOK], ids=probe)
    several = open_forward(bridge, SEVERAL, ids=probe)
    on_bridge = open_forward(bridge, [HOOK], ids=probe, path="bridge")
    assert set(several.paths.values()) == {"plain"}

    def cached(ids: Tensor) -> None:
        with torch.no_grad():
            bridge.run_with_cache(ids, names_filter=HOOK, stop_at_layer=3)

    return {
        "hand-written hook": hand_written(folder, (n_rows, n_pos, width)),
        "Forward, plain path": lambda ids: kept.copy_(one(ids)[HOOK]),
        f"Forward, {len(SEVERAL)} hooks": lambda ids: kept.copy_(several(ids)[HOOK]),
        "Forward, bridge path": lambda ids: kept.copy_(on_bridge(ids)[HOOK]),
        "capture_forward": lambda ids: kept.copy_(capture_forward(bridge, ids, [HOOK])[HOOK]),
        "run_with_cache, stopped": cached,
    }


def alternate(
    passes: dict[str, Callable[[Tensor], Any]], ids: Tensor, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median milliseconds of each, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(repeats + 2):
        for name, run in passes.items():
            start = clock()
            run(ids)
            if turn >= 2:
                taken[name].append(1e3 * (clock() - start))
    return {name: median(times) for name, times in taken.items()}


def report(width: int, rows: int, pos: int, repeats: int, clock: Callable[[], float]) -> None:
    """Print one table: a width and a batch."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"n_embd": width, "n_head": width // 64, "n_layer": LAYERS, "n_positions": 256}
        passes = alternatives(architecture_dir(Path(folder), "gpt2", std=0.05, **sizes), rows, pos, width)
        taken = alternate(passes, torch.randint(0, 4096, (rows, pos)), repeats, clock)
    base, one = taken["hand-written hook"], taken["Forward, plain path"]
    print(f"\nd {width}, batch {rows} x {pos}, {repeats} turns")
    for name, ms in taken.items():
        print(
            f"  {name:26} {ms:9.2f} ms {rows * pos / ms * 1e3:10,.0f} tokens/s "
            f"{base / ms:6.3f} of hand-written, {ms - base:+7.2f} ms"
        )
    print(
        f"  {len(SEVERAL)} hooks against the deepest alone: {taken[f'Forward, {len(SEVERAL)} hooks'] / one:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: immune to other load; one thread only"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"forward passes on {arguments.threads} CPU threads, block 2 of {LAYERS}, medians")
    clock = CLOCKS[arguments.clock]
    for width, rows, pos, repeats in [
        (512, 16, 256, arguments.repeats),
        (768, 16, 256, arguments.repeats),
        (512, 1, 8, 20 * arguments.repeats),
        (768, 1, 8, 20 * arguments.repeats),
    ]:
        report(width, rows, pos, repeats, clock)


if __name__ == "__main__":
    main()
