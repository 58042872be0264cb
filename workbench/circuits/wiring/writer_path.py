"""The model with one writer on its way from the counterfactual to the clean value, all before it clean.

    stream(t) = clean stream - (1 - t) change,      t in [0, 1]

Behind a post-norm the heads' sum moves instead, and what the block adds is its norm. All points of a writer are run
side by side, from the depth at which it writes. Status: exact for the metric at each point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.quadrature import Quadrature
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.gradients import reader_gradients
from workbench.circuits.wiring.tape import Forward, record
from workbench.tasks import Batch


@dataclass(frozen=True, eq=False)
class Pair:
    """A batch of pairs, both prompts run.

    Attributes:
        wiring: The model's edges.
        batch: The pairs.
        clean: The clean prompts.
        other: The counterfactual ones.
    """

    wiring: Wiring
    batch: Batch
    clean: Forward
    other: Forward


def path_scores(
    pair: Pair, writer: int, line: Quadrature
) -> tuple[Float[Tensor, "prompt reader"], Float[Tensor, " prompt"]]:
    """Scores of one writer's edges from its own path, and its exact node effect, both in logits."""
    points = pair.clean.streams[0].new_tensor([*line.points, 0.0])
    streams, change = writer_at(pair, writer, points)
    if not change.any():
        return change.new_zeros(change.shape[1], pair.wiring.n_readers), torch.zeros_like(
            pair.clean.metric_logits
        )
    n = len(points)
    batch = pair.batch.map(lambda values: values.repeat(n, *[1] * (values.ndim - 1)))
    tape = record(pair.wiring.anatomy, streams.flatten(0, 1), batch, depth=write_depth(pair.wiring, writer))
    weights = streams.new_tensor([*line.weights, 0.0])
    scores = streams.new_zeros(streams.shape[1], pair.wiring.n_readers)
    for columns, gradient in reader_gradients(pair.wiring, tape):
        gradient = gradient.unflatten(1, (n, -1))
        here = change[..., -gradient.shape[3] :, :] * weights[:, None, None, None]
        scores[:, columns] = torch.einsum("rnpsd,npsd->pr", gradient, here)
    return scores, pair.clean.metric_logits - tape.metric_logits.unflatten(0, (n, -1))[-1]


def writer_at(
    pair: Pair, writer: int, points: Float[Tensor, " point"]
) -> tuple[Float[Tensor, "point prompt pos d_model"], Float[Tensor, "point prompt pos d_model"]]:
    """The stream with the writer at each point, and its first-order change there (clean minus counterfactual)."""
    wiring, t = pair.wiring, points[:, None, None, None]
    stream, layer = pair.clean.streams[write_depth(wiring, writer)], wiring.layers[writer]
    clean, other = pair.clean.values, pair.other.values
    if layer < 0 or writer == wiring.mlps[layer]:
        is_embed = layer < 0
        change = stream - pair.other.streams[0] if is_embed else clean[layer, "mlp"] - other[layer, "mlp"]
        return stream - (1 - t) * change, change.expand(len(points), *change.shape)
    block, head = wiring.anatomy.blocks[layer], writer - wiring.heads[layer].start
    change = (clean[layer, "z"] - other[layer, "z"])[:, :, head] @ block.attn.W_O[head]
    mixed = clean[layer, "mixed"] - (1 - t) * change
    pushed = block.ln1_post.push_live(change.expand_as(mixed), mixed)
    return stream - block.ln1_post(clean[layer, "mixed"]) + block.ln1_post(mixed), pushed


def write_depth(wiring: Wiring, writer: int) -> int:
    """The first depth of the stream that has the writer's output."""
    layer = wiring.layers[writer]
    if layer < 0:
        return 0
    late = writer == wiring.mlps[layer] and not wiring.anatomy.blocks[layer].parallel
    return 2 * layer + (2 if late else 1)
