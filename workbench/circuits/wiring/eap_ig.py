"""Edge attribution with integrated gradients: gradients at points between counterfactual and clean.

    inputs        the embedding moves from counterfactual to clean, everything follows:
                  score(w, r) = sum_i weight_i G_r(x_i) . change_w;  the embedding's edges sum to m(clean) - m(cf)
    activations   one writer's output moves, everything before it stays clean:
                  score(w, r) = sum_i weight_i G_r(w_i) . change_w;  a writer's edges sum to its exact node effect

With `inputs` one set of passes serves all edges. With `activations` every writer has its own path and its gradients
are used for its own edges only, at the price of passes a writer; only what lies after it is run.
The rule is named (`workbench.circuits.quadrature`) and the completeness gap reported.

Limits: where MLPs are steps and attention a hard choice (compiled programs), the gradient is zero along either path
for some edges with an effect; own paths miss fewer of them (tests/causal/test_wiring_truth.py). `exact.py` is safe.

Sources: Sundararajan, Taly, Yan 2017, arXiv:1703.01365; Hanna, Pezzelle, Belinkov 2024, arXiv:2403.17806 (EAP-IG);
Marks et al. 2024, arXiv:2403.19647 (one activation at a time).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.quadrature import DEFAULT, Quadrature, quadrature
from workbench.circuits.wiring.along import MAX_BYTES, chunks, score_along
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.edge_scores import EdgeScores, as_batches, mean_scores
from workbench.circuits.wiring.tape import forward
from workbench.circuits.wiring.writer_path import Pair, path_scores
from workbench.progress import Progress
from workbench.tasks import Batch

STEPS = 5


def eap_ig_inputs(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    *,
    rule: str = DEFAULT,
    steps: int = STEPS,
    per_prompt: bool = False,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> EdgeScores:
    """Effect of every edge with gradients along the input's path, in logits. Status: first-order.

    Args:
        wiring: The model's edges.
        batches: Prompt pairs.
        rule: Of `workbench.circuits.quadrature.QUADRATURES`.
        steps: Points on the path.
        per_prompt: Keep the scores of single prompts.
        max_bytes: Bound on the table of changes of one chunk of prompts.
        progress: Advanced by one a prompt.

    Returns:
        The scores; the gap is that of m(clean) - m(counterfactual), mean over prompts of absolute values.
    """
    line = quadrature(rule, steps)
    return score_along(
        wiring, batches, tuple(zip(line.points, line.weights, strict=True)),
        method="EAP-IG inputs", settings={"quadrature": str(line)},
        per_prompt=per_prompt, max_bytes=max_bytes, progress=progress,
    )  # fmt: skip


def eap_ig_activations(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    *,
    rule: str = DEFAULT,
    steps: int = STEPS,
    per_prompt: bool = False,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> EdgeScores:
    """Effect of every edge with gradients along its own writer's path, in logits. Status: first-order.

    Arguments as `eap_ig_inputs`; `progress` is advanced by one a writer and chunk.

    Returns:
        The scores; the gap is that of the exact node effects, mean over writers and prompts of absolute values.
    """
    line = quadrature(rule, steps)
    pieces, gaps = [], []
    for batch in chunks(wiring, as_batches(batches), max_bytes):
        scores, missing = _activations_chunk(wiring, batch, line, progress)
        pieces.append(scores if per_prompt else scores.sum(0, keepdim=True))
        gaps.append(missing)
    every, gap = torch.cat(pieces), torch.cat(gaps, 1)
    mean = mean_scores(wiring, every.sum(0), gap.shape[1])
    kept = every.masked_fill(~wiring.allowed.to(every.device), float("nan")) if per_prompt else None
    settings = {"quadrature": str(line)}
    return EdgeScores(wiring, mean, "EAP-IG activations", settings, gap.shape[1], kept, float(gap.mean()))


def _activations_chunk(
    wiring: Wiring, batch: Batch, line: Quadrature, progress: Progress | None
) -> tuple[Float[Tensor, "prompt writer reader"], Float[Tensor, "writer prompt"]]:
    """Scores of single prompts, and what each writer's edges lack to its exact node effect."""
    anatomy = wiring.anatomy
    clean, other = anatomy.embed(batch.clean), anatomy.embed(batch.counterfactual)
    pair = Pair(wiring, batch, forward(anatomy, clean, batch), forward(anatomy, other, batch))
    total = clean.new_zeros(len(clean), wiring.n_writers, wiring.n_readers)
    gaps = []
    for writer in range(wiring.n_writers):
        total[:, writer], effect = path_scores(pair, writer, line)
        gaps.append((total[:, writer].sum(-1) - effect).abs())
        if progress is not None:
            progress.advance(1)
    return total, torch.stack(gaps)
