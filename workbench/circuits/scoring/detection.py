"""How well edge scores find the true edges: AUROC and AUPRC with intervals, beside random scores.

The unit of the bootstrap is what was drawn independently. Over beds (models with known edges) each bed gives one
AUROC and the mean is resampled. Over prompts of one bed the scores are means over prompts, so each resample
averages other prompts and is scored anew; that interval says nothing about other models.

Random scores are the null: the same number of beds, every edge with an independent random number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.circuits.scoring.curves import (
    Scores,
    Truth,
    as_record,
    auprc,
    auroc,
    ranked_by,
)
from workbench.errors import UserError
from workbench.intervals import N_RESAMPLES, Estimate, estimate, mean_estimate, percentile_interval

N_RANDOM = 200
Score = Callable[..., float]


@dataclass(frozen=True)
class Detection:
    """AUROC and AUPRC of edge scores, with those of random scores.

    Attributes:
        auroc: Chance that a true edge ranks above another; the mean over beds where there are several.
        auprc: Average precision, likewise.
        random_auroc: Mean under random scores, and the middle 95% of them.
        random_auprc: Likewise; its mean is about the share of true edges.
        n_true: True edges of all beds.
        n_edges: Edges of all beds.
        unit: What was resampled: `bed` or `prompt`.
        n_units: How many there are.
        ranking: `absolute` or `signed`.
    """

    auroc: Estimate
    auprc: Estimate
    random_auroc: Estimate
    random_auprc: Estimate
    n_true: int
    n_edges: int
    unit: str
    n_units: int
    ranking: str

    def as_dict(self) -> dict[str, Any]:
        """Flat JSON."""
        return as_record(**vars(self))


def detection_over_beds(
    scores: Sequence[Scores],
    truths: Sequence[Truth],
    *,
    ranking: str = "absolute",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Detection:
    """AUROC and AUPRC, means over beds.

    Args:
        scores: Of each bed, one score an edge.
        truths: Of each bed, which edges are true.
        ranking: By size or with sign.
        n_resamples: Bootstrap resamples over beds.
        seed: Of the resampling and of the random scores.

    Raises:
        UserError: no bed, not as many truths as scores, or what `curves` refuses.

    Status: exact values; the interval is the percentile bootstrap over beds.
    """
    if len(scores) != len(truths):
        raise UserError(f"scores has {len(scores)} beds and truths {len(truths)}: give both for every bed")
    resampling = {"n_resamples": n_resamples, "seed": seed}
    found = tuple(
        mean_estimate(_of_each(score, scores, truths, ranking), **resampling) for score in (auroc, auprc)
    )
    return _detection(found, truths, unit="bed", n_units=len(scores), ranking=ranking, seed=seed)


def detection_over_prompts(
    scores: Float[np.ndarray, "prompt edge"],
    truth: Truth,
    *,
    ranking: str = "absolute",
    n_resamples: int = 1_000,
    seed: int = 0,
) -> Detection:
    """AUROC and AUPRC of the scores averaged over prompts, on one bed.

    Args:
        scores: One score a prompt and edge, each the prompt's own effect.
        truth: Which edges are true.
        ranking: By size or with sign, of the mean.
        n_resamples: Bootstrap resamples over prompts.
        seed: Of the resampling and of the random scores.

    Raises:
        UserError: no prompt, or what `curves` refuses.

    Status: exact values; the interval is the percentile bootstrap over prompts.
    """
    ranked_by(scores, ranking)

    def over(score: Score) -> Estimate:
        def statistic(counts: np.ndarray) -> np.ndarray:
            return np.array([score(row, truth, ranking=ranking) for row in counts @ scores / len(scores)])

        return estimate(statistic, len(scores), n_resamples=n_resamples, seed=seed)

    found = over(auroc), over(auprc)
    return _detection(found, [truth], unit="prompt", n_units=len(scores), ranking=ranking, seed=seed)


def random_scores(
    score: Score, truths: Sequence[Truth], *, n_random: int = N_RANDOM, seed: int = 0
) -> Estimate:
    """Mean of `auroc` or `auprc` over beds under random scores, with the middle 95% of `n_random` draws.

    Status: exact up to the number of draws; the interval is of single draws, not of their mean.
    """
    rng = np.random.default_rng(seed)
    draws = np.array(
        [np.mean([score(rng.random(len(truth)), truth) for truth in truths]) for _ in range(n_random)]
    )
    return Estimate(float(draws.mean()), *percentile_interval(draws))


def _of_each(score: Score, scores: Sequence[Scores], truths: Sequence[Truth], ranking: str) -> np.ndarray:
    return np.array([score(s, t, ranking=ranking) for s, t in zip(scores, truths, strict=True)])


def _detection(
    found: tuple[Estimate, ...],
    truths: Sequence[Truth],
    *,
    unit: str,
    n_units: int,
    ranking: str,
    seed: int,
) -> Detection:
    return Detection(
        auroc=found[0],
        auprc=found[1],
        random_auroc=random_scores(auroc, truths, seed=seed),
        random_auprc=random_scores(auprc, truths, seed=seed),
        n_true=sum(int(truth.sum()) for truth in truths),
        n_edges=sum(len(truth) for truth in truths),
        unit=unit,
        n_units=n_units,
        ranking=ranking,
    )
