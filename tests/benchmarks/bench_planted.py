"""Known truth at scale: how many of 2,048 planted features in 256 dimensions a dictionary finds, with its controls.

    python tests/benchmarks/bench_planted.py [--seeds 2] [--tokens 819200] [--threads 2]

Features are active with Zipf frequencies (rank j in about 1 / j of the rows, at most half), 8 a row. Trained with
the defaults of `train`, once through the rows. The goal is a mean max cosine of at least 0.95 over the features
that were seen at least 1,000 times. Controls: random directions, and a training on rows whose columns were each
shuffled by themselves.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from workbench.dictionaries import Dictionary, random_dictionary
from workbench.testbeds.planted import PlantedFeatures, plant, planted_features
from workbench.testbeds.planted.store import BLOCK_ROWS
from workbench.training import train

N_FEATURES, D, MEAN_L0, OFTEN, GOAL = 2048, 256, 8, 1000, 0.95


def times_seen(features: PlantedFeatures, n_tokens: int) -> Tensor:
    """How often each feature is in the first rows."""
    seen = torch.zeros(N_FEATURES)
    for index, start in enumerate(range(0, n_tokens, BLOCK_ROWS)):
        block, n_rows = features.block(index, BLOCK_ROWS), min(BLOCK_ROWS, n_tokens - start)
        kept = block.indices[:n_rows][block.values[:n_rows] > 0]
        seen += torch.bincount(kept, minlength=N_FEATURES)
    return seen


def trained(
    features: PlantedFeatures, architecture: str, seed: int, n_tokens: int, *, shuffled: bool
) -> Dictionary:
    """A dictionary of as many latents as features, k their mean number."""
    with tempfile.TemporaryDirectory() as folder:
        store = plant(Path(folder), features, n_rows=n_tokens, shuffled=shuffled)
        return train(
            Path(folder), store=store, architecture=architecture, d_sae=N_FEATURES, k=MEAN_L0,
            n_tokens=n_tokens, seed=seed,
        )  # fmt: skip


def report(
    name: str, seed: int, dictionary: Dictionary, features: PlantedFeatures, seen: Tensor, took: float
) -> None:
    """One line: mean max cosine over common, rare and all features, and fidelity on other rows."""
    cosine = (features.directions @ functional.normalize(dictionary.W_dec, dim=1).T).amax(1)
    x = features.block(10**6, 4096).x
    indices, values = dictionary.encode(x)
    missed = (x - dictionary.decode(indices, values)).square().sum() / (x - x.mean(0)).square().sum()
    common = seen >= OFTEN
    reached = float(cosine[common].mean())
    print(
        f"{name:28} {seed:4} {int(common.sum()):6} {reached:9.4f} {float((cosine[common] > 0.9).float().mean()):8.1%} "
        f"{float(cosine[~common].mean()):7.3f} {float(missed):6.3f} {float((values > 0).sum(1).float().mean()):5.2f} "
        f"{took:6.0f}  {'goal reached' if reached >= GOAL else ''}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=819_200)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{'dictionary':28} {'seed':>4} {'common':>6} {'max cos':>9} {'> 0.9':>8} {'rare':>7} {'FVU':>6} {'L0':>5} "
        f"{'s':>6}"
    )
    for seed in range(arguments.seeds):
        features = planted_features(n_features=N_FEATURES, d=D, mean_l0=float(MEAN_L0), seed=seed)
        seen = times_seen(features, arguments.tokens)
        for name in ("topk", "batch_topk"):
            start = time.perf_counter()
            dictionary = trained(features, name, seed, arguments.tokens, shuffled=False)
            report(name, seed, dictionary, features, seen, time.perf_counter() - start)
            if name == "topk":
                report(
                    "control: random directions",
                    seed,
                    random_dictionary(like=dictionary),
                    features,
                    seen,
                    0.0,
                )
        if seed == 0:
            start = time.perf_counter()
            control = trained(features, "topk", seed, arguments.tokens, shuffled=True)
            report("control: shuffled columns", seed, control, features, seen, time.perf_counter() - start)


if __name__ == "__main__":
    main()
