"""Names of nodes and edges in circuits of EAP-IG and MIB, and which edges a model of their kind has.

    theirs  input    a0.h1    m0    logits    a0.h1->m3    m0->a2.h3<q>
    ours    embed    a0.h1    m0    logit     (a0.h1, m3)  (m0, a2.h3.q)

An edge runs from a writer to a later reader: attention before the MLP of its layer, or beside it where
`parallel_attn_mlp` says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from workbench.circuits.exchange.checks import is_whole, need, shown
from workbench.circuits.node_names import node_record
from workbench.errors import UserError

_OURS = {"input": "embed", "logits": "logit"}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
_NODE = re.compile(r"input|logits|a\d+\.h\d+|m\d+")
_EDGE = re.compile(r"(input|a\d+\.h\d+|m\d+)->(?:(a\d+\.h\d+)<([qkv])>|(m\d+|logits))")


@dataclass(frozen=True)
class Shape:
    """The model of a circuit, as its `cfg` says.

    Attributes:
        n_layers: Layers.
        n_heads: Query heads a layer.
        d_model: Width of the residual stream.
        parallel_attn_mlp: Whether attention and MLP of a layer read the same stream.
    """

    n_layers: int
    n_heads: int
    d_model: int
    parallel_attn_mlp: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The `cfg` of a circuit file."""
        return dict(vars(self))

    def nodes(self) -> list[str]:
        """All nodes under their names, in the order of computation."""
        blocks = [
            [*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}"]
            for layer in range(self.n_layers)
        ]
        return ["input", *(name for block in blocks for name in block), "logits"]


def shape_of(cfg: Any) -> Shape:
    """The shape in a circuit's `cfg`.

    Raises:
        UserError: a key is missing or no whole number.
    """
    keys = ("n_layers", "n_heads", "d_model")
    need(cfg, (*keys, "parallel_attn_mlp"), "cfg")
    for key in keys:
        if not is_whole(cfg[key]) or cfg[key] < 1:
            raise UserError(f"cfg.{key} is {shown(cfg[key])}: give a whole number from 1")
    if not isinstance(cfg["parallel_attn_mlp"], bool):
        raise UserError(f"cfg.parallel_attn_mlp is {shown(cfg['parallel_attn_mlp'])}: give true or false")
    return Shape(**{key: cfg[key] for key in (*keys, "parallel_attn_mlp")})


def our_node(name: str, shape: Shape) -> str:
    """Our name of a node.

    Raises:
        UserError: no node of a model of this shape is called so.
    """
    if not _NODE.fullmatch(name):
        raise UserError(f"node {shown(name)} is no name: write input, a0.h1, m0 or logits")
    _check_range(_OURS.get(name, name), shape, f"node {name!r}")
    return _OURS.get(name, name)


def our_edge(name: str, shape: Shape) -> tuple[str, str]:
    """Our names of writer and reader of an edge.

    Raises:
        UserError: it is no name of an edge, or a model of this shape has no such edge.
    """
    match = _EDGE.fullmatch(name)
    if match is None:
        raise UserError(f"edge {shown(name)} is no name: write a0.h1->m3, m0->a2.h3<q> or m0->logits")
    writer, head, part, plain = match.groups()
    edge = _OURS.get(writer, writer), f"{head}.{part}" if head else _OURS.get(plain, plain)
    for node in edge:
        _check_range(node, shape, f"edge {name!r}")
    if _writes_at(edge[0], shape) >= _reads_at(edge[1], shape):
        raise UserError(f"edge {name!r} runs backwards: {edge[1]} is computed before {edge[0]} writes")
    return edge


def their_node(name: str) -> str:
    """Their name of one of our nodes."""
    return _THEIRS.get(name, name)


def their_edge(writer: str, reader: str) -> str:
    """Their name of an edge between two of our nodes."""
    head, _, part = reader.rpartition(".")
    return f"{their_node(writer)}->{f'{head}<{part}>' if part in ('q', 'k', 'v') and head else their_node(reader)}"


def _check_range(name: str, shape: Shape, what: str) -> None:
    record = node_record(name)
    layer, head = record.get("layer", 0), record.get("head", 0)
    if layer >= shape.n_layers or head >= shape.n_heads:
        raise UserError(f"{what} is not in a model of {shape.n_layers} layers of {shape.n_heads} heads")


def _writes_at(name: str, shape: Shape) -> int:
    record = node_record(name)
    within = (
        0 if record["kind"] == "embed" else 1 if record["kind"] == "head" or shape.parallel_attn_mlp else 2
    )
    return 2 * record.get("layer", 0) + within


def _reads_at(name: str, shape: Shape) -> int:
    record = node_record(name)
    if record["kind"] == "logit":
        return 2 * shape.n_layers + 1
    within = 1 if record["kind"] == "head" or shape.parallel_attn_mlp else 2
    return 2 * record["layer"] + within
