"""Prompt pairs from a rule: the samplers of the test beds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from workbench.tasks import Batch


class Drawn(NamedTuple):
    """One pair: clean prompt, counterfactual prompt, their answers."""

    clean: Sequence[int]
    counterfactual: Sequence[int]
    answer: int
    counterfactual_answer: int


Draw = Callable[[random.Random, int], Drawn]


def sampler(draw: Draw) -> Callable[[int, int], Batch]:
    """(n_pairs, seed) to a batch; `draw` gets a random source and the pair's index.

    The index lets a bed go through its kinds of counterfactual in turn, so that every path of its circuit
    is changed by some pairs of any batch.
    """

    def sample(n_pairs: int, seed: int) -> Batch:
        rng = random.Random(seed)
        return stack([draw(rng, index) for index in range(n_pairs)])

    return sample


def stack(pairs: Sequence[Drawn]) -> Batch:
    """Pairs of one length as a batch."""
    return Batch(
        torch.tensor([list(p.clean) for p in pairs]),
        torch.tensor([list(p.counterfactual) for p in pairs]),
        torch.tensor([p.answer for p in pairs]),
        torch.tensor([p.counterfactual_answer for p in pairs]),
    )


def differing(
    prompt: Callable[[random.Random], list[int]],
    answer: Callable[[list[int]], int],
    change: Callable[[random.Random, int, list[int]], list[int]],
) -> Draw:
    """Draws a prompt and changes until the answer is another one."""

    def draw(rng: random.Random, index: int) -> Drawn:
        while True:
            clean = prompt(rng)
            other = change(rng, index, clean)
            if answer(clean) != answer(other):
                return Drawn(clean, other, answer(clean), answer(other))

    return draw
