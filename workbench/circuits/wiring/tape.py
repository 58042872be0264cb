"""One forward and one backward pass that keep what edge scores are made of.

The gradient of m is taken at the few tensors that all readers of a layer have in common: raw queries, keys and
values, the MLP's normed input, the final normed stream. `gradients.py` turns them into gradients at single readers.
After the last attention only the last position is run, so the last layer's queries, its MLP and the final stream
have one position.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy, Block
from workbench.circuits.wiring.heads import attend_heads
from workbench.circuits.wiring.readout import metric_at
from workbench.tasks import Batch

Key = tuple[int, str]


@dataclass(frozen=True, eq=False)
class Tape:
    """Values and gradients of one pass, detached; keys are (layer, name).

    Attributes:
        values: "in" and "mid" (streams that attention and the MLP read), "z" (head outputs), "mixed" (the heads' sum
            before a post-norm), "mlp" (what the MLP adds); (prompt, pos, ...).
        gradients: dm/d "q", "k", "v" (prompt, head, pos, d_head) and "mlp" (the MLP's normed input).
        final: The stream at the last position (prompt, 1, d_model).
        final_gradient: dm/d(its norm) (prompt, 1, d_model).
        metric_logits: m (prompt).
    """

    values: dict[Key, Tensor]
    gradients: dict[Key, Tensor]
    final: Float[Tensor, "prompt 1 d_model"]
    final_gradient: Float[Tensor, "prompt 1 d_model"]
    metric_logits: Float[Tensor, " prompt"]


@dataclass
class _Recording:
    anatomy: Anatomy
    values: dict[Key, Tensor] = field(default_factory=dict)
    leaves: dict[Key, Tensor] = field(default_factory=dict)

    def step(self, x: Tensor, depth: int) -> Tensor:
        block = self.anatomy.blocks[depth // 2]
        if depth % 2 == 0:
            added = self.attend(x, block)
            added = added + self.feed(x, block)[:, -added.shape[1] :] if block.parallel else added
            return x[:, -added.shape[1] :] + added
        return x if block.parallel or block.mlp is None else x + self.feed(x, block)

    def attend(self, x: Tensor, block: Block) -> Tensor:
        normed, layer = block.ln1(x), block.layer
        asking = normed[:, -1:] if layer == self.anatomy.n_layers - 1 else normed
        parts = {"q": asking, "k": normed, "v": normed}
        q, k, v = (block.attn.project(stream, part).transpose(1, 2) for part, stream in parts.items())
        self.leaves |= {(layer, "q"): q, (layer, "k"): k, (layer, "v"): v}
        if block.attn.group > 1:
            k, v = (t.repeat_interleave(block.attn.group, 1) for t in (k, v))
        z = attend_heads(block.attn, q, k, v, self.anatomy.around(x.shape[1])[layer]).transpose(1, 2)
        mixed = block.attn.write(z)
        self.values |= {(layer, "in"): x, (layer, "z"): z, (layer, "mixed"): mixed}
        return block.ln1_post(mixed)

    def feed(self, x: Tensor, block: Block) -> Tensor:
        if block.mlp is None:
            return torch.zeros_like(x)
        x = x[:, -1:] if block.layer == self.anatomy.n_layers - 1 else x
        normed = block.ln2(x)
        added = block.ln2_post(block.mlp(normed))
        self.leaves[block.layer, "mlp"] = normed
        self.values |= {(block.layer, "mid"): x, (block.layer, "mlp"): added}
        return added


def record(anatomy: Anatomy, x: Float[Tensor, "prompt pos d_model"], batch: Batch, *, depth: int = 0) -> Tape:
    """Run from the stream `x` at `depth` to the metric and back. Status: exact."""
    recording = _Recording(anatomy)
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        for at in range(depth, anatomy.last_depth):
            x = recording.step(x, at)
        final = x[:, -1:]
        normed = anatomy.ln_final(final)
        metric = metric_at(anatomy, normed[:, 0], batch)
        leaves = [*recording.leaves.values(), normed]
        found = torch.autograd.grad(metric.sum(), leaves, allow_unused=True, materialize_grads=True)
    gradients = dict(zip(recording.leaves, found[:-1], strict=True))
    values = {key: value.detach() for key, value in recording.values.items()}
    return Tape(values, gradients, final.detach(), found[-1], metric.detach())


@dataclass(frozen=True, eq=False)
class Forward:
    """One pass without gradients.

    Attributes:
        streams: At every depth (prompt, pos, d_model); only the last position after the last attention.
        values: As `Tape.values`.
        metric_logits: m (prompt).
    """

    streams: tuple[Tensor, ...]
    values: dict[Key, Tensor]
    metric_logits: Float[Tensor, " prompt"]


@torch.no_grad()
def forward(anatomy: Anatomy, x: Float[Tensor, "prompt pos d_model"], batch: Batch) -> Forward:
    """Run from the embedding `x` to the metric. Status: exact."""
    recording, streams = _Recording(anatomy), [x]
    for at in range(anatomy.last_depth):
        streams.append(recording.step(streams[-1], at))
    metric = metric_at(anatomy, anatomy.ln_final(streams[-1][:, -1]), batch)
    return Forward(tuple(streams), recording.values, metric)
