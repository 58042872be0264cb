"""Patching sweeps: one forward pass a cell with TransformerLens 4.3 against all cells side by side.

    python tests/benchmarks/bench_sweep_patching.py [--threads 1] [--repeats 3] [--shapes toy gpt2s] [--clock wall]

Layer x position of the stream before each block, and layer x head, on GPT-2 models with random weights: a toy of
two layers of width 32 and one of GPT-2-small's shape. Both sides compute the same effects (the largest difference
is printed). TransformerLens' side is its `generic_activation_patch` with a logit-difference metric. Alternatives
alternate; ratios are of the smallest times.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor

from tests.circuits.sweeps.conftest import random_pairs
from tests.models_on_disk import architecture_dir
from workbench.anatomy import Anatomy, open_anatomy
from workbench.circuits.metric import logit_difference
from workbench.circuits.sweeps import Swept, attribute_sweep, integrate_sweep, patch_sweep
from workbench.models import load_model
from workbench.tasks import Batch

Clock = Callable[[], float]


@dataclass(frozen=True)
class Shape:
    """A model and a batch of pairs."""

    config: dict[str, int]
    n_prompts: int
    length: int
    std: float


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
KINDS = ("resid_pre", "head")
GPT2S = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 64, "vocab_size": 50257}
SHAPES = {
    "toy": Shape({"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64}, 4, 16, 0.1),
    "gpt2s": Shape(GPT2S, 1, 12, 0.02),
}


def theirs(model: Any, batch: Batch, kind: str) -> Callable[[], Tensor]:
    """TransformerLens' sweep as effects: denoising, clean values into the counterfactual prompts."""
    from transformer_lens import patching

    function = {
        "resid_pre": patching.get_act_patch_resid_pre,
        "head": patching.get_act_patch_attn_head_out_all_pos,
    }

    @torch.no_grad()
    def run() -> Tensor:
        _, cache = model.run_with_cache(batch.clean)
        metric = partial(_last_difference, batch=batch)
        with contextlib.redirect_stderr(io.StringIO()):
            found: Any = function[kind](
                model, batch.counterfactual, cache, metric, reduce="none", baseline=True
            )
        return found.values - found.baseline

    return run


def _last_difference(logits: Tensor, *, batch: Batch) -> Tensor:
    return logit_difference(logits[:, -1], batch)


def ours(anatomy: Anatomy, batch: Batch, kind: str, n_buckets: int) -> Callable[[], Tensor]:
    """Our sweep of the same cells."""
    return lambda: (
        patch_sweep(anatomy, batch, Swept(kind), direction="denoising", n_buckets=n_buckets).effects
    )


def alternate(
    passes: dict[str, Callable[[], Any]], repeats: int, clock: Clock
) -> tuple[dict[str, float], dict[str, Any]]:
    """Smallest seconds and last result of each, in turns."""
    best, results = dict.fromkeys(passes, float("inf")), {}
    for _ in range(repeats):
        for name, run in passes.items():
            start = clock()
            results[name] = run()
            best[name] = min(best[name], clock() - start)
    return best, results


def report(name: str, shape: Shape, kinds: list[str], repeats: int, clock: Clock) -> None:
    """Print one table a kind of cell."""
    with tempfile.TemporaryDirectory() as folder:
        source = architecture_dir(Path(folder), "gpt2", std=shape.std, **shape.config)
        model = load_model(source, device="cpu")
    anatomy = open_anatomy(model)
    batch = random_pairs(n=shape.n_prompts, length=shape.length, first=1)
    for kind in kinds:
        theirs_name = "TransformerLens, one cell a forward"
        passes = {theirs_name: theirs(model, batch, kind)}
        passes |= {f"ours, {n} buckets": ours(anatomy, batch, kind, n) for n in (8, 4, 1)}
        best, results = alternate(passes, repeats, clock)
        wanted = results[theirs_name]
        print(f"\n{name}: {kind}, {wanted[..., 0].numel()} cells, {shape.n_prompts} x {shape.length} tokens")
        for run, seconds in best.items():
            error = float((results[run] - wanted).abs().max())
            print(
                f"  {run:36} {seconds:8.3f} s {best[theirs_name] / seconds:7.1f} x   largest difference {error:.1e}"
            )
        estimates(anatomy, batch, kind, repeats, clock)


def estimates(anatomy: Anatomy, batch: Batch, kind: str, repeats: int, clock: Clock) -> None:
    """Print what attribution and integrated gradients of the same cells cost."""
    passes = {
        "attribution": lambda: attribute_sweep(anatomy, batch, Swept(kind)),
        "integrated gradients, 5 points": lambda: integrate_sweep(anatomy, batch, Swept(kind)),
    }
    best, results = alternate(passes, repeats, clock)
    for run, seconds in best.items():
        print(
            f"  {run:36} {seconds:8.3f} s   completeness gap {results[run].completeness_gap_logits:.1e} logits"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: immune to other load; one thread only"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(
        f"patching sweeps on {arguments.threads} CPU threads, smallest of {arguments.repeats} alternating turns"
    )
    for name in arguments.shapes:
        report(name, SHAPES[name], arguments.kinds, arguments.repeats, CLOCKS[arguments.clock])


if __name__ == "__main__":
    main()
