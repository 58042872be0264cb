"""The replacement model of one prompt: linear in tokens, active features, error vectors and constants.

    MLP_l(x)  =  sum_s a_s d_s  +  error_l  +  b_dec  [+ (x - x_0) W_skip]
    pre-activation of t  =  sum over nodes s of A[t, s]  +  constant of t

Attention patterns and all norm scales are frozen at the prompt's values, and the output of every MLP is written as
the active features of its transcoder and what the transcoder leaves over. The stream is then linear in the nodes,
and A[t, s] is the exact effect of the whole output of node s on what node t reads, with all other nodes held at
their values: paths go through attention and the skip connection, not through other features. A linear skip of a
transcoder is kept live: paths go through it too.

Constants are biases, position embeddings, and the first `n_skipped` positions: there (the beginning token by
default) no features and no errors are nodes, because their norms are far out of the transcoders' range and would
fill every graph; the MLP's output at those positions is a constant. Their tokens are nodes.
Token nodes carry the token embedding alone where the model adds a position embedding to it, and the stream at
depth 0 otherwise.

Status: exact for the frozen model. Reference: Ameisen et al. 2025, "Circuit Tracing" (transformer-circuits.pub).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.attribution_graph.frozen import FrozenPass, freeze
from workbench.circuits.attribution_graph.ports import (
    Port,
    find_ports,
    skip_linear,
    values_read,
    values_written,
)
from workbench.circuits.attribution_graph.sources import Sources, Writes, feature_writes, join_writes
from workbench.circuits.attribution_graph.transcoders import Transcoders, join_transcoders
from workbench.dictionaries import Dictionary
from workbench.errors import UserError
from workbench.hooks import capture_forward

EMBED, POSITION = "hook_embed", "pos_embed.hook_out"


@dataclass(frozen=True, eq=False)
class Replacement:
    """A prompt's linear replacement model.

    Attributes:
        frozen: The forward pass that it is linearised at.
        transcoders: One per layer.
        ports: How each is joined to the model.
        sources: The nodes that write.
        writes: What is added by the nodes at the MLP output of each layer.
        embedded: What the tokens add at depth 0.
        n_skipped: First positions without features and errors.
    """

    frozen: FrozenPass
    transcoders: Transcoders
    ports: tuple[Port, ...]
    sources: Sources
    writes: tuple[Writes, ...]
    embedded: Writes
    n_skipped: int

    @property
    def anatomy(self) -> Anatomy:
        """The model."""
        return self.frozen.anatomy

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.frozen.layers)

    def read_depth(self, layer: int) -> int:
        """Depth of the stream that the transcoder of a layer reads."""
        return 2 * layer if self.anatomy.parallel else 2 * layer + 1

    def skip_change(
        self, layer: int, change: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch pos d_model"] | None:
        """What the linear skip of a layer adds to the stream for a change of what its MLP reads."""
        W_skip = self.transcoders.skip(layer)
        if W_skip is None:
            return None
        return skip_linear(self.ports[layer], self.frozen.layers[layer], W_skip.to(change), change)

    def pull_skip(
        self, layer: int, gradient: Float[Tensor, "*batch d_model"], at: Int[Tensor, "*any"] | slice
    ) -> Float[Tensor, "*batch d_model"] | None:
        """What the linear skip of a layer passes down of a gradient; `at` are the positions of its first axis."""
        W_skip, layer_, port = self.transcoders.skip(layer), self.frozen.layers[layer], self.ports[layer]
        if W_skip is None:
            return None
        shape = (-1, *[1] * (gradient.ndim - 1))
        scales = {name: layer_.scales[name][at].view(shape) for name in ("ln2", "ln2_post")}
        read = port.pull_written(layer_, gradient, scales["ln2_post"]) @ W_skip.to(gradient)
        return port.pull(layer_, read, scales["ln2"])


@torch.no_grad()
def open_replacement(
    anatomy: Anatomy,
    ids: Int[Tensor, " pos"],
    transcoders: Sequence[Dictionary] | Dictionary | Transcoders,
    *,
    n_skipped: int = 1,
) -> Replacement:
    """The replacement model of a prompt.

    Args:
        anatomy: The model.
        ids: Token ids of one prompt.
        transcoders: One per layer, from the MLP's input to its output, in any order; or one cross-layer dictionary.
        n_skipped: First positions whose features and errors are no nodes (the beginning token).

    Raises:
        UserError: transcoders that do not fit the model (see `join_transcoders`, `find_ports`), a prompt that does
            not fit, attention that looks ahead.

    Status: exact.
    """
    if n_skipped < 0 or n_skipped >= len(ids):
        raise UserError(
            f"n_skipped {n_skipped} leaves no position of a prompt of {len(ids)} tokens: give 0 to {len(ids) - 1}"
        )
    joined = transcoders if isinstance(transcoders, Transcoders) else join_transcoders(anatomy, transcoders)
    frozen = freeze(anatomy, ids)
    ports = find_ports(frozen, joined.reads, joined.writes)
    active = joined.encode(values_read(frozen, ports), first_pos=n_skipped)
    sources = Sources(active, anatomy.n_layers, frozen.n_pos)
    writes = tuple(
        _layer_writes(frozen, joined, ports, sources, out, n_skipped) for out in range(anatomy.n_layers)
    )
    at = torch.arange(frozen.n_pos, device=anatomy.device)
    tokens = join_writes(at + sources.token(0), at, token_vectors(frozen), frozen.n_pos)
    return Replacement(frozen, joined, ports, sources, writes, tokens, n_skipped)


def _layer_writes(
    frozen: FrozenPass,
    transcoders: Transcoders,
    ports: Sequence[Port],
    sources: Sources,
    out: int,
    n_skipped: int,
) -> Writes:
    """Features and errors at one layer's MLP output, at the stream."""
    rows, vectors = feature_writes(frozen, transcoders, ports, sources.active, out)
    at = torch.arange(n_skipped, frozen.n_pos, device=vectors.device)
    found = join_writes(rows, sources.active.pos[rows], vectors, frozen.n_pos)
    errors = _errors(frozen, transcoders, ports, found, out)[n_skipped:]
    all_rows = torch.cat([rows, at + sources.error(out, 0)])
    all_at = torch.cat([sources.active.pos[rows], at])
    return join_writes(all_rows, all_at, torch.cat([vectors, errors]), frozen.n_pos)


