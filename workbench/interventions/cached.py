"""One token at a time: the last positions run on, earlier ones are there as keys and values.

    keys = [those kept, those of the new positions]          (values alike)

An edit of an earlier position has shaped the kept keys and values when that position was run, so generation with
a cache equals running everything again, as long as a position's rotary table and mask row do not depend on how
many tokens follow. `tables_fit` checks that. Status: exact under that condition.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy, Edit, Surroundings
from workbench.circuits.sweeps.tail import mix_ready, rows_from


class Cache:
    """Keys and values of the positions run so far, for prompts that will have at most `length` tokens.

    Attributes:
        length: Positions run so far.
    """

    def __init__(self, anatomy: Anatomy, length: int) -> None:
        self.length = 0
        self._anatomy = anatomy
        self._around = anatomy.around(length)
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * anatomy.n_layers

    @torch.no_grad()
    def run(
        self, x: Float[Tensor, "prompt pos d_model"], edits: Mapping[str, Edit]
    ) -> Float[Tensor, "prompt d_vocab"]:
        """Logits after the next positions, whose stream at depth 0 is `x`; they join those kept."""
        first, self.length = self.length, self.length + x.shape[1]
        for layer, block in enumerate(self._anatomy.blocks):
            x = _edit(edits, f"blocks.{layer}.hook_resid_pre", x)
            added = self._attend(layer, x, first, edits)
            if block.parallel:
                added = added + self._anatomy.feed(x, block, edits)
            x = _edit(edits, f"blocks.{layer}.hook_resid_mid", x + added)
            x = self._anatomy.step(x, 2 * layer + 1, edits)
        return self._anatomy.logits(x[:, -1:], edits)[:, 0]

    def _attend(self, layer: int, x: Tensor, first: int, edits: Mapping[str, Edit]) -> Tensor:
        block, here = self._anatomy.blocks[layer], rows_from(self._around[layer], first, self.length)
        attn, normed = block.attn, block.ln1(x)
        q, k = (attn.ready(attn.project(normed, part), part, here) for part in "qk")
        v = attn.project(normed, "v").transpose(-2, -3)
        kept = self._kept[layer]
        if kept is not None:
            k, v = torch.cat([kept[0], k], 2), torch.cat([kept[1], v], 2)
        self._kept[layer] = k, v
        z = _edit(edits, f"blocks.{layer}.attn.hook_z", mix_ready(attn, q, k, v, here.allowed))
        return _edit(edits, f"blocks.{layer}.hook_attn_out", block.attn_out(z))


def tables_fit(anatomy: Anatomy, length: int, longest: int) -> bool:
    """Whether masks and rotary tables of `length` tokens are the first rows of those of `longest`."""
    pairs = zip(anatomy.around(length), anatomy.around(longest), strict=True)
    return all(_equal(short, rows_from(long, 0, length)) for short, long in pairs)


def _equal(one: Surroundings, other: Surroundings) -> bool:
    if not torch.equal(one.allowed, other.allowed):
        return False
    tables = ((one.cos, other.cos), (one.sin, other.sin))
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.allclose(a, b))
        for a, b in tables
    )


def _edit(edits: Mapping[str, Edit], name: str, value: Tensor) -> Tensor:
    return edits[name](value) if name in edits else value
