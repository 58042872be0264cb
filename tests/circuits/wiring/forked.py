"""Edge gradients by autograd through a graph in which every edge has its own copy of the writer's output.

Slow and literal: each reader's input is built from one leaf an edge, all with the same value, so that the gradient
at a leaf is the gradient along that edge. Heads of a block with a post-norm are mixed for each reader by themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.circuits.metric import logit_difference
from workbench.circuits.wiring.catalogue import Wiring
from workbench.tasks import Batch


class Forked:
    """One run from an embedding, with a leaf for every edge."""

    def __init__(
        self, wiring: Wiring, batch: Batch, embedded: Tensor, *, fixed: dict[int, Tensor] | None = None
    ) -> None:
        self.wiring, self.anatomy, self.length = wiring, wiring.anatomy, embedded.shape[1]
        self.fixed = fixed or {}
        self.copies: dict[tuple[int, int], Tensor] = {}
        self.written: dict[int, Tensor] = {}
        self.raw: dict[int, Tensor] = {}
        self._write(0, embedded)
        for layer, block in enumerate(self.anatomy.blocks):
            heads = [self._head(layer, head) for head in range(block.attn.n_heads)]
            if block.parallel:
                self._mlp(layer)
            for row, z in zip(wiring.heads[layer], heads, strict=True):
                self._write(row, z)
            if not block.parallel:
                self._mlp(layer)
        logits = self.anatomy.logits(self.stream(wiring.logit))[:, -1]
        self.metric = logit_difference(logits, batch)

    def _write(self, row: int, value: Tensor) -> None:
        self.written[row] = self.fixed.get(row, value)

    def copy(self, row: int, reader: int) -> Tensor:
        """The writer's output as this reader sees it: a node of autograd of its own."""
        leaf = self.written[row] * 1.0
        if not leaf.requires_grad:
            leaf.requires_grad_()
        self.copies[row, reader] = leaf
        return leaf

    def stream(self, reader: int) -> Tensor:
        """The reader's input, built from its own copies."""
        x = self.copy(0, reader)
        for layer, block in enumerate(self.anatomy.blocks):
            rows = self.wiring.heads[layer]
            if not self.wiring.allowed[rows[0], reader]:
                break
            x = x + block.attn_out(torch.stack([self.copy(row, reader) for row in rows], 2))
            row = self.wiring.mlps[layer]
            if row >= 0 and self.wiring.allowed[row, reader]:
                x = x + self.copy(row, reader)
        return x

    def _head(self, layer: int, head: int) -> Tensor:
        block, kv = self.anatomy.blocks[layer], head // self.anatomy.blocks[layer].attn.group
        parts = []
        for part, index in (("q", head), ("k", kv), ("v", kv)):
            reader = self.wiring.column[f"a{layer}.h{index}.{part}"]
            if reader not in self.raw:
                self.raw[reader] = block.attn.project(block.ln1(self.stream(reader)), part)[:, :, index]
            raw = self.raw[reader]
            n = block.attn.n_heads if part == "q" else block.attn.n_kv_heads
            parts.append(torch.stack([raw] * n, 2))
        z = block.attn.attend(parts[0], parts[1], parts[2], self.anatomy.around(self.length)[layer])
        return z[:, :, head]

    def _mlp(self, layer: int) -> None:
        if self.wiring.mlps[layer] >= 0:
            x = self.stream(self.wiring.mlp_reads[layer])
            self._write(self.wiring.mlps[layer], self.anatomy.blocks[layer].mlp_out(x))

    def gradients(self) -> dict[tuple[int, int], Tensor]:
        """dm/d(copy) of every edge (prompt, pos, d)."""
        found = torch.autograd.grad(self.metric.sum(), list(self.copies.values()), allow_unused=True)
        return {edge: g for edge, g in zip(self.copies, found, strict=True) if g is not None}


def outputs(wiring: Wiring, batch: Batch, ids: Tensor) -> dict[int, Tensor]:
    """Every writer's output on some prompts: z for heads."""
    run = Forked(wiring, batch, wiring.anatomy.embed(ids))
    return {row: run.written[row].detach() for row in range(wiring.n_writers)}


def slow_scores(wiring: Wiring, batch: Batch, points: list[tuple[float, float]]) -> Tensor:
    """Scores of single prompts (prompt, writer, reader), gradients along the input's path."""
    clean, other = outputs(wiring, batch, batch.clean), outputs(wiring, batch, batch.counterfactual)
    total = torch.zeros(len(batch.answer), wiring.n_writers, wiring.n_readers, dtype=clean[0].dtype)
    for point, weight in points:
        run = Forked(wiring, batch, other[0] + point * (clean[0] - other[0]))
        for (row, reader), g in run.gradients().items():
            total[:, row, reader] += weight * (g * (clean[row] - other[row])).flatten(1).sum(1)
    return total


def slow_activation_scores(wiring: Wiring, batch: Batch, points: list[tuple[float, float]]) -> Tensor:
    """The same with each writer on its own path; everything before it keeps its clean value."""
    clean, other = outputs(wiring, batch, batch.clean), outputs(wiring, batch, batch.counterfactual)
    total = torch.zeros(len(batch.answer), wiring.n_writers, wiring.n_readers, dtype=clean[0].dtype)
    for row in range(wiring.n_writers):
        for point, weight in points:
            moved = other[row] + point * (clean[row] - other[row])
            run = Forked(wiring, batch, clean[0], fixed={row: moved})
            for (writer, reader), g in run.gradients().items():
                if writer == row:
                    total[:, row, reader] += weight * (g * (clean[row] - other[row])).flatten(1).sum(1)
    return total
