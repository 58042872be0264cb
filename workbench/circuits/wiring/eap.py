"""Edge attribution patching: the effect of every edge to first order, from three passes.

    score(w, r) = sum over positions of  dm/d(input of r) . (clean - counterfactual write of w)

The gradient is taken at the clean prompt. Exact where m is linear in what flows along the edge; where attention or a
norm saturates, that gradient is small and the score with it, however large the true effect (`eap_ig.py` is the remedy,
`exact.py` the measure). `two_point` takes the mean of the gradients at both ends.

Sources: Nanda 2023 (attribution patching); Syed, Rager, Conmy 2023, arXiv:2310.10348 (edges).
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.circuits.wiring.along import MAX_BYTES, score_along
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.progress import Progress
from workbench.tasks import Batch


def eap(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    *,
    per_prompt: bool = False,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> EdgeScores:
    """First-order effect of every edge at the clean prompts, in logits. Status: first-order.

    Args:
        wiring: The model's edges.
        batches: Prompt pairs.
        per_prompt: Keep the scores of single prompts.
        max_bytes: Bound on the table of changes of one chunk of prompts.
        progress: Advanced by one a prompt.
    """
    return score_along(
        wiring, batches, ((1.0, 1.0),), method="EAP", settings={"gradient_at": "clean"},
        per_prompt=per_prompt, max_bytes=max_bytes, progress=progress,
    )  # fmt: skip


def two_point(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    *,
    per_prompt: bool = False,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> EdgeScores:
    """The same with the mean of the gradients at the clean and the counterfactual prompt. Status: first-order."""
    return score_along(
        wiring, batches, ((1.0, 0.5), (0.0, 0.5)), method="EAP two-point",
        settings={"gradient_at": "clean and counterfactual"},
        per_prompt=per_prompt, max_bytes=max_bytes, progress=progress,
    )  # fmt: skip
