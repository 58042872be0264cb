"""ACDC: walk the edges from the logits upward and drop each whose loss is below a threshold.

    for readers from the logits back, for writers from the latest back:
        drop the edge if  loss(circuit without it) - loss(circuit) < tau

    loss   "kl"                 KL(clean prediction || prediction of the circuit) at the last position, in nats
           "logit difference"   -m, in logits

Dropped edges carry the counterfactual prompt's value; the loss is a mean over prompts. Everything before the reader
at hand is untouched so far and taken from the clean run (`plan.py`), so a step costs what lies after it.

**Same answer, fewer passes.** Several proposals run at once on the bet that each will be accepted: mask i lacks the
first i of them. The losses up to the first refusal are those that the sequential algorithm sees; later ones are thrown
away and their edges proposed again. Edges into a component that no kept edge leaves change nothing and are dropped
unmeasured, as the sequential algorithm would for any positive tau. Status: equal to the sequential algorithm up to
rounding (tests/circuits/wiring/test_acdc.py).

Limits: the result depends on the order and on tau, and an edge that a redundant one covers is dropped.
Source: Conmy et al. 2023, arXiv:2304.14997.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.edge_scores import EdgeScores, as_batches
from workbench.circuits.wiring.executor import EdgeExecutor, Session
from workbench.circuits.wiring.replacement import replacement_run
from workbench.errors import UserError, nearest
from workbench.progress import Progress
from workbench.tasks import Batch

LOSSES = {"kl": "nats", "logit difference": "logits"}
MAX_PROPOSALS = 64


@dataclass(frozen=True, eq=False)
class Acdc:
    """What ACDC found.

    Attributes:
        mask: The kept edges (writer, reader).
        scores: Rise of the loss when each edge was proposed, NaN where it was dropped unmeasured.
        loss: Of the circuit, in the loss' unit.
    """

    mask: Bool[Tensor, "writer reader"]
    scores: EdgeScores
    loss: float


def acdc(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    *,
    tau: float,
    loss: str = "kl",
    at_once: int = MAX_PROPOSALS,
    progress: Progress | None = None,
) -> Acdc:
    """The circuit at a threshold.

    Args:
        wiring: The model's edges.
        batches: Prompt pairs.
        tau: Largest rise of the loss at which an edge is dropped, in the loss' unit; above 0.
        loss: "kl" or "logit difference".
        at_once: Most proposals in one pass; the result does not depend on it.
        progress: Advanced by one an edge.

    Raises:
        UserError: an unknown loss, or tau not above 0.
    """
    if loss not in LOSSES:
        raise UserError(f"loss {loss!r} is not known; {nearest(loss, LOSSES)}")
    if not tau > 0:
        raise UserError(
            f"tau {tau} is not above 0: give the largest rise in {LOSSES[loss]} at which an edge is dropped"
        )
    search = _Search(wiring, as_batches(batches), loss, tau)
    search.run(at_once, progress)
    settings = {"tau": tau, "loss": loss, "replacement": "resample"}
    scores = EdgeScores(
        wiring, search.rises, "ACDC", settings, search.n_prompts, evaluations=search.n_runs, unit=LOSSES[loss]
    )
    return Acdc(search.mask, scores, search.current)


class _Search:
    """The state of the walk."""

    def __init__(self, wiring: Wiring, batches: list[Batch], loss: str, tau: float) -> None:
        executor = EdgeExecutor(wiring.anatomy, wiring)
        self.wiring, self.loss, self.tau = wiring, loss, tau
        self.sessions = [
            session
            for batch in batches
            for session in executor.sessions(batch, replacement_run(wiring.anatomy, batch.counterfactual))
        ]
        self.clean = [session.logits(wiring.allowed[None])[0].log_softmax(-1) for session in self.sessions]
        self.mask = wiring.allowed.clone()
        self.rises = self.clean[0].new_full(self.mask.shape, float("nan"))
        self.n_prompts = sum(len(clean) for clean in self.clean)
        self.n_runs = 0
        self.current = float(self.losses(self.mask[None])[0])

    def losses(self, masks: Bool[Tensor, "mask writer reader"]) -> Float[Tensor, " mask"]:
        """The loss under each mask, mean over prompts."""
        self.n_runs += len(masks)
        parts = [self._summed(*both, masks) for both in zip(self.sessions, self.clean, strict=True)]
        return torch.stack(parts).sum(0).cpu() / self.n_prompts

    def _summed(self, session: Session, clean: Tensor, masks: Tensor) -> Float[Tensor, " mask"]:
        if self.loss == "logit difference":
            return -session.metrics(masks).sum(1)
        found = session.logits(masks).log_softmax(-1)
        return (clean.exp() * (clean - found)).sum((1, 2))

    def run(self, at_once: int, progress: Progress | None) -> None:
        """Walk all edges."""
        made_from: dict[int, list[int]] = {}
        for writer in range(self.wiring.n_writers):
            for reader in self.wiring.read_by(writer):
                made_from.setdefault(reader, []).append(writer)
        for reader in reversed(range(self.wiring.n_readers)):
            edges = [(w, reader) for w in self.wiring.allowed[:, reader].nonzero().flatten().tolist()[::-1]]
            if reader != self.wiring.logit and not self.mask[made_from[reader]].any():
                self.mask[:, reader] = False
            else:
                self._reader(edges, at_once)
            if progress is not None:
                progress.advance(len(edges))

    def _reader(self, edges: list[tuple[int, int]], at_once: int) -> None:
        """Decide the edges of one reader; the bet is doubled when it was won and begun anew when lost."""
        start, width = 0, min(4, at_once)
        while start < len(edges):
            proposed = edges[start : start + width]
            masks = self.mask.repeat(len(proposed), 1, 1)
            for i, (writer, reader) in enumerate(proposed):
                masks[i:, writer, reader] = False
            refused = self._accept(proposed, self.losses(masks))
            width = min(at_once, 2 * width) if refused is None else max(1, min(width // 2, at_once))
            start += len(proposed) if refused is None else refused + 1

    def _accept(self, proposed: list[tuple[int, int]], losses: Tensor) -> int | None:
        """Drop edges up to the first whose rise reaches tau; its number, or None."""
        for i, (edge, loss) in enumerate(zip(proposed, losses.tolist(), strict=True)):
            self.rises[edge] = loss - self.current
            if not loss - self.current < self.tau:
                return i
            self.mask[edge], self.current = False, loss
        return None
