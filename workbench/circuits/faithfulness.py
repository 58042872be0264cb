"""Faithfulness and completeness of sets of nodes, with intervals and size-matched random sets.

    faithfulness(C) = (m(C) - m(empty)) / (m(M) - m(empty)),    completeness(C) = faithfulness(M \\ C)

m(C) is the mean logit difference with everything outside C ablated, M keeps every node and the empty set
none. The whole model scores 1 and the empty set 0 by construction; a faithful circuit is near 1 and a
complete one leaves its complement near 0. Both are ratios of means over prompts and are resampled as
such. Where the whole model is not above the empty set beyond its interval, there is no behaviour to keep
(the model does not do the task, or the ablation does not harm it), and the ratio is given as NaN.

Sources: Wang et al. 2022, arXiv:2211.00593; Marks et al. 2024, arXiv:2403.19647; on how much such scores
depend on the protocol: Miller, Chughtai, Saunders 2024, arXiv:2407.08734.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.circuits.nodes import Node
from workbench.intervals import UNDEFINED, Estimate, difference_estimate, ratio_estimate


def faithfulness(
    metric: np.ndarray, *, full: np.ndarray, empty: np.ndarray, n_resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Faithfulness of one set from m of each prompt, in logits; NaN where full is not above empty.

    Args:
        metric: m with the set kept (prompt).
        full: m with every node kept (prompt).
        empty: m with no node kept (prompt).
        n_resamples: Bootstrap resamples over prompts.
        seed: Of the resampling.

    Status: exact for these prompts and this ablation; the interval is over prompts
    (tests/causal/test_ablation.py).
    """
    drop = difference_estimate(full, empty, paired=True, n_resamples=n_resamples, seed=seed)
    if not drop.low > 0:
        return UNDEFINED
    return ratio_estimate(metric - empty, full - empty, n_resamples=n_resamples, seed=seed)


def random_sets(
    chosen: Sequence[Node], pool: Sequence[Node], *, n_sets: int, seed: int
) -> list[frozenset[Node]]:
    """Random sets with as many nodes of each kind as `chosen`, drawn from `pool` without replacement.

    The control of a circuit: what any set of that size keeps.
    """
    rng = np.random.default_rng(seed)
    by_kind: Mapping[str, list[Node]] = {
        kind: [node for node in pool if node.kind == kind] for kind in sorted({node.kind for node in pool})
    }
    sizes = {kind: sum(node.kind == kind for node in chosen) for kind in by_kind}
    return [
        frozenset(
            nodes[i]
            for kind, nodes in by_kind.items()
            for i in rng.choice(len(nodes), sizes[kind], replace=False)
        )
        for _ in range(n_sets)
    ]
