"""Two scores of how much of a graph is explained rather than left to error nodes.

    replacement_score_frac = influence(tokens) / (influence(tokens) + influence(errors))
    explained_input_frac   = sum_t share_t (influence[t] + p[t]) / sum_t (influence[t] + p[t])

share_t is the part of t's absolute input that listed edges from other than error nodes bring; a node without
input counts as explained. The first asks where the paths that reach the logits begin, the second how much of
each node's input is named. circuit-tracer calls the second "completeness".

Neither is a causal measure. They say nothing about whether the kept nodes suffice (faithfulness) or whether
what is left out does the task too (completeness of Wang et al. 2022, arXiv:2211.00593): those take
interventions and stand in `workbench.circuits.faithfulness`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.circuits.pruning import loops
from workbench.circuits.pruning.influence import Influence, Weights
from workbench.circuits.pruning.order import Ends

INPUTS = ("token", "embed")
MEANINGS = {
    "replacement_score_frac": "share of influence that reaches the logits from tokens rather than errors",
    "explained_input_frac": "share of input, weighted by influence, that comes from other than error nodes",
}


@dataclass(frozen=True)
class ShareScores:
    """How much of a graph is not left to error nodes; NaN where nothing reaches the logits.

    Attributes:
        replacement_score_frac: Share of influence that reaches the logits from tokens rather than errors.
        explained_input_frac: Share of input, weighted by influence, that comes from other than error nodes.
    """

    replacement_score_frac: float
    explained_input_frac: float

    def as_dict(self) -> dict[str, float]:
        """Flat JSON."""
        return {
            "replacement_score_frac": self.replacement_score_frac,
            "explained_input_frac": self.explained_input_frac,
        }


def share_scores(
    source: Ends, target: Ends, weight: Weights, *, kinds: np.ndarray, found: Influence
) -> ShareScores:
    """The two scores of a graph whose influence is known.

    Status: exact for the weights given; correlational as a statement on the model, nothing is intervened on.
    """
    tokens = float(found.node[np.isin(kinds, INPUTS)].sum())
    errors = float(found.node[kinds == "error"].sum())
    named = np.zeros(len(kinds))
    loops.input_sums_from(kinds != "error", source, target, weight, named)
    shares = np.divide(named, found.input_sums, out=np.ones(len(kinds)), where=found.input_sums > 0)
    reaching = found.reaching
    reached = tokens + errors
    return ShareScores(
        tokens / reached if reached > 0 else float("nan"), float((shares * reaching).sum() / reaching.sum())
    )
