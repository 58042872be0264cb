"""Which heads carry an edge: the effect of every source on one target, split exactly.

    one layer    A[t, s] = around + sum_h through head h of that layer          (on the way from s to t)
    first hop    A[t, s] = no attention + sum_(l, h) whose first attention, seen from t, is head h of layer l

A gradient that goes through a frozen attention layer is the sum of what its heads pass and of what goes past them;
each part is carried on by itself. Both splits sum to the edge. Status: exact under the freeze.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.attribution_graph.descent import Descent, effects_below
from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.circuits.attribution_graph.sources import Writes
from workbench.circuits.attribution_graph.targets import Targets
from workbench.errors import UserError


@dataclass(frozen=True, eq=False)
class HeadLoadings:
    """The effects of all sources on one target by head.

    Attributes:
        heads: (layer, head) of each row of `through`.
        through: Effect that passes each head (head, source).
        rest: Effect that passes none of them (source).
    """

    heads: list[tuple[int, int]]
    through: Float[Tensor, "head source"]
    rest: Float[Tensor, " source"]

    @property
    def total(self) -> Float[Tensor, " source"]:
        """The edges."""
        return self.through.sum(0) + self.rest

    def of(self, source: int) -> dict[str, float]:
        """The parts of one edge by name, largest first: heads as `a1.h3`, and `rest`."""
        named = {f"a{a}.h{h}": float(self.through[i, source]) for i, (a, h) in enumerate(self.heads)}
        named["rest"] = float(self.rest[source])
        return dict(sorted(named.items(), key=lambda item: -abs(item[1])))


@torch.no_grad()
def layer_loadings(model: Replacement, target: Targets, layer: int) -> HeadLoadings:
    """Every edge into one target, by the heads of one attention layer.

    Raises:
        UserError: more than one target, or a layer that the target does not read from.

    Status: exact under the freeze.
    """
    _check(model, target, layer)
    descent = Descent(model, target).run(stop=2 * layer + 1)
    gradient = descent.gradient
    heads = model.frozen.layers[layer].by_head_pulled(gradient[:, 0])
    rest = gradient
    if model.anatomy.parallel:
        descent.feed(layer)
        skip = model.pull_skip(layer, gradient, slice(0, len(gradient)))
        rest = gradient if skip is None else gradient + skip
    below = effects_below(model, torch.cat([rest, heads], dim=1), 2 * layer)
    names = [(layer, head) for head in range(heads.shape[1])]
    return HeadLoadings(names, below[:, 1:].T, descent.rows[:, 0] + below[:, 0])


@torch.no_grad()
def first_hop_loadings(model: Replacement, target: Targets) -> HeadLoadings:
    """Every edge into one target, by the head through which its path leaves the target's position first.

    Raises:
        UserError: more than one target.

    Status: exact under the freeze.
    """
    _check(model, target, 0)
    walk = _Walk(model, target)
    parts, names = [], []
    for half in range(int(target.depth[0]) - 1, -1, -1):
        if half % 2 == 0:
            spread = walk.through_heads(half // 2)
            parts.append(effects_below(model, spread, half).T)
            names += [(half // 2, head) for head in range(spread.shape[1])]
        if half % 2 == (0 if model.anatomy.parallel else 1):
            walk.past_mlp(half // 2)
    walk.contract(model.embedded)
    none = walk.rest.new_zeros(0, len(model.sources))
    return HeadLoadings(names, torch.cat([none, *parts]), walk.rest)


class _Walk:
    """A gradient that goes straight down at its own position, past every attention."""

    def __init__(self, model: Replacement, target: Targets) -> None:
        self.model, self.at, self.gradient = model, target.pos, target.vectors
        self.rest = target.vectors.new_zeros(len(model.sources))

    def through_heads(self, layer: int) -> Float[Tensor, "pos head d_model"]:
        """What each head of a layer passes of it."""
        frozen, n_pos = self.model.frozen.layers[layer], int(self.at[0]) + 1
        rows = frozen.rows(self.at, n_pos)[0]
        return rows[:, :, None] * frozen.by_head(self.gradient)[0]

    def past_mlp(self, layer: int) -> None:
        """Contract with an MLP's output and add what its skip passes."""
        self.contract(self.model.writes[layer])
        skip = self.model.pull_skip(layer, self.gradient, self.at)
        self.gradient = self.gradient if skip is None else self.gradient + skip

    def contract(self, writes: Writes) -> None:
        """Direct effects of what is written at the position."""
        pos = int(self.at[0])
        inside = slice(writes.offsets[pos], writes.offsets[pos + 1])
        self.rest.index_add_(0, writes.source[inside], writes.vectors[inside] @ self.gradient[0])


def _check(model: Replacement, target: Targets, layer: int) -> None:
    if len(target) != 1:
        raise UserError(f"head loadings are of one target at a time, not {len(target)}: take one")
    deepest = (int(target.depth[0]) - 1) // 2
    if not 0 <= layer <= deepest:
        raise UserError(
            f"layer {layer} has no attention below the target: give 0 to {deepest} of {model.n_layers} layers"
        )
