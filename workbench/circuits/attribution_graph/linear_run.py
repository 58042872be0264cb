"""The frozen model run forwards: the stream at every depth for given node outputs.

This is the definition that the engine's backward pass must agree with, written with the model's own weights and
nothing of the engine: patterns and scales are put in, MLP outputs are what the nodes and constants make of them,
the rest is run. Interventions change what is added and run again. Batches of interventions are leading axes.

Status: exact for the frozen model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.attribution_graph.frozen import FrozenLayer

if TYPE_CHECKING:
    from workbench.circuits.attribution_graph.replacement import Replacement

Added = Callable[[int, Tensor], Tensor]


def attend(layer: FrozenLayer, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch pos d_model"]:
    """What attention adds to the stream `x` with pattern and scales frozen."""
    block, scales = layer.block, layer.scales
    values = block.attn.project(block.ln1(x, scales["ln1"]), "v")
    written = block.attn.write(block.attn.mix(layer.pattern, values))
    return block.ln1_post(written, scales["ln1_post"])


def run(
    replacement: Replacement, x: Float[Tensor, "*batch pos d_model"], added: Added
) -> list[Float[Tensor, "*batch pos d_model"]]:
    """The stream at every depth; `added(layer, stream)` is what the MLP of a layer adds."""
    streams = [x]
    for number, layer in enumerate(replacement.frozen.layers):
        before, mid = x, x + attend(layer, x)
        if layer.block.parallel:
            mid = mid + added(number, before)
            x = mid
        else:
            x = mid + added(number, mid)
        streams += [mid, x]
    return streams


def true_outputs(
    replacement: Replacement, changes: dict[int, Float[Tensor, "*batch pos d_model"]] | None = None
) -> Added:
    """MLP outputs as the prompt has them, with changes by layer, and the skips following the stream."""
    changes = changes or {}

    def added(layer: int, x: Tensor) -> Tensor:
        frozen = replacement.frozen.layers[layer]
        skip = replacement.skip_change(layer, x - frozen.mlp_stream)
        out = frozen.added if skip is None else frozen.added + skip
        return out + changes[layer] if layer in changes else out

    return added


@torch.no_grad()
def constant_streams(replacement: Replacement) -> list[Float[Tensor, "pos d_model"]]:
    """The stream at every depth when every node writes nothing: biases, position embeddings, skipped positions."""
    n_pos = replacement.frozen.n_pos
    nothing = {layer: -writes.total(n_pos) for layer, writes in enumerate(replacement.writes)}
    x = replacement.frozen.embedded - replacement.embedded.total(n_pos)
    return run(replacement, x, true_outputs(replacement, nothing))
