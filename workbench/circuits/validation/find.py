"""The recipe for a task's circuit: score edges, keep the fewest that do the task, prune, judge on other pairs.

    1  pairs are split in two halves; the model has to do the task (`solved.py`)
    2  on the first half: edges are scored and ranked; for every size up to the goal's share, the best edges without
       dead ones are judged, all in one batched run
    3  the smallest size whose intervals lie within the goal (f and completeness) is pruned of nodes that it does
       not need; if what is left is out of the goal, the next size is tried
    4  on the second half: f, completeness, minimality of every node, and the nulls

Nothing of steps 2 and 3 sees the second half. Sizes are judged by their intervals, not by their values, so that the
smallest of many is no lucky one. Where no size reaches the goal the one that lacks least is judged all the same,
and `reached` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor

from workbench.circuits.faithfulness import faithfulness
from workbench.circuits.validation.curves import N_RESAMPLES, Faithful, Resampling, judge_circuit
from workbench.circuits.validation.judge import EdgeRun, Judge, Mask, open_judge
from workbench.circuits.validation.minimality import Minimality, Pruned, minimality, prune_to_minimal
from workbench.circuits.validation.nulls import (
    Control,
    RandomCircuits,
    compare,
    random_circuits,
    recovered_logits,
)
from workbench.circuits.validation.pairs import shuffled_answers, two_halves
from workbench.circuits.validation.protocol import RESAMPLE, Protocol
from workbench.circuits.validation.ranking import Ranking, nodes_in
from workbench.circuits.validation.solved import Solved, check_solved
from workbench.circuits.wiring.catalogue import Wiring
from workbench.intervals import Estimate
from workbench.tasks import Batch

if TYPE_CHECKING:
    from workbench.circuits.wiring.edge_scores import EdgeScores

Score = Callable[[Wiring, Sequence[Batch]], "EdgeScores"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a circuit has to reach.

    Attributes:
        edges_frac: At most this share of all edges.
        faithfulness_frac: At least this f.
        completeness_frac: At most this f of the rest.
    """

    edges_frac: float = 0.05
    faithfulness_frac: float = 0.9
    completeness_frac: float = 0.1

    def lacks(self, faithful: float, complete: float) -> float:
        """How far two numbers are out of the goal; 0 within it, infinite where they are not defined."""
        if np.isnan(faithful) or np.isnan(complete):
            return float("inf")
        return max(0.0, self.faithfulness_frac - faithful) + max(0.0, complete - self.completeness_frac)


@dataclass(frozen=True, eq=False)
class FoundCircuit:
    """A task's circuit with everything that speaks for and against it; judged on pairs it was not chosen on.

    Attributes:
        name: Of the task.
        mask: The circuit (writer, reader).
        nodes: Its writers.
        method: How edges were scored.
        goal: What was asked for.
        solved: Whether the model does the task.
        chosen: The circuit on the pairs it was chosen on.
        judged: The circuit on the other pairs.
        minimality: Of every node, on the other pairs.
        dropped: Nodes that pruning took out.
        random: The circuit among random ones of its size.
        controls: Random weights (where a model was given) and shuffled answers.
    """

    name: str
    mask: Tensor
    nodes: tuple[str, ...]
    method: str
    goal: Goal
    solved: Solved
    chosen: Faithful
    judged: Faithful
    minimality: Minimality
    dropped: tuple[str, ...]
    random: RandomCircuits
    controls: tuple[Control, ...]

    @property
    def reached(self) -> bool:
        """Whether f, completeness and size are within the goal and every node is needed, all on the other pairs."""
        found = self.judged.faithfulness_frac.value, self.judged.completeness_frac.value
        small = self.judged.kept_frac <= self.goal.edges_frac
        return small and self.goal.lacks(*found) == 0 and self.minimality.all_positive

    def row(self) -> dict[str, Any]:
        """One row of a table of tasks."""
        return {
            "task": self.name,
            "reached": self.reached,
            **self.judged.faithfulness_frac.as_dict("faithfulness_frac"),
            **self.judged.completeness_frac.as_dict("completeness_frac"),
            "n_edges": self.judged.n_kept,
            "edges_frac": self.judged.kept_frac,
            "n_nodes": len(self.nodes),
            "all_nodes_needed": self.minimality.all_positive,
            "least_minimality_low_logits": min(
                (e.low for e in self.minimality.effects), default=float("nan")
            ),
            "random_as_good_frac": self.random.as_good_frac.value,
            "random_as_good_frac_high": self.random.as_good_frac.high,
            "recovered_logits": self.controls[0].circuit.value,
            **{f"{c.name}_logits": c.control.value for c in self.controls},
            "beats_controls": self.random.beats_control and all(c.beats_control for c in self.controls),
        }


