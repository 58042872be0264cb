"""Runs circuits of one model on one set of pairs under one protocol: the one place where masks become numbers.

A circuit is a mask, Bool, True = kept: of nodes (writer), or of edges (writer, reader), both as `Wiring` orders
them. Whole nodes go through `node_metrics` (one forward pass a mask), edges through the edge executor, many masks
and all pairs at once. Denoising is the same run seen from the other side: counterfactual prompts are live, and
what the circuit keeps carries its clean value,

    m_denoise(C) = m(counterfactual prompts, everything in C replaced by its clean value),

so the whole model gives m(clean) and the empty circuit m(counterfactual).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from workbench.circuits.validation.node_runs import node_metrics
from workbench.circuits.validation.protocol import ALL, Protocol
from workbench.circuits.validation.replacements import replacements
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.replacement import Replacement
from workbench.circuits.wiring.selection import connected
from workbench.errors import UserError
from workbench.tasks import Batch

EdgeRun = Callable[[Batch, Replacement, Tensor], Tensor]
Mask = Bool[Tensor, " writer"] | Bool[Tensor, "writer reader"]
Metrics = Float64[np.ndarray, "mask prompt"]


@dataclass(frozen=True, eq=False)
class Judge:
    """Pairs, a protocol, and the values it puts in place; make it with `open_judge`.

    Attributes:
        wiring: The model's writers, readers and edges.
        protocol: How what lies outside a circuit is removed.
        batches: The pairs, by length.
        values: What removed writers become, one a batch.
        run_edges: Runs edge masks on one batch: (batch, values, masks) to m (mask, prompt).
    """

    wiring: Wiring
    protocol: Protocol
    batches: tuple[Batch, ...]
    values: tuple[Replacement, ...]
    run_edges: EdgeRun

    @property
    def n_prompts(self) -> int:
        """Number of pairs."""
        return sum(len(batch.answer) for batch in self.batches)

    @cached_property
    def all_nodes(self) -> Bool[Tensor, " writer"]:
        """The mask of every node."""
        return torch.ones(self.wiring.n_writers, dtype=torch.bool)

    def whole(self, mask: Mask) -> Mask:
        """The whole model as a mask of the same granularity."""
        return self.all_nodes if mask.ndim == 1 else self.wiring.allowed

    def alive(self, mask: Mask) -> Mask:
        """The circuit without edges that can do nothing under this protocol. Status: exact.

        Under denoising and where some positions stay live every edge may do something; under means or zeros what
        the embedding does not reach does.
        """
        if mask.ndim == 1 or self.protocol.direction == "denoising" or self.protocol.positions != ALL:
            return mask
        return connected(self.wiring, mask, from_embedding=self.protocol.paired)

    @torch.no_grad()
    def metrics(self, masks: Bool[Tensor, "mask ..."]) -> Metrics:
        """m, in logits, of each pair with only the circuit kept, one row a mask. Status: exact.

        Args:
            masks: Of nodes (mask, writer) or of edges (mask, writer, reader).

        Raises:
            UserError: masks of another model.
        """
        self._check(masks)
        noising = self.protocol.direction == "noising"
        live = masks if noising else ~masks & self.whole(masks[0])
        found = []
        for batch, values in zip(self.batches, self.values, strict=True):
            run = batch if noising else _swapped(batch)
            if masks.ndim == 2:
                found.append(node_metrics(self.wiring, run, values, live))
            else:
                found.append(self.run_edges(run, values, live))
        return torch.cat(found, 1).cpu().double().numpy()

    def _check(self, masks: Tensor) -> None:
        if masks.ndim == 3:
            self.wiring.check_masks(masks)
        elif masks.ndim != 2 or masks.shape[1] != self.wiring.n_writers:
            raise UserError(
                f"masks of shape {tuple(masks.shape)} are no circuits of this model: give (mask, "
                f"{self.wiring.n_writers}) for nodes or (mask, {self.wiring.n_writers}, {self.wiring.n_readers}) for "
                "edges"
            )


def open_judge(
    wiring: Wiring,
    protocol: Protocol,
    batches: Sequence[Batch],
    *,
    reference: Sequence[Batch] | None = None,
    run_edges: EdgeRun | None = None,
) -> Judge:
    """A judge of circuits on these pairs; the replaced values are computed here.

    Args:
        wiring: The model's writers, readers and edges.
        protocol: How what lies outside a circuit is removed.
        batches: The pairs, by length, on any device.
        reference: Pairs that means, other prompts and constants come from; the judged ones by default.
        run_edges: Runs edge masks; by default the edge executor.

    Raises:
        UserError: no pair, or what `replacements` refuses.
    """
    device = wiring.anatomy.device
    here = [batch.to(device) for batch in batches]
    if not here:
        raise UserError("batches is empty: give at least one pair to judge circuits on")
    others = None if reference is None else [batch.to(device) for batch in reference]
    values = replacements(wiring.anatomy, protocol, here, others)
    return Judge(wiring, protocol, tuple(here), tuple(values), run_edges or _edge_executor(wiring))


def _edge_executor(wiring: Wiring) -> EdgeRun:
    from workbench.circuits.wiring.executor import EdgeExecutor

    return EdgeExecutor(wiring.anatomy, wiring).metrics


def _swapped(batch: Batch) -> Batch:
    """The counterfactual prompts to run, scored by the same answers."""
    return Batch(batch.counterfactual, batch.clean, batch.answer, batch.counterfactual_answer)
