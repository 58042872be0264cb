"""`python -m workbench.testbeds.siit two_hop`: train a program's transformer again, on one thread."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from workbench.errors import UserError
from workbench.testbeds.siit import folder, split_edges
from workbench.testbeds.siit.high_level import PROGRAMS
from workbench.testbeds.siit.train import Accuracies, measure, train


def make(name: str, *, seed: int, n_steps: int, target: Path) -> None:
    """Train, measure on other prompts, and write weights and record.

    Raises:
        UserError: the accuracies were not reached.
    """
    program, steps = PROGRAMS[name], []

    def report(step: int, found: Accuracies) -> None:
        steps.append(step)
        sys.stdout.write(f"{step} {found}\n")
        sys.stdout.flush()

    model, _ = train(program, seed=seed, n_steps=n_steps, report=report)
    weights = {key: weight.detach().contiguous() for key, weight in model.weights.items()}
    record = {
        "seed": seed,
        "steps": steps[-1],
        "accuracies": asdict(measure(program, model, seed=seed + 10**6)),
        "edges": split_edges(program, model, seed=seed + 10**6),
    }
    target.mkdir(parents=True, exist_ok=True)
    save_file(weights, target / f"{name}.safetensors")
    (target / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(prog="python -m workbench.testbeds.siit", description=__doc__)
    parser.add_argument("name", choices=sorted(PROGRAMS))
    parser.add_argument("--seed", type=int, default=0, help="decides first weights and prompts")
    parser.add_argument("--steps", type=int, default=20_000, help="most steps")
    parser.add_argument("--target", type=Path, default=folder(), help="folder to write to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        make(given.name, seed=given.seed, n_steps=given.steps, target=given.target)
    except UserError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
