"""What a transcoder reads and writes, found by value: the hook's name says where, the numbers say what.

    reads    normed      the MLP's normalised input, weight and bias applied
             unweighted  the same without weight and bias
             stream      the residual stream that the MLP reads
    writes   added       what the MLP adds to the stream, after a post-norm
             written     the MLP's output before a post-norm

One name shows other tensors from architecture to architecture (`hook_mlp_in` is the stream in one model and
normalised in another), so a wrong reading would give a graph that looks reasonable and is not. A hook is
captured on the prompt and compared with the candidates of its own layer; what equals none is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from workbench.anatomy.check import tolerance
from workbench.circuits.attribution_graph.frozen import FrozenLayer, FrozenPass
from workbench.errors import UserError
from workbench.hooks import capture_forward, check_hook

_LAYER = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class Port:
    """How the transcoder of one layer is joined to the model.

    Attributes:
        reads: "normed", "unweighted" or "stream".
        writes: "added" or "written".
    """

    reads: str
    writes: str

    def read(
        self, layer: FrozenLayer, x: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch pos d_model"]:
        """What the transcoder gets when its MLP reads the stream `x`, the norm's scale frozen."""
        norm, scale = layer.block.ln2, layer.scales["ln2"]
        if self.reads == "normed":
            return norm(x, scale)
        return x if self.reads == "stream" else _plain(norm, x) / scale

    def read_live(
        self, layer: FrozenLayer, x: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch pos d_model"]:
        """The same with the norm's scale that of `x`."""
        norm = layer.block.ln2
        if self.reads == "normed":
            return norm(x)
        return x if self.reads == "stream" else _plain(norm, x) / norm.scale(x)

    def pull(
        self, layer: FrozenLayer, gradient: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*any 1"]
    ) -> Float[Tensor, "*batch d_model"]:
        """Gradient at the stream from one at what the transcoder gets, the scale frozen."""
        if self.reads == "normed":
            return layer.block.ln2.pull(gradient, scale)
        return gradient if self.reads == "stream" else _plain(layer.block.ln2, gradient / scale)

    def push(
        self, layer: FrozenLayer, change: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*any 1"]
    ) -> Float[Tensor, "*batch d_model"]:
        """Change of the stream from one at what the transcoder reconstructs, the scale frozen."""
        return layer.block.ln2_post.push(change, scale) if self.writes == "written" else change

    def pull_written(
        self, layer: FrozenLayer, gradient: Float[Tensor, "*batch d_model"], scale: Float[Tensor, "*any 1"]
    ) -> Float[Tensor, "*batch d_model"]:
        """Gradient at what the transcoder reconstructs from one at the stream, the scale frozen."""
        return layer.block.ln2_post.pull(gradient, scale) if self.writes == "written" else gradient


def layer_of(hook: str) -> int:
    """The block of a hook name.

    Raises:
        UserError: the hook is in no block.
    """
    found = _LAYER.match(hook)
    if found is None:
        raise UserError(
            f"hook {hook!r} is in no block: a transcoder reads and writes at an MLP, blocks.N. ..."
        )
    return int(found[1])


def find_ports(frozen: FrozenPass, reads: Sequence[str], writes: Sequence[str]) -> tuple[Port, ...]:
    """The port of each layer from the names of its two hooks, which are captured on the prompt.

    Raises:
        UserError: an unknown hook, or one whose values are neither the MLP's input nor its output.
    """
    model = frozen.anatomy.model
    names = [check_hook(model, name) for name in (*reads, *writes)]
    values = capture_forward(model, frozen.ids[None], names)
    allowed = 30 * tolerance(frozen.anatomy)
    return tuple(
        Port(
            _match(values[read][0], _inputs(layer), read, "input", allowed),
            _match(values[write][0], _outputs(layer), write, "output", allowed),
        )
        for layer, read, write in zip(frozen.layers, reads, writes, strict=True)
    )


def _inputs(layer: FrozenLayer) -> dict[str, Tensor]:
    return {kind: Port(kind, "").read(layer, layer.mlp_stream) for kind in ("normed", "unweighted", "stream")}


def _outputs(layer: FrozenLayer) -> dict[str, Tensor]:
    return {"added": layer.added, "written": layer.written}


def _match(value: Tensor, candidates: dict[str, Tensor], hook: str, what: str, allowed: float) -> str:
    for kind, candidate in candidates.items():
        if candidate.shape == value.shape:
            size = float(candidate.abs().max()) + 1e-12
            if float((candidate - value).abs().max()) <= allowed * size:
                return kind
    raise UserError(
        f"hook {hook!r} shows neither of the values that a transcoder can have for its {what} "
        f"({', '.join(candidates)} of its MLP): give transcoders from an MLP's input to its output"
    )


def _plain(norm: object, x: Tensor) -> Tensor:
    """The input, centred where the norm centres."""
    return x - x.mean(-1, keepdim=True) if getattr(norm, "centred", False) else x


def values_read(frozen: FrozenPass, ports: Sequence[Port]) -> tuple[Float[Tensor, "pos d_model"], ...]:
    """What the transcoder of each layer gets on the prompt."""
    pairs = zip(ports, frozen.layers, strict=True)
    return tuple(port.read(layer, layer.mlp_stream) for port, layer in pairs)


def values_written(frozen: FrozenPass, ports: Sequence[Port]) -> tuple[Float[Tensor, "pos d_model"], ...]:
    """What the transcoder of each layer should reconstruct on the prompt."""
    pairs = zip(ports, frozen.layers, strict=True)
    return tuple(layer.added if port.writes == "added" else layer.written for port, layer in pairs)


def skip_linear(
    port: Port, layer: FrozenLayer, W_skip: Tensor, change: Float[Tensor, "*batch pos d_model"]
) -> Float[Tensor, "*batch pos d_model"]:
    """What the linear skip of a layer adds to the stream for a change of the stream that its MLP reads."""
    norm, scale = layer.block.ln2, layer.scales["ln2"]
    seen = norm.push(change, scale) if port.reads == "normed" else port.read(layer, change)
    return port.push(layer, seen @ W_skip.T, layer.scales["ln2_post"])
