"""Learned masks: a gate for every edge, or for every node, trained to keep the metric with few gates open.

    z = clamp(1.2 sigmoid((log u - log(1 - u) + a) / beta) - 0.1, 0, 1),      u uniform, a learned
    minimise   mean ((m(z) - m(clean)) / gap)^2  +  sparsity . mean P(z > 0)

with gap the mean of |m(clean) - m(counterfactual)|, so the first term is the squared lack of faithfulness. P(z > 0)
= sigmoid(a - beta log(0.1 / 1.1)). A gate that is shut carries the counterfactual value. The score of an edge is its
learned a, in log-odds: a baseline that knows the metric and nothing of the graph.

Limits: a stochastic optimum of a finite number of steps; redundant edges share their gates arbitrarily; the size of
the circuit follows from `sparsity`, which has no natural value. Deterministic in the seed.
Sources: Louizos, Welling, Kingma 2018, arXiv:1712.01312 (hard concrete); Cao, Sanh, Rush 2021, arXiv:2104.03514
(subnetwork probing); Bhaskar et al. 2024, arXiv:2406.16778 (edges).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.edge_scores import EdgeScores, as_batches
from workbench.circuits.wiring.readout import metric_from
from workbench.circuits.wiring.replacement import Replacement, replacement_run
from workbench.circuits.wiring.soft_run import SoftRun
from workbench.errors import UserError, nearest
from workbench.progress import Progress
from workbench.tasks import Batch

BETA, LOW, HIGH = 2.0 / 3.0, -0.1, 1.1
GATES = ("edges", "nodes")


@dataclass(frozen=True, eq=False)
class LearnedMask:
    """Gates after training.

    Attributes:
        scores: Learned a of every edge (of its writer for gates on nodes), in log-odds.
        mask: Edges whose gate is more open than shut without noise.
        losses: Squared lack of faithfulness at every step.
    """

    scores: EdgeScores
    mask: Bool[Tensor, "writer reader"]
    losses: Float[Tensor, " step"]


def learn_mask(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    *,
    gates: str = "edges",
    sparsity: float = 0.5,
    n_steps: int = 300,
    learning_rate: float = 0.1,
    n_prompts: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> LearnedMask:
    """Train gates by Adam. Status: learned; bit-reproducible in the seed on the CPU.

    Args:
        wiring: The model's edges.
        batches: Prompt pairs, one batch a step in turn.
        gates: "edges" or "nodes".
        sparsity: Weight of the mean number of open gates.
        n_steps: Adam steps.
        learning_rate: Of Adam, in log-odds.
        n_prompts: Pairs in a step.
        seed: Of the gates' noise and the pairs.
        progress: Advanced by one a step.

    Raises:
        UserError: an unknown kind of gate, or pairs on which both prompts give one metric.
    """
    if gates not in GATES:
        raise UserError(f"gates {gates!r} is not known; {nearest(gates, GATES)}")
    aims = [_Aim.of(wiring, batch) for batch in as_batches(batches)]
    generator = torch.Generator().manual_seed(seed)
    allowed = wiring.allowed.to(wiring.anatomy.device)
    shape = allowed.shape if gates == "edges" else (wiring.n_writers, 1)
    log_odds = torch.full(shape, 2.0, device=allowed.device, requires_grad=True)
    optimiser = torch.optim.Adam([log_odds], lr=learning_rate)
    losses = []
    for step in range(n_steps):
        aim = aims[step % len(aims)].drawn(n_prompts, generator)
        with torch.enable_grad():
            gate = _open(log_odds, torch.rand(shape, generator=generator).to(allowed.device))
            loss = aim.lack(gate.expand(allowed.shape) * allowed)
            open_frac = (
                (log_odds - BETA * math.log(-LOW / HIGH)).sigmoid().expand(allowed.shape)[allowed].mean()
            )
            optimiser.zero_grad()
            (loss + sparsity * open_frac).backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress.advance(1, f"lack of faithfulness {losses[-1]:.3f}")
    learned = log_odds.detach().expand(allowed.shape).masked_fill(~allowed, float("nan"))
    settings = {
        "gates": gates,
        "sparsity": sparsity,
        "n_steps": n_steps,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    scores = EdgeScores(
        wiring,
        learned,
        f"learned mask of {gates}",
        settings,
        sum(len(aim.clean) for aim in aims),
        unit="log-odds",
    )
    return LearnedMask(scores, (learned > 0).cpu(), torch.tensor(losses))


def _open(log_odds: Tensor, u: Tensor) -> Tensor:
    """Hard-concrete gates for uniform noise."""
    u = u.clamp(1e-6, 1 - 1e-6)
    stretched = ((u.logit() + log_odds) / BETA).sigmoid() * (HIGH - LOW) + LOW
    return stretched.clamp(0, 1)


@dataclass(frozen=True, eq=False)
class _Aim:
    """A batch, what removed edges carry, and the metric to keep."""

    wiring: Wiring
    batch: Batch
    replacement: Replacement
    clean: Float[Tensor, " prompt"]
    gap: float

    @classmethod
    @torch.no_grad()
    def of(cls, wiring: Wiring, batch: Batch) -> _Aim:
        clean, other = (_metric(wiring, batch, ids) for ids in (batch.clean, batch.counterfactual))
        gap = float((clean - other).abs().mean())
        if not gap > 0:
            raise UserError(
                "clean and counterfactual prompts give the same metric on these pairs, so no mask can be learned: "
                "give pairs on which the model's answers differ"
            )
        return cls(wiring, batch, replacement_run(wiring.anatomy, batch.counterfactual), clean, gap)

    def drawn(self, n: int, generator: torch.Generator) -> _Aim:
        """Some of the pairs, all of them where there are no more."""
        if len(self.clean) <= n:
            return self
        rows = torch.randperm(len(self.clean), generator=generator)[:n].to(self.clean.device)
        replacement = self.replacement.map(lambda value: value[rows])
        return replace(self, batch=self.batch.take(rows), replacement=replacement, clean=self.clean[rows])

    def lack(self, weights: Float[Tensor, "writer reader"]) -> Float[Tensor, ""]:
        """((m(z) - m(clean)) / gap)^2, mean over prompts."""
        run = SoftRun(self.wiring, self.batch, self.replacement)
        return ((run.metric(weights.to(self.clean.dtype)) - self.clean) / self.gap).square().mean()


def _metric(wiring: Wiring, batch: Batch, ids: Tensor) -> Tensor:
    anatomy = wiring.anatomy
    return metric_from(anatomy, anatomy.embed(ids), 0, batch)
