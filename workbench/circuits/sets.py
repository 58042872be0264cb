"""Which sets of nodes an ablation compares: the traced one, its complement, its prefixes, random ones.

A set is stored as the nodes it names and whether it keeps those or all others, so that a complement and
the whole model need no list of every node of a large dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench.circuits.faithfulness import random_sets
from workbench.circuits.nodes import Node
from workbench.errors import UserError

CIRCUIT_KINDS = {"components": ("head", "mlp"), "features": ("feature",)}


@dataclass(frozen=True)
class NodeSet:
    """What is kept.

    Attributes:
        name: `traced`, `complement`, `full`, `empty`, `top-<n>`, `random-<i>` or `all-features`.
        nodes: The nodes it names.
        others: True when it keeps all nodes but those.
    """

    name: str
    nodes: frozenset[Node]
    others: bool = False

    @property
    def key(self) -> tuple[frozenset[Node], bool]:
        """Equal for sets that keep the same nodes."""
        return self.nodes, self.others

    def complement(self, name: str = "complement") -> NodeSet:
        """What this set ablates."""
        return NodeSet(name, self.nodes, not self.others)

    def kept_of(self, pool: Sequence[Node]) -> frozenset[Node]:
        """The kept nodes among `pool`."""
        return frozenset(node for node in pool if self.keeps(node))

    def keeps(self, node: Node) -> bool:
        """Whether the node is kept."""
        return (node in self.nodes) != self.others


@dataclass(frozen=True)
class Traced:
    """A traced circuit of one granularity.

    Attributes:
        ranked: Exactly patched nodes with positive effect, largest first.
        chosen: The circuit.
        pool: All nodes it was chosen from, in the order of the node table.
    """

    ranked: tuple[Node, ...]
    chosen: frozenset[Node]
    pool: tuple[Node, ...]


def read_traced(folder: Path, kinds: tuple[str, ...]) -> Traced:
    """The traced circuit among the nodes of the given kinds.

    Raises:
        UserError: the task was not traced in this run, or no node of the kinds helps it.
    """
    path = folder / "nodes.parquet"
    if not path.is_file():
        raise UserError(f"task {folder.name!r} is not traced in this run: trace it first (workbench trace)")
    rows = [row for row in pd.read_parquet(path).to_dict("records") if row["kind"] in kinds]
    pool = [Node(row["kind"], row["layer"], row["head"], row["feature"]) for row in rows]
    helping = [i for i, row in enumerate(rows) if row["patched_logits"] > 0]
    order = sorted(helping, key=lambda i: (-rows[i]["patched_logits"], i))
    chosen = frozenset(node for node, row in zip(pool, rows, strict=True) if row["in_circuit"])
    if not chosen:
        raise UserError(
            f"task {folder.name!r}: no {' or '.join(kinds)} has a positive effect, so there is no circuit"
        )
    return Traced(tuple(pool[i] for i in order), chosen, tuple(pool))


def plan_sets(
    traced: Traced, *, size: int | None, sizes: Sequence[int] | None, n_random: int, seed: int
) -> list[NodeSet]:
    """The sets to compare; `size` replaces the traced circuit by that many largest nodes.

    Prefixes of `sizes` nodes are judged besides, by default of 1, 2, 4, ... nodes.

    Raises:
        UserError: a size beyond the number of ranked nodes.
    """
    circuit = NodeSet("traced", traced.chosen if size is None else frozenset(_prefix(traced, size)))
    whole = NodeSet("full", frozenset(), others=True)
    prefixes = default_sizes(len(traced.ranked)) if sizes is None else sizes
    ladder = [NodeSet(f"top-{n}", frozenset(_prefix(traced, n))) for n in prefixes]
    drawn = random_sets(sorted(circuit.nodes), traced.pool, n_sets=n_random, seed=seed)
    controls = [NodeSet(f"random-{i}", nodes) for i, nodes in enumerate(drawn)]
    return [circuit, circuit.complement(), whole, whole.complement("empty"), *ladder, *controls]


def default_sizes(n_ranked: int) -> list[int]:
    """1, 2, 4, ... up to the number of ranked nodes."""
    return [2**i for i in range(n_ranked.bit_length()) if 2**i <= n_ranked]


def _prefix(traced: Traced, n: int) -> tuple[Node, ...]:
    if not 1 <= n <= len(traced.ranked):
        raise UserError(
            f"size {n} is not between 1 and the {len(traced.ranked)} patched nodes with positive effect"
        )
    return traced.ranked[:n]
