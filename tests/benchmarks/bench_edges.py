"""Edges: scores of all of them, and ten circuits of different size, ours against TransformerLens 4.3.

    python tests/benchmarks/bench_edges.py [--threads 1] [--repeats 2] [--shapes tiny gpt2s] [--pairs 100] [--each]

GPT-2 models with random weights: `tiny` of four layers of width 128 and one of GPT-2-small's shape. TransformerLens'
side is `tools.analysis.attribution_patch` with edge granularity, on a few pairs (its time is proportional to their
number); its gradients are taken at the counterfactual prompt, so the largest difference is that of our score with
the gradient there. It has no integrated gradients: EAP-IG is shown beside its EAP.

The sizes curve is the cost of m under ten masks, the largest .1% to 100% of edges by EAP, on many pairs, in units of
one plain forward pass over the same pairs by the same code. Alternatives alternate, times are processor time of this
process, ratios are of the smallest.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor

from tests.circuits.wiring.conftest import random_pairs
from tests.models_on_disk import architecture_dir
from workbench.anatomy import open_anatomy
from workbench.circuits.metric import logit_difference
from workbench.circuits.wiring.along import score_along
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.eap import eap
from workbench.circuits.wiring.eap_ig import eap_ig_inputs
from workbench.circuits.wiring.executor import EdgeExecutor
from workbench.circuits.wiring.replacement import replacement_run
from workbench.models import load_model
from workbench.tasks import Batch

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Shape:
    """A model and the pairs on which the scores are compared."""

    config: dict[str, int]
    n_prompts: int
    length: int
    std: float


SHAPES = {
    "tiny": Shape({"n_embd": 128, "n_layer": 4, "n_head": 4, "vocab_size": 5000}, 32, 16, 0.08),
    "gpt2s": Shape({"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 5000}, 2, 16, 0.02),
}


def theirs(model: Any, wiring: Wiring, batch: Batch) -> Tensor:
    """TransformerLens' edge scores, positions summed (writer, reader)."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    total, asked = torch.zeros(wiring.n_writers, wiring.n_readers), EdgeAttributionConfig(granularity="edge")
    for row in range(len(batch.answer)):
        one = Batch(*(t[row : row + 1] for t in _tensors(batch)))

        def metric(logits: Tensor, one: Batch = one) -> Tensor:
            return logit_difference(logits[:, -1], one).sum()

        found = attribution_patch(model, one.clean, one.counterfactual, metric, asked)
        for (writer, reader), score in found.edge_scores.items():
            total[wiring.row[_writer(writer)], wiring.column[_reader(reader)]] += score / len(batch.answer)
    return total


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    return batch.clean, batch.counterfactual, batch.answer, batch.counterfactual_answer


def _writer(node: Any) -> str:
    names = {"embed": "embed", "attn_head_out": f"a{node.layer}.h{node.head}", "mlp_out": f"m{node.layer}"}
    return names[node.kind]


def _reader(node: Any) -> str:
    fixed = {"mlp_in": f"m{node.layer}", "logits": "logit"}
    return fixed.get(node.kind, f"a{node.layer}.h{node.head}.{node.kind[0]}")


def alternate(passes: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Smallest processor seconds and last result of each, in turns."""
    best, results = dict.fromkeys(passes, float("inf")), {}
    for _ in range(repeats):
        for name, run in passes.items():
            start = time.process_time()
            results[name] = run()
            best[name] = min(best[name], time.process_time() - start)
    return best, results


def report_scores(model: Any, wiring: Wiring, shape: Shape, repeats: int) -> None:
    """Print what scoring all edges costs."""
    batch = random_pairs(n_pairs=shape.n_prompts, n_pos=shape.length, d_vocab=5000)
    name = "TransformerLens, EAP"
    passes: dict[str, Callable[[], Any]] = {
        name: lambda: theirs(model, wiring, batch),
        "ours, EAP": lambda: eap(wiring, batch),
        "ours, EAP-IG inputs, 5 points": lambda: eap_ig_inputs(wiring, batch),
    }
    best, results = alternate(passes, repeats)
    same = score_along(wiring, batch, ((0.0, 1.0),), method="EAP at the counterfactual", settings={})
    wanted = results[name]
    error = float((same.scores.nan_to_num(0.0) - wanted).abs().max() / wanted.abs().max())
    print(
        f"scores of {wiring.n_edges} edges, {shape.n_prompts} x {shape.length} tokens, difference {error:.1e}"
    )
    for run, seconds in best.items():
        print(f"  {run:32} {seconds:8.3f} s {best[name] / seconds:7.1f} x")


def size_masks(wiring: Wiring, scores: Tensor) -> Tensor:
    """The largest scores by size, one mask a size."""
    order = scores.nan_to_num(0.0).abs().argsort(descending=True, stable=True)
    masks = torch.zeros(len(SIZES), *wiring.allowed.shape, dtype=torch.bool)
    for mask, size in zip(masks, SIZES, strict=True):
        chosen = wiring.pairs[order[: max(1, round(size * wiring.n_edges))]]
        mask[chosen[:, 0], chosen[:, 1]] = True
    return masks


def report_sizes(wiring: Wiring, shape: Shape, n_pairs: int, *, each: bool) -> None:
    """Print what ten circuits cost in plain forward passes."""
    batch = random_pairs(n_pairs=n_pairs, n_pos=shape.length, d_vocab=5000)
    few = Batch(*(t[:4] for t in _tensors(batch)))
    masks, anatomy = size_masks(wiring, eap(wiring, few).of_edges()), wiring.anatomy
    executor = EdgeExecutor(anatomy, wiring)
    replacement = replacement_run(anatomy, batch.counterfactual)

    @torch.no_grad()
    def plain() -> Tensor:
        return anatomy.last_logits(anatomy.embed(batch.clean), 0)

    passes: dict[str, Callable[[], Any]] = {
        "plain forward": plain,
        "replaced values": lambda: replacement_run(anatomy, batch.counterfactual),
        "ten sizes": lambda: executor.metrics(batch, replacement, masks),
    }
    best, _ = alternate(passes, 1)
    print(f"ten circuits on {n_pairs} x {shape.length} tokens")
    for run, seconds in best.items():
        print(f"  {run:16} {seconds:8.3f} s {seconds / best['plain forward']:7.1f} forward passes")
    for size, mask in zip(SIZES, masks, strict=True) if each else ():
        taken, _ = alternate({"one": lambda mask=mask: executor.metrics(batch, replacement, mask[None])}, 1)
        print(
            f"  {size:6.1%} of edges {taken['one']:13.3f} s {taken['one'] / best['plain forward']:7.2f} forward passes"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--each", action="store_true", help="also each size by itself")
    parser.add_argument("--only", choices=("scores", "sizes"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.shapes:
        shape = SHAPES[name]
        with tempfile.TemporaryDirectory() as folder:
            model = load_model(
                architecture_dir(Path(folder), "gpt2", std=shape.std, **shape.config), device="cpu"
            )
        wiring = Wiring(open_anatomy(model))
        model.requires_grad_(True)  # what TransformerLens' gradients start from; ours need none
        print(f"\n{name}: {shape.config}")
        if given.only != "sizes":
            report_scores(model, wiring, shape, given.repeats)
        if given.only != "scores":
            report_sizes(wiring, shape, given.pairs, each=given.each)


if __name__ == "__main__":
    main()
