"""Optimal ablation: for each node the constant that does the least harm, learned by gradient.

    minimise over constants c     E_pairs E_K  softplus(-m(K; c)),      K a random set of kept nodes

softplus(-m) is the cross-entropy of the answer against the counterfactual answer, so a constant is good when the
model still prefers the answer without the node. The constants start at the means, are the same at every position
and prompt, and are learned in units of the node's own spread. K keeps each node with one probability that is
drawn anew for every set, so that small and large circuits count alike. One pair in
four is kept aside with sets of its own: of the means and the constants on the way, those with the least loss there
are returned, so that pairs are not learned by heart and the result is never worse than the means there.

Limits: a local optimum of a finite number of steps; few pairs are learned by heart all the same, so judge on others.
A constant repairs what its node does on average, which is what it is for.
Source: Li and Janson 2024, arXiv:2409.09951 (constants and their objective; the sampling of sets is ours).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.validation.node_runs import node_metrics, run_nodes
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.replacement import Replacement, replacement_run
from workbench.tasks import Batch

Positions = Sequence[Bool[Tensor, " pos"] | None]
N_CHECK_MASKS = 16
CHECK_EVERY = 25


@dataclass(frozen=True, eq=False)
class OptimalConstants:
    """Learned constants and what they are worth.

    Attributes:
        constants: One row of one position a node.
        mean_loss_nats: Loss of the means on the check sets.
        optimal_loss_nats: Loss of the constants on the same sets.
    """

    constants: Replacement
    mean_loss_nats: float
    optimal_loss_nats: float


def optimal_constants(
    anatomy: Anatomy,
    batches: Sequence[Batch],
    start: Replacement,
    *,
    positions: Positions | None = None,
    n_steps: int = 100,
    n_masks: int = 8,
    n_prompts: int = 4,
    learning_rate: float = 0.03,
    seed: int = 0,
) -> OptimalConstants:
    """Constants of every node with the least loss, in nats, under random ablations. Status: learned.

    Args:
        anatomy: The model.
        batches: Pairs to learn on; one in four is kept aside and decides when to stop.
        start: Mean values, one row of one position.
        positions: Per batch, where nodes are replaced.
        n_steps: Adam steps.
        n_masks: Random sets in a step.
        n_prompts: Pairs in a step.
        learning_rate: Of Adam, in units of each node's spread.
        seed: Of sets and pairs; bit-reproducible on the CPU.

    Returns:
        The constants, and the losses of means and constants on pairs and sets that were not trained on.
    """
    where = [None] * len(batches) if positions is None else list(positions)
    wiring, generator = Wiring(anatomy), torch.Generator().manual_seed(seed)
    parts = [_halves(batch) for batch in batches]
    kept = random_kept(N_CHECK_MASKS, wiring.n_writers, generator)
    check = _Check(wiring, [part.aside for part in parts], where, kept)
    sizes = _StepSizes(n_steps, n_masks, n_prompts, learning_rate)
    best, best_loss = start, (first := check.loss(start))
    for learned in _path(wiring, [part.learned for part in parts], where, start, sizes, generator):
        if (found := check.loss(learned)) < best_loss:
            best, best_loss = learned, found
    return OptimalConstants(best, first, best_loss)


class _StepSizes(NamedTuple):
    n_steps: int
    n_masks: int
    n_prompts: int
    learning_rate: float


def _path(
    wiring: Wiring,
    batches: Sequence[Batch],
    where: Positions,
    start: Replacement,
    sizes: _StepSizes,
    generator: torch.Generator,
) -> Iterator[Replacement]:
    """Constants on the way down, after every `CHECK_EVERY` steps and the last."""
    spread = _spread(wiring.anatomy, batches[0], start)
    shift = start.map(lambda v: torch.zeros_like(v, requires_grad=True))
    optimiser = torch.optim.Adam(_leaves(shift), lr=sizes.learning_rate)
    for step in range(sizes.n_steps):
        at = step % len(batches)
        pairs = _drawn_pairs(batches[at], sizes.n_prompts, generator)
        kept = random_kept(sizes.n_masks, wiring.n_writers, generator)
        _descend(
            optimiser,
            lambda i=at, p=pairs, k=kept: _loss(wiring, p, _moved(start, shift, spread, where[i]), k),
        )
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == sizes.n_steps:
            yield _moved(start, shift, spread, None).map(lambda v: v.detach())


def random_kept(n_masks: int, n_writers: int, generator: torch.Generator) -> Bool[Tensor, "mask writer"]:
    """Random sets: a share for each set, then each node with that probability."""
    share = torch.rand(n_masks, 1, generator=generator)
    return torch.rand(n_masks, n_writers, generator=generator) < share


def _loss(wiring: Wiring, batch: Batch, values: Replacement, kept: Tensor) -> Float[Tensor, ""]:
    """softplus(-m) in nats, mean over sets and prompts."""
    embedded = wiring.anatomy.embed(batch.clean)
    return torch.nn.functional.softplus(-run_nodes(wiring, batch, embedded, values, kept)).mean()


@dataclass(frozen=True, eq=False)
class _Check:
    """Pairs and sets of nodes that decide which constants are the best."""

    wiring: Wiring
    batches: Sequence[Batch]
    positions: Positions
    kept: Bool[Tensor, "mask writer"]

    def loss(self, constants: Replacement) -> float:
        """softplus(-m) in nats, mean over all sets and pairs."""
        losses = []
        for batch, at in zip(self.batches, self.positions, strict=True):
            values = Replacement(constants.embed, constants.z, constants.mlp, at)
            metrics = node_metrics(self.wiring, batch, values, self.kept)
            losses.append(torch.nn.functional.softplus(-metrics).flatten())
        return float(torch.cat(losses).mean())


class _Halves(NamedTuple):
    learned: Batch
    aside: Batch


def _halves(batch: Batch) -> _Halves:
    """Three pairs in four to learn on, one in four aside; a single pair serves for both."""
    rows = torch.arange(len(batch.answer))
    aside = rows % 4 == 3 if len(rows) > 3 else rows == rows[-1]
    learned = ~aside if len(rows) > 1 else aside
    return _Halves(batch.take(learned), batch.take(aside))


def _moved(start: Replacement, shift: Replacement, spread: Replacement, where: Tensor | None) -> Replacement:
    """start + spread shift."""
    moved = [a + s * d for a, s, d in zip(_leaves(start), _leaves(spread), _leaves(shift), strict=True)]
    n = len(start.z)
    return Replacement(moved[0], tuple(moved[1 : 1 + n]), tuple(moved[1 + n :]), where)


@torch.no_grad()
def _spread(anatomy: Anatomy, batch: Batch, start: Replacement) -> Replacement:
    """Root mean square distance of each node's values from the start, one number a node."""
    seen = replacement_run(anatomy, batch.counterfactual)
    sizes = [
        (value - mean).square().mean((0, 1, -1), keepdim=True).sqrt()
        for value, mean in zip(_leaves(seen), _leaves(start), strict=True)
    ]
    n = len(start.z)
    return Replacement(sizes[0], tuple(sizes[1 : 1 + n]), tuple(sizes[1 + n :]))


def _leaves(values: Replacement) -> list[Tensor]:
    return [values.embed, *values.z, *values.mlp]


def _descend(optimiser: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """One step down the gradient; values that no set has replaced stay."""
    leaves = [leaf for group in optimiser.param_groups for leaf in group["params"]]
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(), leaves, allow_unused=True)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        leaf.grad = gradient
    optimiser.step()


def _drawn_pairs(batch: Batch, n: int, generator: torch.Generator) -> Batch:
    return batch.take(torch.randperm(len(batch.answer), generator=generator)[:n])
