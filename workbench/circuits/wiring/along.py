"""Edge scores from gradients at points between the counterfactual and the clean embedding.

    score(w, r) = sum over positions of  sum_i weight_i G_r(x_i) . change_w,     x_i = cf + point_i (clean - cf)

G_r is the gradient of m at the input of reader r, change_w what writer w adds on the clean prompt minus what it adds
on the counterfactual one. `eap.py` and `eap_ig.py` choose the points.

**Completeness.** The embedding reaches m only through its own edges, so its scores sum to the integrated gradient of
the input, and with an exact rule to m(clean) - m(counterfactual). The gap is what is missing, as a mean over prompts
of absolute differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.deltas import has_post_norms, write_deltas
from workbench.circuits.wiring.edge_scores import EdgeScores, as_batches, mean_scores
from workbench.circuits.wiring.gradients import reader_gradients
from workbench.circuits.wiring.tape import Tape, forward, record
from workbench.errors import UserError
from workbench.progress import Progress
from workbench.tasks import Batch

MAX_BYTES = 2**30
Points = Sequence[tuple[float, float]]


def score_along(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    points: Points,
    *,
    method: str,
    settings: dict[str, object],
    per_prompt: bool = False,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> EdgeScores:
    """Scores of all edges, in logits. Status: first-order.

    Args:
        wiring: The model's edges.
        batches: Prompt pairs.
        points: (point, weight): shares of the way from counterfactual (0) to clean (1).
        method: Name for the result.
        settings: Of the method, for the result.
        per_prompt: Keep the scores of single prompts.
        max_bytes: Bound on the table of changes of one chunk of prompts.
        progress: Advanced by one a prompt.

    Raises:
        UserError: no prompts, or `max_bytes` below what one prompt needs.
    """
    pieces, gaps = [], []
    for batch in chunks(wiring, as_batches(batches), max_bytes):
        scores, ends = score_chunk(wiring, batch, points)
        pieces.append(scores if per_prompt else scores.sum(0, keepdim=True))
        gaps.append((scores[:, 0].sum(-1) - ends).abs())
        if progress is not None:
            progress.advance(len(scores))
    every, gap = torch.cat(pieces), torch.cat(gaps)
    mean = mean_scores(wiring, every.sum(0), len(gap))
    kept = every.masked_fill(~wiring.allowed.to(every.device), float("nan")) if per_prompt else None
    return EdgeScores(wiring, mean, method, settings, len(gap), kept, float(gap.mean()))


def score_chunk(
    wiring: Wiring, batch: Batch, points: Points
) -> tuple[Float[Tensor, "prompt writer reader"], Float[Tensor, " prompt"]]:
    """Scores of single prompts, and m(clean) - m(counterfactual)."""
    anatomy = wiring.anatomy
    clean, other = anatomy.embed(batch.clean), anatomy.embed(batch.counterfactual)
    replaced = forward(anatomy, other, batch)
    tapes = {1.0: record(anatomy, clean, batch)} if any(point == 1.0 for point, _ in points) else {}
    run = tapes.get(1.0) or forward(anatomy, clean, batch)
    total = clean.new_zeros(len(clean), wiring.n_writers, wiring.n_readers)
    table = None
    for point, weight in points:
        tape = tapes.get(point) or record(anatomy, other + point * (clean - other), batch)
        if table is None or has_post_norms(wiring):
            table = write_deltas(wiring, clean - other, run.values, replaced.values, tape.values)
        add_products(wiring, total, table, tape, weight)
    return total, run.metric_logits - replaced.metric_logits


@torch.no_grad()
def add_products(
    wiring: Wiring,
    total: Float[Tensor, "prompt writer reader"],
    table: Float[Tensor, "writer prompt pos d_model"],
    tape: Tape,
    weight: float,
) -> None:
    """Add weight . sum over positions of gradient . change to the total of every edge."""
    for columns, gradient in reader_gradients(wiring, tape):
        n_before = int(wiring.allowed[:, columns[0]].sum())
        changes = table[:n_before, :, -gradient.shape[2] :].transpose(0, 1).flatten(2)
        products = torch.bmm(changes, gradient.transpose(0, 1).flatten(2).transpose(1, 2))
        total[:, :n_before, columns[0] : columns[-1] + 1] += weight * products


def chunks(wiring: Wiring, batches: Sequence[Batch], max_bytes: int) -> Iterator[Batch]:
    """The batches in pieces whose tables fit `max_bytes`.

    Raises:
        UserError: one prompt does not fit.
    """
    for batch in batches:
        n_prompts, length = batch.clean.shape
        one = bytes_of(wiring, length)
        if one > max_bytes:
            raise UserError(
                f"max_bytes {max_bytes} is less than the {one} bytes that one prompt of {length} tokens needs: "
                "raise it or shorten the prompts"
            )
        at_once = max_bytes // one
        for start in range(0, n_prompts, at_once):
            yield batch.take(slice(start, start + at_once))


def bytes_of(wiring: Wiring, length: int) -> int:
    """Bytes of one prompt, about: changes, gradients of a layer's readers, what the backward pass keeps."""
    anatomy = wiring.anatomy
    vectors = wiring.n_writers + 3 * anatomy.n_heads + 24 * anatomy.n_layers
    return vectors * length * anatomy.d_model * anatomy.readout.W_U.element_size()
