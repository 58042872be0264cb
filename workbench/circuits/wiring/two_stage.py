"""Screen all edges by gradients, then patch the most promising ones exactly.

EAP-IG costs few passes and may be far off for any one edge; exact patching costs a pass an edge and is never off. So
the edges of largest estimated size, `top_frac` of all and at least `at_least`, are patched, and their exact effects
take the place of the estimates. The others keep the estimate: what the screen misses stays missed.

The screen follows the inputs' path, a few passes for all writers together; where attention is saturated all along it,
its gradients are zero and an edge is never looked at. `screen="activations"` follows each writer's own path, at some
passes a writer, and misses less (tests/causal/test_wiring_truth.py).

Status: exact for the patched edges (`EdgeScores.exact`), first-order for the others.
Sources: Syed, Rager, Conmy 2023, arXiv:2310.10348 (estimates before exact patching); BlackboxNLP shared task 2025.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.circuits.quadrature import DEFAULT
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.eap_ig import STEPS, eap_ig_activations, eap_ig_inputs
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.circuits.wiring.exact import exact_edges
from workbench.errors import UserError, nearest
from workbench.progress import Progress
from workbench.tasks import Batch

AT_LEAST = 100
SCREENS = {"inputs": eap_ig_inputs, "activations": eap_ig_activations}


def two_stage(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    *,
    top_frac: float = 0.05,
    at_least: int = AT_LEAST,
    screen: str = "inputs",
    rule: str = DEFAULT,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> EdgeScores:
    """Effects of all edges, in logits: exact for the largest estimates, estimated for the others.

    Args:
        wiring: The model's edges.
        batches: Prompt pairs.
        top_frac: Share of all edges that is patched, in (0, 1].
        at_least: Patch at least so many edges (or all there are).
        screen: EAP-IG along the inputs' path ("inputs") or each writer's own ("activations").
        rule: Quadrature of the screen.
        steps: Its points.
        progress: Advanced by one a patched edge and chunk of prompts.

    Raises:
        UserError: `top_frac` is no share, or an unknown screen.
    """
    if not 0 < top_frac <= 1:
        raise UserError(f"top_frac {top_frac} is not a share: give a number above 0, at most 1")
    if screen not in SCREENS:
        raise UserError(f"screen {screen!r} is not known; {nearest(screen, SCREENS)}")
    estimate = SCREENS[screen](wiring, batches, rule=rule, steps=steps)
    n = min(wiring.n_edges, max(at_least, round(top_frac * wiring.n_edges)))
    edges = [edge for edge, _ in estimate.top(n)]
    measured = exact_edges(wiring, batches, edges, progress=progress)
    scores = torch.where(measured.scores.isnan(), estimate.scores, measured.scores)
    chosen = {"screen": estimate.method, "top_frac": top_frac, "at_least": at_least, "n_exact": n}
    settings = {**estimate.settings, **chosen}
    return EdgeScores(
        wiring, scores, "two-stage", settings, estimate.n_prompts, None, estimate.completeness_gap_logits,
        measured.evaluations, exact=measured.scores, estimated=estimate.scores,
    )  # fmt: skip
