"""Which component writes to the residual stream, which reads from it, and which pairs of them are edges.

    writers   embed, a0.h0 ... , m0, a1.h0 ...           what is added to the stream
    readers   a0.h0.q ..., a0.h0.k ..., a0.h0.v ..., m0, ..., logit      what takes the stream as its input

An edge (writer, reader) exists where the writer has written before the reader reads. In a sequential block
the MLP reads the heads of its own block; in a parallel block it does not. Keys and values that several query
heads share are one reader with the index of the key-value head. Attention biases belong to no writer: they are
in every reader's input whatever is replaced.

A set of edges is a mask, Bool (writer, reader), True = live. A set of nodes is the mask of all edges that leave
them: a node that is not kept is replaced for every reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.errors import UserError, nearest

Edge = tuple[str, str]


class Wiring:
    """Writers, readers and edges of one model.

    Attributes:
        anatomy: The model.
        writers: Ids in the order of computation.
        readers: Ids in the order of computation; of a layer all queries, then keys, values, the MLP.
        allowed: Which pairs are edges (writer, reader).
        heads: Per layer, rows of its heads among the writers.
        mlps: Per layer, row of its MLP, -1 where there is none.
        reads: Per layer, columns of its "q", "k" and "v" readers.
        mlp_reads: Per layer, column of its MLP, -1 where there is none.

    Raises:
        UserError: the model normalises all heads' queries together, so that a head has no input of its own.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.heads: list[range] = []
        self.mlps: list[int] = []
        self.reads: list[dict[str, range]] = []
        self.mlp_reads: list[int] = []
        writers, readers, seen = ["embed"], [], []
        for block in anatomy.blocks:
            _check_heads_apart(block.attn, block.layer)
            name, kv, n_before = f"a{block.layer}.h", block.attn.n_kv_heads, len(writers)
            widths = {"q": block.attn.n_heads, "k": kv, "v": kv}
            parts = {}
            for part, n in widths.items():
                parts[part] = range(len(readers), len(readers) + n)
                readers += [f"{name}{head}.{part}" for head in range(n)]
            self.reads.append(parts)
            seen += [n_before] * sum(widths.values())
            self.heads.append(range(n_before, n_before + block.attn.n_heads))
            writers += [f"{name}{head}" for head in range(block.attn.n_heads)]
            self.mlps.append(-1 if block.mlp is None else len(writers))
            self.mlp_reads.append(-1 if block.mlp is None else len(readers))
            if block.mlp is not None:
                readers.append(f"m{block.layer}")
                seen.append(n_before if block.parallel else len(writers))
                writers.append(f"m{block.layer}")
        self.writers, self.readers = tuple(writers), (*readers, "logit")
        reach = torch.tensor([*seen, len(writers)])
        self.allowed: Bool[Tensor, "writer reader"] = torch.arange(len(writers))[:, None] < reach[None]

    @property
    def n_writers(self) -> int:
        """Number of writers."""
        return len(self.writers)

    @property
    def n_readers(self) -> int:
        """Number of readers."""
        return len(self.readers)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.edges)

    @property
    def logit(self) -> int:
        """Column of the logits."""
        return self.n_readers - 1

    @cached_property
    def edges(self) -> list[Edge]:
        """Every edge, reader by reader in the order of computation."""
        return [(self.writers[w], self.readers[r]) for w, r in self.pairs.tolist()]

    @cached_property
    def pairs(self) -> Tensor:
        """Row and column of every edge (edge, 2), in the order of `edges`."""
        return self.allowed.T.nonzero().flip(-1)

    @cached_property
    def index(self) -> dict[Edge, int]:
        """Position of every edge in `edges`."""
        return {edge: i for i, edge in enumerate(self.edges)}

    @cached_property
    def row(self) -> dict[str, int]:
        """Row of every writer."""
        return {name: i for i, name in enumerate(self.writers)}

    @cached_property
    def column(self) -> dict[str, int]:
        """Column of every reader."""
        return {name: i for i, name in enumerate(self.readers)}

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Per reader, the depth of the stream that it reads (see `workbench.anatomy.anatomy`)."""
        depths = [0] * self.n_readers
        for layer, block in enumerate(self.anatomy.blocks):
            for part in self.reads[layer].values():
                depths[part.start : part.stop] = [2 * layer] * len(part)
            if block.mlp is not None:
                depths[self.mlp_reads[layer]] = 2 * layer + (0 if block.parallel else 1)
        depths[self.logit] = self.anatomy.last_depth
        return tuple(depths)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Per writer, its layer; -1 for the embedding."""
        layers = [-1] * self.n_writers
        for layer, rows in enumerate(self.heads):
            for row in (*rows, *([self.mlps[layer]] if self.mlps[layer] >= 0 else [])):
                layers[row] = layer
        return tuple(layers)

    def read_by(self, writer: int) -> tuple[int, ...]:
        """Columns of the readers that the output of a writer is made from; none for the embedding."""
        layer = self.layers[writer]
        if layer < 0:
            return ()
        if writer == self.mlps[layer]:
            return (self.mlp_reads[layer],)
        head = writer - self.heads[layer].start
        reads, group = self.reads[layer], self.anatomy.blocks[layer].attn.group
        return reads["q"][head], reads["k"][head // group], reads["v"][head // group]

    def edge_mask(self, edges: Iterable[Edge]) -> Bool[Tensor, "writer reader"]:
        """The mask that keeps these edges.

        Raises:
            UserError: a pair is no edge of this model.
        """
        mask = torch.zeros_like(self.allowed)
        for edge in edges:
            self.check_edge(edge)
            mask[self.row[edge[0]], self.column[edge[1]]] = True
        return mask

    def node_mask(self, nodes: Iterable[str]) -> Bool[Tensor, "writer reader"]:
        """The mask that keeps these writers: every edge that leaves one of them.

        Raises:
            UserError: a name is no writer of this model.
        """
        kept = torch.zeros(self.n_writers, dtype=torch.bool)
        for name in nodes:
            if name not in self.row:
                raise UserError(f"node {name!r} writes nothing in this model; {nearest(name, self.row)}")
            kept[self.row[name]] = True
        return self.allowed & kept[:, None]

    def check_edge(self, edge: Edge) -> None:
        """Refuse a pair that is no edge.

        Raises:
            UserError: an unknown writer or reader, or a writer that comes after the reader.
        """
        for name, known, what in ((edge[0], self.row, "writer"), (edge[1], self.column, "reader")):
            if name not in known:
                raise UserError(
                    f"{what} {name!r} of edge {edge[0]} -> {edge[1]} is not in this model; {nearest(name, known)}"
                )
        if not self.allowed[self.row[edge[0]], self.column[edge[1]]]:
            raise UserError(
                f"edge {edge[0]} -> {edge[1]} does not exist: {edge[1]} reads before {edge[0]} has written; "
                "take edges from Wiring.edges"
            )

    def check_masks(self, masks: Bool[Tensor, "*mask writer reader"]) -> None:
        """Refuse masks of another model.

        Raises:
            UserError: another shape, or a kept pair that is no edge.
        """
        if masks.shape[-2:] != self.allowed.shape:
            raise UserError(
                f"masks of shape {tuple(masks.shape)} do not fit {self.n_writers} writers and {self.n_readers} "
                "readers: make them with Wiring.edge_mask or Wiring.node_mask"
            )
        stray = (masks.cpu().flatten(0, -3) if masks.ndim > 2 else masks.cpu()[None]).any(0) & ~self.allowed
        if stray.any():
            writer, reader = stray.nonzero()[0].tolist()
            self.check_edge((self.writers[writer], self.readers[reader]))


def _check_heads_apart(attn: Any, layer: int) -> None:
    """Refuse norms over the queries or keys of all heads together."""
    for part in ("q_norm", "k_norm"):
        norm = getattr(attn, part)
        if norm.weight is not None and norm.weight.shape[-1] != attn.d_head:
            raise UserError(
                f"layer {layer} normalises all heads together ({part} of width {norm.weight.shape[-1]}): the heads "
                "have no inputs of their own, so edges into single heads are not defined for this model"
            )
