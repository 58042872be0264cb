"""One training step, ours against the plain dense TopK step in torch autograd; same sizes, same run.

    python tests/benchmarks/bench_train_step.py [--threads 2] [--repeats 15] [--clock wall]

Both steps do the same work on the same batch: losses with AuxK, backward, projection of the decoder
gradient, fused Adam, renormalisation. Steps of the two alternate, so that other load on the machine meets
both; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from workbench.dictionaries.topk import TopKTrainee
from workbench.training.schedule import Schedule
from workbench.training.step import Trainer

OPTIONS = {"aux_coefficient": 1 / 32, "k_aux": None, "dead_after_tokens": 10**6}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class DenseTrainee(TopKTrainee):
    """The same losses, written as one would with dense matrices."""

    def losses(self, x: Tensor):
        p, options = self.parameters, self.options
        x = x * self.scale
        pre = (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
        top = pre.topk(options.k, dim=1)
        self._count(top.indices, top.values.detach())
        error = x - torch.zeros_like(pre).scatter(1, top.indices, top.values.relu()) @ p["W_dec"] - p["b_dec"]
        loss, dead = error.square().mean(), self.dead(options.dead_after_tokens)
        if dead.any():
            target, k = error.detach(), min(self.k_aux, int(dead.sum()))
            chosen = pre.masked_fill(~dead, -torch.inf).topk(k, dim=1)
            z = torch.zeros_like(pre).scatter(1, chosen.indices, chosen.values.relu())
            share = (z @ p["W_dec"] - target).square().sum() / (target - target.mean(0)).square().sum()
            loss = loss + options.aux_coefficient * share
        return type("Losses", (), {"loss": loss})


def make(kind: type[TopKTrainee], sample: Tensor, d_sae: int, k: int, n_dead: int) -> Callable[[], None]:
    """A function that does one step."""
    generator = torch.Generator().manual_seed(0)
    trainee = kind.initialise(sample, {"d_sae": d_sae, "k": k, **OPTIONS}, generator)
    with torch.no_grad():
        trainee.parameters["b_enc"][:n_dead] = -4  # too low to be among the k largest, so these stay dead
    trainer = Trainer(trainee, Schedule(1e-4, 10**6, 0.0, 0.0))

    def step() -> None:
        trainee.tokens_since_fired[:n_dead] = 10**7
        trainer.train_batch(sample)

    return step


def alternate(steps: list[Callable[[], None]], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Median milliseconds of each, in turns."""
    taken: list[list[float]] = [[] for _ in steps]
    for turn in range(repeats + 2):
        for step, times in zip(steps, taken, strict=True):
            start = clock()
            step()
            if turn >= 2:
                times.append(1e3 * (clock() - start))
    return [median(times) for times in taken]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: immune to other load; one thread only"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"one training step on {arguments.threads} CPU threads, medians of {arguments.repeats}")
    print(
        f"{'batch':>6} {'d_in':>5} {'d_sae':>6} {'k':>3} {'dead':>5} "
        f"{'ours ms':>9} {'dense ms':>9} {'ratio':>6} {'tokens/s':>9}"
    )
    for batch, d_in, d_sae, k, n_dead in [
        (2048, 256, 4096, 32, 0),
        (2048, 256, 4096, 32, 64),
        (2048, 256, 4096, 32, 1024),
        (4096, 256, 4096, 32, 0),
    ]:
        sample = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(1))
        steps = [make(kind, sample, d_sae, k, n_dead) for kind in (TopKTrainee, DenseTrainee)]
        ours, dense = alternate(steps, arguments.repeats, CLOCKS[arguments.clock])
        rate = batch / ours * 1e3
        print(
            f"{batch:6} {d_in:5} {d_sae:6} {k:3} {n_dead:5} {ours:9.1f} {dense:9.1f} {dense / ours:6.2f} {rate:9,.0f}"
        )


if __name__ == "__main__":
    main()
