"""One change of one node: set, scale, ablate, add, patch or steer, at all or chosen positions.

    ablate  c' = 0          set  c' = v          scale  c' = s c          add  c' = c + v
    patch   c' = the coordinates that an unedited run of other prompts has at the same positions
    steer   c' = c + s |x|  for a direction of the stream, x the stream there: a share of its length

c are the target's coordinates (`target.py`), as they are in the edited run. Several interventions compose in
their order; those on features of one dictionary in a row read the activation once and act together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import UserError
from workbench.interventions.target import Target, target

ACTIONS = ("ablate", "set", "scale", "add", "patch", "steer")


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of a target.

    Attributes:
        target: What is changed.
        action: One of `ACTIONS`.
        value: Number, tensor (width), or tensor (pos, width) with a row for each of `positions`.
        positions: Where; None for every position (features: every one after the first).
        source: Prompts that a patch takes its values from (1 or prompt, pos); None for the counterfactual prompts.
    """

    target: Target
    action: str
    value: float | Tensor = 0.0
    positions: tuple[int, ...] | None = None
    source: Int[Tensor, "prompt pos"] | None = None

    def __str__(self) -> str:
        """`scale a1.h3 by 0.5 at 4, 5`."""
        words = {"ablate": "", "patch": "", "set": " to", "scale": " by", "add": "", "steer": " by"}[
            self.action
        ]
        if self.action not in ("ablate", "patch"):
            words += " a tensor" if isinstance(self.value, Tensor) else f" {self.value:g}"
        where = "" if self.positions is None else " at " + ", ".join(map(str, self.positions))
        return f"{self.action} {self.target}{words}{where}"

    def rows(self, positions: Sequence[int]) -> Intervention:
        """The intervention at some of its positions: of a value with a row a position, those rows."""
        if not isinstance(self.value, Tensor) or self.value.ndim < 2:
            return self
        assert self.positions is not None
        return replace(self, value=self.value[[self.positions.index(p) for p in positions]])

    def apply(self, c: Tensor, *, size: Tensor | None, source: Tensor | None) -> Tensor:
        """New coordinates from old ones (*batch, pos, width).

        Args:
            c: Coordinates.
            size: Length of the value at each position (*batch, pos, 1), for `steer`.
            source: Coordinates of the source run at the same positions, for `patch`.
        """
        value = self.value.to(c) if isinstance(self.value, Tensor) else self.value
        if self.action == "patch":
            assert source is not None
            return source.to(c).expand_as(c)
        if self.action == "scale":
            return c * value
        if self.action == "ablate":
            return torch.zeros_like(c)
        if self.action == "set":
            return torch.zeros_like(c) + value
        return c + (value if size is None else value * size)


def _positions(positions: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if positions is None else tuple(positions)


def _target(node: Target | str) -> Target:
    return target(node) if isinstance(node, str) else node


def ablate(node: Target | str, *, positions: Sequence[int] | None = None) -> Intervention:
    """The node's value becomes 0: of a direction, the stream loses it; of features, what they write is taken out."""
    return Intervention(_target(node), "ablate", positions=_positions(positions))


def set_to(
    node: Target | str, value: float | Tensor, *, positions: Sequence[int] | None = None
) -> Intervention:
    """The node takes a value: a number for all its coordinates, a row of them, or a row for each position."""
    return Intervention(_target(node), "set", value, _positions(positions))


def scale(node: Target | str, factor: float, *, positions: Sequence[int] | None = None) -> Intervention:
    """The node's value times a factor."""
    return Intervention(_target(node), "scale", factor, _positions(positions))


def add(node: Target | str, value: float | Tensor, *, positions: Sequence[int] | None = None) -> Intervention:
    """The node's value plus another; of a direction, so much of the unit direction."""
    return Intervention(_target(node), "add", value, _positions(positions))


def patch(
    node: Target | str,
    *,
    source: Int[Tensor, "prompt pos"] | None = None,
    positions: Sequence[int] | None = None,
) -> Intervention:
    """The node's value from an unedited run of other prompts, by default the counterfactual ones of the pairs."""
    return Intervention(_target(node), "patch", positions=_positions(positions), source=source)


def steer_by(node: Target, share: float, *, positions: Sequence[int] | None = None) -> Intervention:
    """The stream moves along a direction by a share of its own length at each position.

    Raises:
        UserError: the target is no direction of the stream.
    """
    if node.direction is None:
        raise UserError(f"node '{node}' has no direction to steer along: use stream(layer, direction=vector)")
    return Intervention(node, "steer", share, _positions(positions))
