"""Small transformers trained to implement a known program at known heads and MLPs, and nothing elsewhere.

bed = make_testbed("siit.two_hop")

Their weights look like those of any trained model, but which node holds which variable is known by training:
exchanging a node's output between prompts acts as exchanging its variable in the program, and exchanging any
other node changes nothing. The share of prompts for which that holds is in `accuracies`.

**What is known of the edges.** Training fixes the nodes, and with them which pairs of nodes communicate:
those of the program. It does not fix whether a head takes what it reads by its query, key or value. That
split is measured, by exact patching, when the weights are made: of the readers of a head that a program
edge leads to, the true ones are those with at least `SPLIT_FRAC` of the mean logit difference.

**Limits.** Training does not forbid a wire that the program does not have between two of its nodes, as long as the
reader's variable stays right. In `clamp` one (m0 to the value of a1.h2) changes the logit difference by 3.9 logits on
average, where the weakest true edge changes it by 4.9.

`python -m workbench.testbeds.siit two_hop` trains the weights again.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from workbench.assets import asset_folder
from workbench.testbeds.native import boot
from workbench.testbeds.pairs import Draw, Drawn, sampler
from workbench.testbeds.plain import Plain, difference, edge_effects
from workbench.testbeds.siit.high_level import PROGRAMS, HighLevel
from workbench.testbeds.siit.train import Accuracies, shape_of
from workbench.testbeds.truth import Builder, Edge, TestBed, nodes_of

SPLIT_FRAC, SPLIT_PAIRS = 0.1, 512
NOTE = (
    "Nodes and pairs of nodes are known by training; how a head's edges split over query, key and value is measured "
    "by exact patching. Other nodes have small effects."
)


def folder() -> Path:
    """Where the trained weights lie."""
    return asset_folder("data") / "testbeds/siit"


def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a program, and the record of their training."""
    record = json.loads((folder() / f"{name}.json").read_text())
    return load_file(folder() / f"{name}.safetensors"), record


def accuracies(name: str) -> Accuracies:
    """What training reached, on prompts that it had not seen.

    Args:
        name: Of the program, without its family: "two_hop".
    """
    return Accuracies(**load(name)[1]["accuracies"])


def pairs(program: HighLevel) -> Draw:
    """A random prompt, and the same with one or more inputs drawn anew and another answer."""

    def draw(rng: random.Random, index: int) -> Drawn:
        while True:
            clean = [rng.randrange(program.n_values) for _ in range(program.n_inputs)]
            other = list(clean)
            for place in rng.sample(range(program.n_inputs), 1 + index % program.n_inputs):
                other[place] = rng.randrange(program.n_values)
            inputs = torch.tensor([clean, other])
            answers = program.answer(inputs).tolist()
            if answers[0] != answers[1]:
                return Drawn(*program.prompts(inputs).tolist(), *answers)

    return draw


def split_edges(program: HighLevel, model: Plain, *, seed: int) -> list[tuple[str, str, float]]:
    """The program's edges by reader, with the mean absolute effect of each in logits. Status: exact.

    Args:
        program: Whose edges.
        model: The trained weights.
        seed: Decides the pairs.
    """
    batch = sampler(pairs(program))(SPLIT_PAIRS, seed)
    least = SPLIT_FRAC * float(difference(model.run(batch.clean)[0].detach(), batch).mean())
    candidates = [(u, reader) for u, v in program.edges for reader in _readers(v)]
    sizes = {edge: float(e.abs().mean()) for edge, e in edge_effects(model, batch, candidates).items()}
    return [(*edge, size) for edge, size in sizes.items() if size >= least or "." not in edge[1]]


def _readers(node: str) -> list[str]:
    return [f"{node}.{part}" for part in "qkv"] if ".h" in node else [node]


def _builder(name: str) -> Builder:
    def make(*, dtype: torch.dtype = torch.float32) -> TestBed:
        program = PROGRAMS[name]
        weights, record = load(name)
        edges: frozenset[Edge] = frozenset((u, v) for u, v, _ in record["edges"])
        return TestBed(
            name=f"siit.{name}",
            title=program.title,
            description=program.description,
            model=boot(weights, shape_of(program), dtype=dtype),
            sampler=sampler(pairs(program)),
            nodes=nodes_of(edges),
            edges=edges,
            note=NOTE,
        )

    return make


BEDS = {name: _builder(name) for name in PROGRAMS}
