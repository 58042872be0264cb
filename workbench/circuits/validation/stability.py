"""Would other prompts have given the same circuit? Overlap of the k best under resampling and rephrasing.

    Jaccard(A, B) = |A and B| / |A or B|        1 the same circuit, 0 disjoint ones (`workbench.circuits.scoring`)

Resampling: the per-prompt scores are drawn with replacement, averaged, ranked; the circuit is compared with that of
all prompts. Rephrasing: two sets of prompts of one task in different words are scored each on their own and
compared; its interval draws both sets anew. What two random circuits of that size share is given beside.

Limits: first-order scores are resampled as they are, so what the score misses does not show here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.scoring.curves import RANKINGS
from workbench.circuits.scoring.stability import jaccard, random_jaccard
from workbench.errors import UserError, nearest
from workbench.intervals import Estimate, percentile_interval

Scores = Float[Tensor, "prompt part"]


@dataclass(frozen=True)
class Stability:
    """How much of a circuit comes again.

    Attributes:
        jaccard: Mean overlap; the interval holds 95% of the resamples.
        n_kept: k.
        random_jaccard: Expected overlap of two random circuits of that size.
        n_prompts: Prompts of each side.
        between: `resamples` or `phrasings`.
    """

    jaccard: Estimate
    n_kept: int
    random_jaccard: float
    n_prompts: tuple[int, ...]
    between: str


def resampling_stability(
    scores: Scores, k: int, *, order: str = "absolute", n_resamples: int = 200, seed: int = 0
) -> Stability:
    """Mean Jaccard overlap of the k best of resampled prompts with the k best of all. Status: bootstrap.

    Args:
        scores: One an edge or node for each prompt, for instance EAP before the mean over prompts.
        k: Size of the circuit.
        order: `signed` or `absolute`, of the mean score.
        n_resamples: Bootstrap resamples.
        seed: Of the resampling.

    Raises:
        UserError: k is no size of a circuit of these, or fewer than 2 prompts.
    """
    _check(scores, k, order)
    values = scores.detach().cpu().double().numpy()
    whole = _top(values.mean(0)[None], k, order)[0]
    rng = np.random.default_rng(seed)
    drawn = _top(_resampled_means(values, n_resamples, rng), k, order)
    overlaps = _overlaps(drawn, np.broadcast_to(whole, drawn.shape))
    found = Estimate(float(overlaps.mean()), *percentile_interval(overlaps))
    return Stability(found, k, random_jaccard(k, k, values.shape[1]), (len(values),), "resamples")


def rephrasing_stability(
    first: Scores,
    second: Float[Tensor, "other_prompt other_part"],
    k: int,
    *,
    order: str = "absolute",
    n_resamples: int = 200,
    seed: int = 0,
) -> Stability:
    """Jaccard overlap of the k best of two phrasings of a task. Status: exact for these prompts; bootstrap interval.

    Args:
        first: Scores of each prompt in the one phrasing.
        second: Scores in the other; the number of prompts may differ.
        k: Size of the circuit.
        order: `signed` or `absolute`, of the mean score.
        n_resamples: Bootstrap resamples of both sides.
        seed: Of the resampling.

    Raises:
        UserError: as `resampling_stability`, or scores of different models.
    """
    for side in (first, second):
        _check(side, k, order)
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"first scores {first.shape[1]} parts and second {second.shape[1]}: give scores of one model's parts"
        )
    sides = [side.detach().cpu().double().numpy() for side in (first, second)]
    value = _overlaps(*(_top(side.mean(0)[None], k, order) for side in sides))[0]
    rng = np.random.default_rng(seed)
    overlaps = _overlaps(*(_top(_resampled_means(side, n_resamples, rng), k, order) for side in sides))
    found = Estimate(float(value), *percentile_interval(overlaps))
    return Stability(found, k, random_jaccard(k, k, first.shape[1]), (len(first), len(second)), "phrasings")


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jaccard row by row."""
    return np.array([jaccard(a, b) for a, b in zip(first, second, strict=True)])


def _resampled_means(values: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Mean scores of each resample, one row a resample."""
    drawn = rng.integers(len(values), size=(n_resamples, len(values)))
    return np.stack([values[rows].mean(0) for rows in drawn])


def _top(means: np.ndarray, k: int, order: str) -> np.ndarray:
    """Which are among the k best of each row; ties go to the earlier ones."""
    scores = means if order == "signed" else np.abs(means)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(found, best, True, axis=1)
    return found


def _check(scores: Tensor, k: int, order: str) -> None:
    if order not in RANKINGS:
        raise UserError(f"order {order!r} is not known; {nearest(order, RANKINGS)}")
    if not 1 <= k <= scores.shape[1]:
        raise UserError(f"k {k} is not between 1 and the {scores.shape[1]} scored parts")
    if len(scores) < 2:
        raise UserError(
            f"scores of {len(scores)} prompt cannot be resampled: give at least 2, and 20 for a fair interval"
        )
    if not torch.isfinite(scores).all():
        raise UserError("scores hold values that are not finite: give a number for each prompt and part")
