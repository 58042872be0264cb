"""Exact ROC and precision-recall curves of edge scores against a truth set, over all edges.

Edges of equal score are one step of a curve: they come in together. So a score that says nothing (all equal) has
AUROC 1/2 and an AUPRC equal to the share of true edges, and no order of the edges can change either number.

    AUROC = P(score of a true edge > score of another) + 1/2 P(equal)      (Mann-Whitney: trapezoids under the ROC)
    AUPRC = sum over steps of (recall gained) * (precision after the step)  (average precision, no interpolation)

True edges are few (often below 5 of 100), so AUPRC says more than AUROC on how useful the top of a ranking is;
its value for random scores is the share of true edges. Source of the caution: Davis and Goadrich 2006,
"The relationship between precision-recall and ROC curves", ICML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from workbench.errors import UserError, nearest

RANKINGS = ("absolute", "signed")
Scores = Float[np.ndarray, " edge"]
Truth = Bool[np.ndarray, " edge"]
Steps = Float[np.ndarray, " step"]


@dataclass(frozen=True, eq=False)
class Curves:
    """ROC and precision-recall curves, one entry a distinct score, highest first.

    Attributes:
        threshold: Edges of this score and above are taken (step).
        true_positive_frac: Share of the true edges taken, the recall (step).
        false_positive_frac: Share of the other edges taken (step).
        precision_frac: Share of true edges among the taken (step).
    """

    threshold: Steps
    true_positive_frac: Steps
    false_positive_frac: Steps
    precision_frac: Steps

    @property
    def auroc(self) -> float:
        """Area under the ROC curve from (0, 0) to (1, 1) by trapezoids."""
        x, y = (np.concatenate([[0.0], part]) for part in (self.false_positive_frac, self.true_positive_frac))
        return float(np.trapezoid(y, x))

    @property
    def auprc(self) -> float:
        """Average precision."""
        gained = np.diff(self.true_positive_frac, prepend=0.0)
        return float((gained * self.precision_frac).sum())

    def as_dict(self) -> dict[str, list[float]]:
        """JSON, one list a column."""
        names = ("threshold", "true_positive_frac", "false_positive_frac", "precision_frac")
        return {name: getattr(self, name).tolist() for name in names}


def curves(scores: Scores, truth: Truth, *, ranking: str = "absolute") -> Curves:
    """ROC and precision-recall curves over all edges.

    Args:
        scores: One score an edge.
        truth: Which edges are true.
        ranking: Whether edges are ranked by the size of their score or by the score with its sign.

    Raises:
        UserError: a score that is NaN, no true edge or no other edge, or an unknown ranking.

    Status: exact.
    """
    ranked = ranked_by(scores, ranking)
    _check_truth(ranked, truth)
    order = np.argsort(-ranked, kind="stable")
    falling, hits = ranked[order], truth[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    true, taken = np.cumsum(hits)[last], last + 1
    n_true = int(hits.sum())
    return Curves(
        threshold=falling[last].astype(np.float64),
        true_positive_frac=true / n_true,
        false_positive_frac=(taken - true) / (len(hits) - n_true),
        precision_frac=true / taken,
    )


def auroc(scores: Scores, truth: Truth, *, ranking: str = "absolute") -> float:
    """Chance that a true edge scores above another one, equals counting half. Status: exact.

    Raises:
        UserError: as for `curves`.
    """
    return curves(scores, truth, ranking=ranking).auroc


def auprc(scores: Scores, truth: Truth, *, ranking: str = "absolute") -> float:
    """Average precision of the ranking of the edges. Status: exact.

    Raises:
        UserError: as for `curves`.
    """
    return curves(scores, truth, ranking=ranking).auprc


def ranked_by(scores: Float[np.ndarray, ...], ranking: str) -> Float[np.ndarray, ...]:
    """The numbers by which edges are ranked, largest first.

    Raises:
        UserError: a score that is NaN, or an unknown ranking.
    """
    if ranking not in RANKINGS:
        raise UserError(f"ranking {ranking!r} is not known; {nearest(ranking, RANKINGS)}")
    if np.isnan(scores).any():
        edge = int(np.argwhere(np.isnan(scores))[0][-1])
        raise UserError(f"the score of edge {edge} is nan, which has no rank: give every edge a number")
    return np.abs(scores) if ranking == "absolute" else scores


def as_record(**parts: Any) -> dict[str, Any]:
    """Flat JSON of named parts: what has an `as_dict` of a name is spread, the rest is kept."""
    flat: dict[str, Any] = {}
    for name, part in parts.items():
        flat.update(part.as_dict(name) if hasattr(part, "as_dict") else {name: part})
    return flat


def _check_truth(scores: Scores, truth: Truth) -> None:
    if len(scores) != len(truth):
        raise UserError(f"scores has {len(scores)} edges and truth {len(truth)}: give both for every edge")
    n_true = int(truth.sum())
    if n_true in (0, len(truth)):
        raise UserError(
            f"truth marks {n_true} of {len(truth)} edges: a ranking is judged on true and other edges, at least 1 each"
        )
