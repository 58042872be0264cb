"""How much circuits agree when prompts are resampled or rephrased: Jaccard of the edge sets.

    J(A, B) = |A and B| / |A or B|

The mean is over all pairs of sets. Pairs share sets, so the interval resamples the sets: a pair counts as often
as both its sets were drawn together, a set is never paired with itself, and draws of one set alone (they hold no
pair) are left out. Beside it stands what random sets of the same sizes share.

That circuits found on resampled and rephrased prompts differ: "Demystifying variance in circuit discovery",
arXiv:2606.16920.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from workbench.circuits.scoring.curves import as_record, ranked_by
from workbench.errors import UserError
from workbench.intervals import Estimate, percentile_interval, resampled

EdgeSet = Bool[np.ndarray, " edge"]
EdgeSets = Bool[np.ndarray, "set edge"]
MIN_SETS = 3


@dataclass(frozen=True)
class Stability:
    """Agreement of edge sets.

    Attributes:
        jaccard: Mean over pairs of sets; the interval is NaN below 3 sets.
        random_jaccard: Mean over pairs for random sets of the same sizes.
        n_sets: Sets.
        n_edges: Edges they were chosen from.
        mean_size_edges: Mean number of edges in a set.
    """

    jaccard: Estimate
    random_jaccard: float
    n_sets: int
    n_edges: int
    mean_size_edges: float

    def as_dict(self) -> dict[str, Any]:
        """Flat JSON."""
        return as_record(**vars(self))


def jaccard(first: EdgeSet, second: EdgeSet) -> float:
    """Share of the edges of either set that both have; NaN of two empty sets. Status: exact."""
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else float("nan")


def top_k_set(scores: Float[np.ndarray, " edge"], k: int, *, ranking: str = "absolute") -> EdgeSet:
    """The k highest-ranked edges.

    Raises:
        UserError: k is not in 1 .. edges, it cuts through edges of equal score, or what `ranked_by` refuses.

    Status: exact.
    """
    if not 1 <= k <= len(scores):
        raise UserError(f"k {k} is not between 1 and the {len(scores)} edges: give a number of edges")
    ranked = ranked_by(scores, ranking)
    last = np.partition(ranked, len(ranked) - k)[len(ranked) - k]
    chosen = ranked >= last
    if int(chosen.sum()) > k:
        above = int((ranked > last).sum())
        n_equal = int(chosen.sum()) - above
        raise UserError(
            f"k {k} cuts through {n_equal} edges of equal score {last:g}, so their order would decide: "
            f"give k {above or n_equal}"
        )
    return chosen


def top_k_stability(
    scores: Float[np.ndarray, "set edge"],
    k: int,
    *,
    ranking: str = "absolute",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Stability:
    """Agreement of the top-k edges of several scorings (resamples, rephrasings, seeds) of the same edges.

    Raises:
        UserError: fewer than 2 scorings, or what `top_k_set` refuses.

    Status: exact value; the interval is the percentile bootstrap over scorings.
    """
    sets = np.stack([top_k_set(row, k, ranking=ranking) for row in scores]) if len(scores) else scores > 0
    return set_stability(sets, n_resamples=n_resamples, seed=seed)


def set_stability(sets: EdgeSets, *, n_resamples: int = 1000, seed: int = 0) -> Stability:
    """Agreement of sets of edges, of any sizes.

    Raises:
        UserError: fewer than 2 sets, or an empty one.

    Status: exact value; the interval is the percentile bootstrap over sets.
    """
    sizes = sets.sum(1)
    if len(sets) < 2 or not sizes.all():
        raise UserError(
            f"{len(sets)} sets of {sizes.tolist()} edges make no pair: give at least 2, none empty"
        )
    pairs = pair_table(sets)
    upper = np.triu_indices(len(sets), 1)
    of_pairs = [(int(sizes[i]), int(sizes[j])) for i, j in zip(*upper, strict=True)]
    chance = {both: random_jaccard(*both, sets.shape[1]) for both in set(of_pairs)}
    found = Estimate(float(pairs[upper].mean()), *_interval(pairs, n_resamples=n_resamples, seed=seed))
    return Stability(
        found,
        float(np.mean([chance[both] for both in of_pairs])),
        len(sets),
        sets.shape[1],
        float(sizes.mean()),
    )


def pair_table(sets: EdgeSets) -> Float[np.ndarray, "set set"]:
    """Jaccard of every pair of sets. Status: exact."""
    counted = sets.astype(np.float64)
    both = counted @ counted.T
    sizes = np.diag(both)
    return both / (sizes[:, None] + sizes[None, :] - both)


def random_jaccard(n_first: int, n_second: int, n_edges: int) -> float:
    """Expected Jaccard of two independent random sets of these sizes (hypergeometric overlap). Status: exact."""
    least, most = max(0, n_first + n_second - n_edges), min(n_first, n_second)
    total = _log_choose(n_edges, n_second)
    chances = [
        np.exp(_log_choose(n_first, i) + _log_choose(n_edges - n_first, n_second - i) - total)
        for i in range(least, most + 1)
    ]
    return float(sum(p * i / (n_first + n_second - i) for i, p in enumerate(chances, least)))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _interval(pairs: Float[np.ndarray, "set set"], *, n_resamples: int, seed: int) -> tuple[float, float]:
    if len(pairs) < MIN_SETS:
        return float("nan"), float("nan")
    between = np.triu(pairs, 1)
    upper = np.triu(np.ones_like(pairs), 1)

    def mean_of_pairs(counts: np.ndarray) -> np.ndarray:
        total, weight = (np.einsum("ri,ij,rj->r", counts, table, counts) for table in (between, upper))
        return np.divide(total, weight, out=np.full(len(counts), np.nan), where=weight > 0)

    rng = np.random.default_rng(seed)
    samples = resampled(mean_of_pairs, len(pairs), n_resamples=n_resamples, rng=rng)
    return percentile_interval(samples[~np.isnan(samples)])
