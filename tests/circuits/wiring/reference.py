"""The definition of a masked run, one reader at a time and nothing shared: slow, and plain to read."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.metric import logit_difference
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.replacement import Replacement
from workbench.tasks import Batch


class SlowRun:
    """One mask on one batch."""

    def __init__(self, wiring: Wiring, batch: Batch, replacement: Replacement, mask: Tensor) -> None:
        self.wiring, self.batch, self.replacement, self.mask = wiring, batch, replacement, mask
        self.anatomy: Anatomy = wiring.anatomy
        self.embedded = self.anatomy.embed(batch.clean)
        self._live: dict[int, Tensor] = {}

    def metric(self) -> Tensor:
        logits = self.anatomy.logits(self.stream(self.wiring.logit))[:, -1]
        return logit_difference(logits, self.batch)

    def kept(self, writer: str, reader: int) -> Tensor:
        """Whether the edge is live, by position."""
        keep = self.mask[self.wiring.row[writer], reader].expand(self.embedded.shape[1])
        return keep if self.replacement.positions is None else keep | ~self.replacement.positions

    def stream(self, reader: int) -> Tensor:
        """The reader's input."""
        keep, depth = self.kept("embed", reader)[:, None], self.wiring.depths[reader]
        x = torch.where(keep, self.embedded, self.replacement.embed)
        for layer, block in enumerate(self.anatomy.blocks):
            attention_first = 2 * layer + 1
            if depth < attention_first:
                break
            z = self.replacement.z[layer].expand(len(x), *self.replacement.z[layer].shape[1:]).clone()
            for head in range(block.attn.n_heads):
                keep = self.kept(f"a{layer}.h{head}", reader)[:, None]
                if keep.any():
                    z[:, :, head] = torch.where(keep, self.head(layer, head), z[:, :, head])
            x = x + block.attn_out(z)
            if block.mlp is not None and depth >= 2 * layer + 2:
                keep = self.kept(f"m{layer}", reader)[:, None]
                live = self.mlp(layer) if keep.any() else self.replacement.mlp[layer]
                x = x + torch.where(keep, live, self.replacement.mlp[layer])
        return x

    def head(self, layer: int, head: int) -> Tensor:
        """The head's live z."""
        row = self.wiring.row[f"a{layer}.h{head}"]
        if row not in self._live:
            block, length = self.anatomy.blocks[layer], self.embedded.shape[1]
            kv = head // block.attn.group
            parts = []
            for part, index in (("q", head), ("k", kv), ("v", kv)):
                reader = self.wiring.column[f"a{layer}.h{index}.{part}"]
                parts.append(block.attn.project(block.ln1(self.stream(reader)), part))
            z = block.attn.attend(parts[0], parts[1], parts[2], self.anatomy.around(length)[layer])
            self._live[row] = z[:, :, head]
        return self._live[row]

    def mlp(self, layer: int) -> Tensor:
        """What the MLP adds, live."""
        row = self.wiring.row[f"m{layer}"]
        if row not in self._live:
            reader = self.wiring.column[f"m{layer}"]
            self._live[row] = self.anatomy.blocks[layer].mlp_out(self.stream(reader))
        return self._live[row]


@torch.no_grad()
def slow_metrics(wiring: Wiring, batch: Batch, replacement: Replacement, masks: Tensor) -> Tensor:
    """m under each mask."""
    return torch.stack([SlowRun(wiring, batch, replacement, mask).metric() for mask in masks])
