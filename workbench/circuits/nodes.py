"""The nodes of a circuit: what they are called, where they write, which are chosen.

A node is a part of the model whose output is added to the residual stream: the embedding (token and
position together), one attention head (its `hook_z` through its own slice of W_O), one MLP, one feature of
a dictionary (its activation times its decoder row), or the dictionary's error (what the features leave
over). The logit difference is the one node that only reads.

Depth names a point of the residual stream: 2l before block l, 2l + 1 between its attention and its MLP,
2 n_layers after the last block. Every node writes at one depth, so replacing a node's value is the same as
adding (new - old) output there; that is what makes one anatomy enough for all kinds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import UserError
from workbench.hooks import check_hook

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

KINDS = ("embed", "head", "mlp", "feature", "error", "logit")
_OFFSETS = {"resid_pre": 0, "resid_mid": 1, "attn_out": 1, "resid_post": 2, "mlp_out": 2}
_HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)")


@dataclass(frozen=True, order=True)
class Node:
    """One node; -1 stands for "has none".

    Attributes:
        kind: One of `KINDS`.
        layer: Block index; for a feature or error, the block of the dictionary's hook.
        head: Head index.
        feature: Index in the dictionary.
    """

    kind: str
    layer: int = -1
    head: int = -1
    feature: int = -1

    @property
    def node_id(self) -> str:
        """A unique name: `embed`, `a1.h3`, `m1`, `f2.103`, `e2`, `logit`."""
        names = {
            "head": f"a{self.layer}.h{self.head}",
            "mlp": f"m{self.layer}",
            "feature": f"f{self.layer}.{self.feature}",
            "error": f"e{self.layer}",
        }
        return names.get(self.kind, self.kind)


EMBED, LOGIT = Node("embed"), Node("logit")


@dataclass(frozen=True)
class Site:
    """Where a dictionary's hook lies on the residual stream.

    Attributes:
        hook: TransformerLens name.
        layer: Block index.
        depth: Point of the residual stream at which a change of the activation is added.
        is_stream: True for the stream itself, False for one block output (`hook_attn_out`, `hook_mlp_out`).
    """

    hook: str
    layer: int
    depth: int
    is_stream: bool


def site_of_hook(model: TransformerBridge, hook: str) -> Site:
    """The site of a hook point that adds to the residual stream.

    Raises:
        UserError: unknown hook, or one that is no vector of the residual stream (`hook_z`, `hook_pattern`).
    """
    check_hook(model, hook)
    match = _HOOK.fullmatch(hook)
    if match is None:
        kinds = ", ".join(f"hook_{name}" for name in _OFFSETS)
        raise UserError(f"hook {hook!r} does not add to the residual stream: a circuit needs one of {kinds}")
    layer, kind = int(match[1]), match[2]
    if kind == "resid_mid" and getattr(model.cfg, "parallel_attn_mlp", False):
        raise UserError(
            f"hook {hook!r} does not exist in this model: its attention and MLP read the same stream; choose "
            f"'blocks.{layer}.hook_resid_pre' or 'blocks.{layer}.hook_resid_post'"
        )
    return Site(hook, layer, 2 * layer + _OFFSETS[kind], kind.startswith("resid"))


def has_mlp(model: TransformerBridge) -> bool:
    """Whether the model's blocks have an MLP (attention-only models do not)."""
    return not bool(getattr(model.cfg, "attn_only", False))


def component_nodes(model: TransformerBridge) -> tuple[Node, ...]:
    """Embedding, heads and MLPs, in the order in which the model computes them."""
    nodes = [EMBED]
    for layer in range(model.cfg.n_layers):
        nodes += [Node("head", layer, head) for head in range(model.cfg.n_heads)]
        if has_mlp(model):
            nodes.append(Node("mlp", layer))
    return tuple(nodes)


def component_depth(node: Node) -> int:
    """Depth at which a component writes (2l + 1 for heads, 2l + 2 for MLPs, 0 for the embedding)."""
    return {"embed": 0, "head": 2 * node.layer + 1, "mlp": 2 * node.layer + 2}[node.kind]


def covering(effects: Sequence[float], *, coverage_frac: float, n_max: int | None = None) -> list[int]:
    """Fewest indices whose positive effects reach `coverage_frac` of all positive effect, largest first.

    Args:
        effects: One effect a node, in any one unit; nodes that must not be chosen carry NaN.
        coverage_frac: Share of the sum of positive effects to reach, in (0, 1].
        n_max: Choose at most so many.
    """
    if not 0 < coverage_frac <= 1:
        raise UserError(f"coverage_frac {coverage_frac} is not a share: give a number above 0, at most 1")
    order = sorted((i for i, e in enumerate(effects) if e > 0), key=lambda i: (-effects[i], i))
    target = coverage_frac * sum(effects[i] for i in order) * (1 - 1e-12)
    chosen, reached = [], 0.0
    for index in order[:n_max]:
        if reached >= target:
            break
        chosen.append(index)
        reached += effects[index]
    return chosen
