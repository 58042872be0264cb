"""Two processes train next to one: run by torchrun from test_distributed.py, writes what differs as JSON.

torchrun --nproc-per-node 2 tests/training/distributed_worker.py OUT.json ["own selection"]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from workbench.dictionaries import Trainee, make_architecture
from workbench.dictionaries.layouts import Single
from workbench.training.distributed import MODES, Place, exchange
from workbench.training.distributed.together import SharedTrainer
from workbench.training.optimiser_options import OptimiserOptions
from workbench.training.schedule import Schedule
from workbench.training.source import Batch
from workbench.training.step import Trainer

N_STEPS, ROWS, D, D_SAE = 6, 64, 12, 48
CASES = {
    "topk": ("topk", {}, {"dead_after_tokens": 100}),
    "batch_topk": ("batch_topk", {}, {"dead_after_tokens": 100}),
    "transcoder": ("topk", {"transcodes": True, "skip": True}, {"aux_coefficient": 0.0}),
    "relu": ("relu", {}, {}),
}


def whole(case: str) -> Trainee:
    """A fresh trainee, the same in every process."""
    name, wiring, common = CASES[case]
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(400, D, generator=generator) * 2 + 1
    architecture = make_architecture(name, {"d_sae": D_SAE, "k": 4, **common}, {})
    layout = Single(d_in=D, d_out=D, **wiring)
    target = sample.flip(1) if wiring else None
    trainee = Trainee.initialise(architecture, layout, sample, target, generator=generator)
    with torch.no_grad():
        trainee.parameters["b_enc"][: D_SAE // 8] -= 6  # these stay dead: the auxiliary loss is at work
    return trainee


def batches(case: str) -> list[Batch]:
    """What is trained on."""
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randn(ROWS, D, generator=generator) * 2 + 1 for _ in range(N_STEPS)]
    return [Batch(x, x.flip(1) if CASES[case][1] else None) for x in rows]


def trained(trainer: Trainer, case: str) -> list[float]:
    """Trains in place; the unexplained variance of every step."""
    return [float(trainer.train_batch(batch).fvu) for batch in batches(case)]


def compared(case: str, mode: str) -> dict[str, float]:
    """Largest difference of every tensor from one process, relative to its largest entry."""
    schedule, options = Schedule(1e-2, N_STEPS, 0.0, 0.0), OptimiserOptions()
    place = Place(mode, dist.get_rank(), dist.get_world_size())
    together = SharedTrainer(Trainer(whole(case), schedule, options), place, options, seed=0)
    alone = Trainer(whole(case), schedule, options)
    expected, found = trained(alone, case), trained(together, case)
    differences = {"fvu": max(abs(a - b) for a, b in zip(expected, found, strict=True))}
    differences["dead"] = float(alone.trainee.dead().sum())
    own = together.state()
    for name, tensor in alone.state().items():
        exact = tensor.detach().double()
        gap = (own[name].detach().double() - exact).abs().max()
        differences[name] = float(gap / exact.abs().max().clamp_min(1e-9))
    return differences


def main() -> None:
    """All cases in both modes; rank 0 writes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    if "own selection" in sys.argv:
        exchange._among_largest = lambda values, n: torch.ones_like(values, dtype=torch.bool)
    found = {
        f"{case} {mode}": compared(case, mode)
        for case in CASES
        for mode in MODES
        if not (case == "relu" and mode == "latents")
    }
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
