"""What a hand-compiled model is made of: named subspaces, heads and neurons that read and write them.

The residual stream is the direct sum of named subspaces ("token", "position", ...). A planned head says
which of them its query, key and value read and where it writes; planned neurons say the same for an MLP.
Everything else about the model is noise (`build.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Maps = Mapping[str, Tensor]
ONE, TOKEN, POSITION, OUT, SCRATCH = "one", "token", "position", "out", "scratch"
SCRATCH_WIDTH = 8


@dataclass(frozen=True)
class Layout:
    """Subspaces of the residual stream, side by side.

    Attributes:
        widths: Dimensions of each subspace, by name.
    """

    widths: Mapping[str, int]

    @property
    def d_model(self) -> int:
        """Sum of the widths."""
        return sum(self.widths.values())

    def span(self, name: str) -> slice:
        """The columns of one subspace."""
        names = list(self.widths)
        start = sum(self.widths[n] for n in names[: names.index(name)])
        return slice(start, start + self.widths[name])

    def rows(self, maps: Maps, n_rows: int) -> Float[Tensor, "n_rows d_model"]:
        """A matrix that reads each named subspace by its map (row, width) and nothing else."""
        matrix = torch.zeros(n_rows, self.d_model, dtype=torch.float64)
        for name, part in maps.items():
            matrix[: len(part), self.span(name)] = part.double()
        return matrix


@dataclass(frozen=True, kw_only=True)
class Head:
    """A head that is part of the circuit.

    Attributes:
        layer: Its block.
        head: Its index.
        query: Subspace to (match dimension, width); the score is sharpness times query . key.
        key: The same for the key.
        value: Subspace to (value dimension, width).
        write: Subspace to (value dimension, width): what each value dimension writes there.
    """

    layer: int
    head: int
    query: Maps
    key: Maps
    value: Maps
    write: Maps

    @property
    def width(self) -> int:
        """Dimensions that it needs."""
        return max(len(m) for maps in (self.query, self.key, self.value, self.write) for m in maps.values())


@dataclass(frozen=True, kw_only=True)
class Neurons:
    """ReLU neurons of one MLP that are part of the circuit.

    Attributes:
        layer: Their block.
        read: Subspace to (neuron, width).
        bias: Added before the ReLU (neuron).
        write: Subspace to (neuron, width): what each neuron writes there.
        constant: Subspace to (width): written always.
    """

    layer: int
    read: Maps
    bias: Tensor
    write: Maps
    constant: Maps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A circuit on paper.

    Attributes:
        layout: Its subspaces; ONE, TOKEN, POSITION, OUT and SCRATCH are among them.
        n_layers: Blocks of the model.
        n_heads: Heads of each block.
        heads: Heads of the circuit.
        neurons: Neurons of the circuit, at most one entry per layer.
        readout: What each token's logit reads from OUT (d_vocab, width of OUT).
    """

    layout: Layout
    n_layers: int
    n_heads: int
    heads: tuple[Head, ...]
    neurons: tuple[Neurons, ...]
    readout: Float[Tensor, "d_vocab out"]


def layout(*, d_vocab: int, n_ctx: int, out: int, **others: int) -> Layout:
    """The subspaces that every plan has, and `others` by name."""
    return Layout({ONE: 1, TOKEN: d_vocab, POSITION: n_ctx, **others, OUT: out, SCRATCH: SCRATCH_WIDTH})


def eye(n: int) -> Tensor:
    """The identity: every dimension to itself."""
    return torch.eye(n, dtype=torch.float64)


def pick(width: int, *columns: int) -> Float[Tensor, "column width"]:
    """Rows that read one column each."""
    return eye(width)[list(columns)]


def constant() -> Maps:
    """Reads 1 always: the query of a head that asks the same everywhere."""
    return {ONE: torch.ones(1, 1, dtype=torch.float64)}


def at_position(place: int, n_ctx: int) -> Maps:
    """Reads 1 at one position and 0 elsewhere: a key."""
    return {POSITION: pick(n_ctx, place)}


def shifted(n_ctx: int, offset: int) -> Maps:
    """Reads position p as p - offset: a query for the position `offset` earlier."""
    matrix = torch.zeros(n_ctx, n_ctx, dtype=torch.float64)
    for place in range(offset, n_ctx):
        matrix[place - offset, place] = 1
    return {POSITION: matrix}
