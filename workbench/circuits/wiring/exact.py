"""Exact effect of single edges: one edge carries its counterfactual value, everything else stays live.

    effect(w, r) = m(clean) - m(clean, but reader r sees the counterfactual output of writer w)

Everything before the reader keeps its clean value, so only the reader's own component is recomputed, and then what
lies after it, as an ordinary forward pass from that depth; many edges into one reader run side by side. An edge whose
writer gives the same on both prompts has no effect and is not run. Behind a post-norm the reader sees the block's
heads mixed anew. Status: exact (tests/circuits/wiring/test_exact.py compares with the masked run of all other edges).

Sources: Wang et al. 2022, arXiv:2211.00593 (path patching); Conmy et al. 2023, arXiv:2304.14997.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.circuits.wiring.along import MAX_BYTES, chunks
from workbench.circuits.wiring.catalogue import Edge, Wiring
from workbench.circuits.wiring.edge_scores import EdgeScores, as_batches
from workbench.circuits.wiring.ends import End
from workbench.circuits.wiring.heads import attend_heads, per_head
from workbench.circuits.wiring.readout import metric_at, metric_from
from workbench.progress import Progress
from workbench.tasks import Batch

MAX_TOKENS = 8192


def exact_edges(
    wiring: Wiring,
    batches: Batch | Sequence[Batch],
    edges: Iterable[Edge] | None = None,
    *,
    per_prompt: bool = False,
    max_tokens: int = MAX_TOKENS,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> EdgeScores:
    """Exact effect of each edge, in logits. Status: exact.

    Args:
        wiring: The model's edges.
        batches: Prompt pairs.
        edges: Those to patch; all by default. Other edges get NaN.
        per_prompt: Keep the effects on single prompts.
        max_tokens: Largest number of tokens in one forward pass.
        max_bytes: Bound on the table of changes of one chunk of prompts.
        progress: Advanced by one an edge and chunk of prompts.

    Raises:
        UserError: a pair that is no edge, no prompts, or `max_bytes` below what one prompt needs.
    """
    wanted = wiring.allowed if edges is None else wiring.edge_mask(edges)
    pieces, n_runs = [], 0
    for batch in chunks(wiring, as_batches(batches), max_bytes):
        patching = Patching(wiring, batch, max_tokens)
        pieces.append(patching.effects(wanted, progress))
        n_runs += patching.n_runs
    every = torch.cat(pieces)
    kept = every if per_prompt else None
    mean = every.mean(0)
    return EdgeScores(
        wiring, mean, "exact patching", {"replacement": "resample"}, len(every), kept, evaluations=n_runs, exact=mean
    )  # fmt: skip


class Patching:
    """One chunk of pairs with both prompts run.

    Attributes:
        n_runs: Edges that were run.
    """

    @torch.no_grad()
    def __init__(self, wiring: Wiring, batch: Batch, max_tokens: int) -> None:
        self.wiring, self.anatomy, self.batch, self.max_tokens = wiring, wiring.anatomy, batch, max_tokens
        self.clean = End(self.anatomy, self.anatomy.embed(batch.clean))
        self.other = End(self.anatomy, self.anatomy.embed(batch.counterfactual))
        last = self.clean.stream(self.anatomy.last_depth)[:, -1]
        self.metric = metric_at(self.anatomy, self.anatomy.ln_final(last), batch)
        self.n_runs = 0

    @torch.no_grad()
    def effects(
        self, wanted: Bool[Tensor, "writer reader"], progress: Progress | None = None
    ) -> Float[Tensor, "prompt writer reader"]:
        """Effects on single prompts, NaN where not wanted."""
        changes = torch.stack([self._change(writer) for writer in range(self.wiring.n_writers)])
        differs = changes.flatten(1).any(1).cpu()
        found = self.metric.new_full((len(self.metric), *wanted.shape), float("nan"))
        found[:, wanted & ~differs[:, None]] = 0
        width = max(1, self.max_tokens // self.batch.clean.numel())
        for reader in wanted.any(0).nonzero().flatten().tolist():
            todo = (wanted[:, reader] & differs).nonzero().flatten()
            for writers in todo.split(width):
                found[:, writers, reader] = (self.metric - self._patched(reader, changes[writers])).T
            self.n_runs += len(todo)
            if progress is not None:
                progress.advance(int(wanted[:, reader].sum()))
        return found

    def _change(self, writer: int) -> Float[Tensor, "prompt pos d_model"]:
        """What a reader's input loses when it sees the writer's counterfactual output."""
        layer = self.wiring.layers[writer]
        if layer < 0:
            return self.clean.stream(0) - self.other.stream(0)
        if writer == self.wiring.mlps[layer]:
            return self.clean.mlp(layer) - self.other.mlp(layer)
        block, head = self.anatomy.blocks[layer], writer - self.wiring.heads[layer].start
        change = (self.clean.part(layer, "z")[head] - self.other.part(layer, "z")[head]) @ block.attn.W_O[
            head
        ]
        mixed = self._mixed(layer)
        return change if mixed is None else block.ln1_post(mixed) - block.ln1_post(mixed - change)

    def _mixed(self, layer: int) -> Tensor | None:
        """The heads' clean sum before a post-norm."""
        block = self.anatomy.blocks[layer]
        z = self.clean.part(layer, "z").permute(1, 2, 0, 3)
        return None if block.ln1_post.identity else block.attn.write(z)

    def _patched(
        self, reader: int, change: Float[Tensor, "edge prompt pos d_model"]
    ) -> Float[Tensor, "edge prompt"]:
        """m when the reader's input lacks each change."""
        depth = self.wiring.depths[reader]
        x = self.clean.stream(depth) - change
        if reader == self.wiring.logit:
            return metric_at(self.anatomy, self.anatomy.ln_final(x[..., -1, :]), self.batch)
        layer = self._layer_of(reader)
        block = self.anatomy.blocks[layer]
        if reader == self.wiring.mlp_reads[layer]:
            after = depth + 1
            stream = self.clean.stream(after) + block.mlp_out(x) - self.clean.mlp(layer)
        else:
            after = 2 * layer + 1
            stream = self._after_heads(reader, layer, x)
        return metric_from(self.anatomy, stream, after, self.batch)

    def _layer_of(self, reader: int) -> int:
        return next(
            layer
            for layer, reads in enumerate(self.wiring.reads)
            if reader == self.wiring.mlp_reads[layer] or any(reader in columns for columns in reads.values())
        )

    def _after_heads(self, reader: int, layer: int, x: Float[Tensor, "edge prompt pos d_model"]) -> Tensor:
        """The stream after attention when one query, key or value reader sees `x`."""
        block, reads = self.anatomy.blocks[layer], self.wiring.reads[layer]
        part = next(part for part in "qkv" if reader in reads[part])
        index = reader - reads[part].start
        group = block.attn.group
        heads = [index] if part == "q" else list(range(index * group, (index + 1) * group))
        z = self._head_outputs(layer, part, index, heads, x)
        change = per_head(z - self.clean.part(layer, "z")[heads], block.attn.W_O[heads]).sum(1)
        stream, mixed = self.clean.stream(2 * layer + 1), self._mixed(layer)
        if mixed is None:
            return stream + change
        return stream - block.ln1_post(mixed) + block.ln1_post(mixed + change)

    def _head_outputs(
        self, layer: int, part: str, index: int, heads: list[int], x: Tensor
    ) -> Float[Tensor, "edge head prompt pos d_head"]:
        """Outputs of the heads that read one changed query, key or value."""
        block, shape = self.anatomy.blocks[layer], (len(x), len(heads), *x.shape[1:3], -1)
        bias = block.attn.bias(part)
        raw = block.ln1(x) @ block.attn.weight(part)[index] + (0 if bias is None else bias[index])
        parts = {}
        for name in "qkv":
            rows = heads if name == "q" else [head // block.attn.group for head in heads]
            clean = self.clean.part(layer, name)[rows].expand(len(x), -1, -1, -1, -1)
            parts[name] = raw[:, None].expand(shape) if name == part else clean
        return attend_heads(block.attn, parts["q"], parts["k"], parts["v"], self.clean.around[layer])
