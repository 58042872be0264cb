"""The masked run with weights between replaced and live, differentiable in the weights.

    input of reader r  =  replaced stream  +  sum over w of weight(w, r) (live_w - replaced_w)

With weights 0 and 1 this is the masked run of `executor.py`; everything is computed for every weight, so it is for
learning masks, not for judging them. Status: exact for weights of 0 and 1 (tests/circuits/wiring/test_masks.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.ends import Base
from workbench.circuits.wiring.heads import attend_heads, per_head, project_each
from workbench.circuits.wiring.readout import metric_at
from workbench.circuits.wiring.replacement import Replacement
from workbench.tasks import Batch


class SoftRun:
    """One batch of clean prompts with a replacement, ready to run weights."""

    def __init__(self, wiring: Wiring, batch: Batch, replacement: Replacement) -> None:
        self.wiring, self.anatomy, self.batch = wiring, wiring.anatomy, batch
        self.embedded = self.anatomy.embed(batch.clean)
        with torch.no_grad():
            self.base = Base(self.anatomy, replacement, len(self.embedded))
            self.base.stream(self.anatomy.last_depth)

    def metric(self, weights: Float[Tensor, "writer reader"]) -> Float[Tensor, " prompt"]:
        """m in logits; differentiable in the weights."""
        written: dict[int, Tensor] = {0: self.embedded - self.base.stream(0)}
        for layer, block in enumerate(self.anatomy.blocks):
            heads = self._heads(layer, weights, written)
            reader = self.wiring.mlp_reads[layer]
            if not block.parallel:
                written |= heads
            if reader >= 0:
                x = self._inputs([reader], weights, written)[0]
                fed = block.mlp_out(x) - self.base.mlps[layer]
                written[self.wiring.mlps[layer]] = fed
            written |= heads
        x = self._inputs([self.wiring.logit], weights, written)[0]
        return metric_at(self.anatomy, self.anatomy.ln_final(x[:, -1]), self.batch)

    def _inputs(
        self, columns: list[int], weights: Tensor, written: dict[int, Tensor]
    ) -> Float[Tensor, "reader prompt pos d_model"]:
        """Inputs of readers of one depth."""
        x = self.base.stream(self.wiring.depths[columns[0]])
        x = x.expand(len(columns), *x.shape)
        late = {w for layer, rows in enumerate(self.wiring.heads) if self._post(layer) for w in rows}
        x = x + _mixture([w for w in written if w not in late], columns, weights, written)
        for layer, block in enumerate(self.anatomy.blocks):
            rows = [w for w in self.wiring.heads[layer] if w in late and w in written]
            if rows:
                base = self.base.mixed[layer]
                x = (
                    x
                    + block.ln1_post(base + _mixture(rows, columns, weights, written))
                    - block.ln1_post(base)
                )
        return x

    def _post(self, layer: int) -> bool:
        return not self.anatomy.blocks[layer].ln1_post.identity

    def _heads(self, layer: int, weights: Tensor, written: dict[int, Tensor]) -> dict[int, Tensor]:
        """What the layer's heads carry beyond their replaced values."""
        block, reads = self.anatomy.blocks[layer], self.wiring.reads[layer]
        normed = block.ln1(self._inputs([r for part in "qkv" for r in reads[part]], weights, written))
        parts, start = {}, 0
        for part in "qkv":
            n = len(reads[part])
            parts[part] = project_each(block.attn, normed[None, start : start + n], part, list(range(n)))
            start += n
        k, v = (parts[p].repeat_interleave(block.attn.group, 1) for p in "kv")
        z = attend_heads(block.attn, parts["q"], k, v, self.base.around[layer])
        change = per_head(z - self.base.z[layer], block.attn.W_O)[0]
        return dict(zip(self.wiring.heads[layer], change, strict=True))


def _mixture(
    rows: list[int], columns: list[int], weights: Tensor, written: dict[int, Tensor]
) -> Float[Tensor, "reader prompt pos d_model"]:
    chosen = weights[rows][:, columns]
    return torch.einsum("wr,wpsd->rpsd", chosen, torch.stack([written[row] for row in rows]))