def _errors(
    frozen: FrozenPass, transcoders: Transcoders, ports: Sequence[Port], features: Writes, out: int
) -> Float[Tensor, "pos d_model"]:
    """What the transcoders leave of a layer's MLP output, at the stream (so after a post-norm's gain)."""
    layer, port = frozen.layers[out], ports[out]
    read, wanted = values_read(frozen, ports)[out], values_written(frozen, ports)[out]
    left = wanted - transcoders.output_bias(out).to(wanted)
    W_skip = transcoders.skip(out)
    left = left if W_skip is None else left - read @ W_skip.T.to(read)
    return port.push(layer, left, layer.scales["ln2_post"]) - features.total(frozen.n_pos)


def token_vectors(frozen: FrozenPass) -> Float[Tensor, "pos d_model"]:
    """What each token adds at depth 0: its embedding without a position embedding that is added to it."""
    model = frozen.anatomy.model
    if POSITION not in model.hook_dict or EMBED not in model.hook_dict:
        return frozen.embedded
    values = capture_forward(model, frozen.ids[None], [EMBED, POSITION])
    token, position = values[EMBED][0], values[POSITION].reshape(-1, *frozen.embedded.shape)[0]
    gap = float((token + position - frozen.embedded).abs().max())
    return token if gap <= 1e-5 * float(frozen.embedded.abs().max()) else frozen.embedded
