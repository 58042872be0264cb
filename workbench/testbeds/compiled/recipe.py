"""A recipe: plan, truth and prompts of one hand-compiled bed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from workbench.testbeds.compiled.build import build
from workbench.testbeds.compiled.plan import Plan
from workbench.testbeds.pairs import Draw, sampler
from workbench.testbeds.truth import Builder, Edge, TestBed, nodes_of

GAIN = 5.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a bed is made from.

    Attributes:
        title: One line.
        description: What the prompts ask and how the model answers.
        plan: Its circuit on paper.
        edges: The true edges for the pairs that `draw` makes.
        draw: Makes one pair.
        note: What a score on this bed must take into account.
    """

    title: str
    description: str
    plan: Callable[[], Plan]
    edges: tuple[Edge, ...]
    draw: Draw
    note: str = ""


def builder(name: str, recipe: Recipe) -> Builder:
    """The bed of a recipe at any sharpness, leak and seed."""

    def make(
        *, sharpness: float = 10.0, leak: float = 0.05, seed: int = 0, dtype: torch.dtype = torch.float64
    ) -> TestBed:
        return TestBed(
            name=f"compiled.{name}",
            title=recipe.title,
            description=recipe.description,
            model=build(recipe.plan(), sharpness=sharpness, leak=leak, seed=seed, dtype=dtype),
            sampler=sampler(recipe.draw),
            nodes=nodes_of(recipe.edges),
            edges=frozenset(recipe.edges),
            note=recipe.note,
        )

    return make
