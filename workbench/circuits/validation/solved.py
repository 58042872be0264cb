"""Can the model do the task at all? A circuit of what a model cannot do explains nothing.

Accuracy is the share of clean prompts whose answer has a larger logit than the counterfactual answer; chance is
one half. The task counts as solved when accuracy lies at least `margin_frac` above chance and its interval lies
above chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from workbench.anatomy import Anatomy
from workbench.circuits.metric import logit_difference
from workbench.errors import UserError
from workbench.intervals import Estimate, mean_estimate
from workbench.tasks import Batch

CHANCE_FRAC = 0.5
MARGIN_FRAC = 0.2


@dataclass(frozen=True)
class Solved:
    """How well a model does a task.

    Attributes:
        accuracy_frac: Share of pairs with the answer above the counterfactual answer.
        clean_logits: Mean logit difference of the clean prompts.
        counterfactual_logits: The same of the counterfactual prompts, scored by the clean answer.
        margin_frac: How far above chance accuracy has to be.
        solved: Whether it is.
    """

    accuracy_frac: Estimate
    clean_logits: Estimate
    counterfactual_logits: Estimate
    margin_frac: float
    solved: bool


@torch.no_grad()
def check_solved(
    anatomy: Anatomy,
    batches: Sequence[Batch],
    *,
    name: str = "task",
    margin_frac: float = MARGIN_FRAC,
    allow_unsolved: bool = False,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Solved:
    """Accuracy of the model on a task, as a share; refuses one that it cannot do. Status: exact; intervals over pairs.

    Args:
        anatomy: The model.
        batches: The pairs, by length.
        name: Of the task, for the message.
        margin_frac: How far above chance (one half) accuracy has to be.
        allow_unsolved: Go on all the same.
        n_resamples: Bootstrap resamples.
        seed: Of the resampling.

    Raises:
        UserError: accuracy is below chance plus margin, or not above chance beyond its interval.
    """
    here = [batch.to(anatomy.device) for batch in batches]
    clean, other = (
        torch.cat(
            [logit_difference(anatomy.last_logits(anatomy.embed(getattr(b, which)), 0), b) for b in here]
        )
        for which in ("clean", "counterfactual")
    )
    options = {"n_resamples": n_resamples, "seed": seed}
    accuracy = mean_estimate((clean > 0).cpu().numpy(), **options)
    solved = accuracy.value >= CHANCE_FRAC + margin_frac and accuracy.low > CHANCE_FRAC
    if not solved and not allow_unsolved:
        raise UserError(_refusal(name, accuracy, len(clean), margin_frac))
    first, second = (mean_estimate(m.cpu().double().numpy(), **options) for m in (clean, other))
    return Solved(accuracy, first, second, margin_frac, solved)


def _refusal(name: str, accuracy: Estimate, n_pairs: int, margin_frac: float) -> str:
    return (
        f"the model does not do {name!r}: it prefers the answer in {accuracy.value:.0%} of {n_pairs} pairs (95% "
        f"interval {accuracy.low:.0%} to {accuracy.high:.0%}), chance is {CHANCE_FRAC:.0%} and at least "
        f"{CHANCE_FRAC + margin_frac:.0%} is asked for; use another task or model, or go on with allow_unsolved=True"
    )