def find_circuit(
    wiring: Wiring,
    batches: Sequence[Batch],
    score: Score,
    *,
    name: str = "task",
    protocol: Protocol = RESAMPLE,
    goal: Goal | None = None,
    order: str = "absolute",
    random_model: Wiring | None = None,
    n_random: int = 100,
    allow_unsolved: bool = False,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    run_edges: EdgeRun | None = None,
) -> FoundCircuit:
    """The smallest circuit of edges that does a task, judged on pairs it was not chosen on. Status: exact for these.

    Args:
        wiring: The model's writers, readers and edges.
        batches: The pairs, by length.
        score: Scores edges on some pairs, for instance `eap_ig_inputs`.
        name: Of the task.
        protocol: How what lies outside the circuit is removed.
        goal: Size, faithfulness and completeness; by default 5%, 0.9 and 0.1.
        order: Rank scores `absolute` or `signed`.
        random_model: The wiring of a freshly initialised model of the same shape, as a control.
        n_random: Random circuits.
        allow_unsolved: Go on where the model cannot do the task.
        n_resamples: Bootstrap resamples over pairs.
        seed: Of the halves, the nulls and the resampling.
        run_edges: Runs edge masks; by default the edge executor.

    Raises:
        UserError: a task that the model cannot do, or fewer than two pairs of some length.
    """
    options: Resampling = {"n_resamples": n_resamples, "seed": seed}
    goal = goal or Goal()
    here = [batch.to(wiring.anatomy.device) for batch in batches]
    solved = check_solved(wiring.anatomy, here, name=name, allow_unsolved=allow_unsolved, **options)
    halves = two_halves(here, seed=seed)
    first, second = (
        open_judge(wiring, protocol, half, reference=halves[0], run_edges=run_edges) for half in halves
    )
    scored = score(wiring, halves[0])
    found = choose(first, Ranking(wiring, scored.scores, order), goal, **options)
    return FoundCircuit(
        name=name,
        mask=found.mask,
        nodes=tuple(nodes_in(found.mask, wiring)),
        method=scored.method,
        goal=goal,
        solved=solved,
        chosen=judge_circuit(first, found.mask, **options),
        dropped=found.dropped,
        **_evidence(second, found.mask, random_model, n_random, **options),
    )


def _evidence(
    judge: Judge, mask: Mask, random_model: Wiring | None, n_random: int, **options: Unpack[Resampling]
) -> dict[str, Any]:
    """What speaks for a circuit on pairs that it was not chosen on."""
    return {
        "judged": judge_circuit(judge, mask, **options),
        "minimality": minimality(judge, mask, **options),
        "random": random_circuits(judge, mask, n_circuits=n_random, matched="kind+layer", **options),
        "controls": _controls(judge, mask, _judge_of(random_model, judge), **options),
    }


def choose(judge: Judge, ranking: Ranking, goal: Goal, *, n_resamples: int, seed: int) -> Pruned:
    """The smallest circuit of a ranking within the goal, pruned to nodes that it needs.

    Args:
        judge: The pairs to choose on.
        ranking: Of edges.
        goal: Size, faithfulness and completeness.
        n_resamples: Bootstrap resamples.
        seed: Of the resampling.

    Returns:
        The circuit; where none is within the goal, the one that lacks least.
    """
    options: Resampling = {"n_resamples": n_resamples, "seed": seed}
    circuits = candidates(judge, ranking, goal)
    lacking = _lacking(judge, circuits, goal, **options)
    best: tuple[float, Pruned] | None = None
    for index in [i for i, lack in enumerate(lacking) if lack == 0] or [int(np.argmin(lacking))]:
        pruned = prune_to_minimal(judge, circuits[index], **options)
        lack = _lacking(judge, [pruned.mask], goal, **options)[0]
        if best is None or lack < best[0]:
            best = lack, pruned
        if lack == 0:
            break
    assert best is not None
    return best[1]


def candidates(judge: Judge, ranking: Ranking, goal: Goal) -> list[Mask]:
    """The best 1, 2, 3, ... edges without dead ones, each circuit once, up to the goal's share."""
    largest = max(1, int(goal.edges_frac * ranking.n_total))
    found: list[Mask] = []
    for size in range(1, ranking.n_total + 1):
        alive = judge.alive(ranking.top([size])[0])
        if int(alive.sum()) > largest:
            break
        if alive.any() and not (found and torch.equal(alive, found[-1])):
            found.append(alive)
    return found or [ranking.top([largest])[0]]


def _lacking(
    judge: Judge, circuits: Sequence[Mask], goal: Goal, **options: Unpack[Resampling]
) -> list[float]:
    """How far each circuit is out of the goal, by the ends of its intervals that speak against it."""
    masks, pool = torch.stack(list(circuits)), judge.whole(circuits[0])
    metrics = judge.metrics(torch.cat([masks, pool & ~masks, torch.stack([pool, torch.zeros_like(pool)])]))
    n, (full, empty) = len(circuits), metrics[-2:]
    faithful = [faithfulness(m, full=full, empty=empty, **options).low for m in metrics[:n]]
    complete = [faithfulness(m, full=full, empty=empty, **options).high for m in metrics[n : 2 * n]]
    return [goal.lacks(f, c) for f, c in zip(faithful, complete, strict=True)]


def _judge_of(model: Wiring | None, like: Judge) -> Judge | None:
    return None if model is None else open_judge(model, like.protocol, like.batches)


def _controls(
    judge: Judge, mask: Mask, random_judge: Judge | None, **options: Unpack[Resampling]
) -> tuple[Control, ...]:
    """What the circuit recovers where there is nothing to find."""

    def measure(one: Judge) -> Estimate:
        return recovered_logits(one, mask, **options)

    others = shuffled_answers(judge.batches, seed=options["seed"])
    shuffled = replace(judge, batches=tuple(others))
    found = [compare("shuffled-answers", measure, judge, shuffled)]
    if random_judge is not None:
        found.append(compare("random-weights", measure, judge, random_judge))
    return tuple(found)
