"""The two ends of every masked run: the clean prompts, and everything replaced; values computed when asked for.

    clean   the model on the clean prompts
    base    every reader's input is the sum of the replaced outputs (and the attention biases)

Under full replacement a component gives what it makes of the replaced stream. With values of a true run that is
its replaced output; with means or zeros it is not, and then its edges carry a difference although nothing upstream
is live (`offset`).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.heads import attend_heads
from workbench.circuits.wiring.replacement import Replacement

_ROUNDING = {torch.float64: 1e-10, torch.float32: 2e-5}


class End:
    """Streams and component values of one end, for the prompts of one chunk.

    Head values lie head first: (head, prompt, pos, d_head).
    """

    def __init__(self, anatomy: Anatomy, embedded: Float[Tensor, "prompt pos d_model"]) -> None:
        self.anatomy = anatomy
        self.around = anatomy.around(embedded.shape[1])
        self._streams = [embedded]
        self._parts: dict[tuple[int, str], Tensor] = {}
        self._normed: dict[int, Tensor] = {}

    def stream(self, depth: int) -> Float[Tensor, "prompt pos d_model"]:
        """The stream at a depth."""
        while len(self._streams) <= depth:
            self._streams.append(self._next(len(self._streams) - 1))
        return self._streams[depth]

    def part(self, layer: int, part: str) -> Float[Tensor, "head prompt pos d_head"]:
        """Raw queries, keys or values ("q", "k", "v"), or the heads' outputs ("z")."""
        if (layer, part) not in self._parts:
            self._parts[layer, part] = self._heads(layer) if part == "z" else self._project(layer, part)
        return self._parts[layer, part]

    def mlp(self, layer: int) -> Float[Tensor, "prompt pos d_model"]:
        """What the MLP adds to the stream."""
        if (layer, "mlp") not in self._parts:
            block = self.anatomy.blocks[layer]
            x = self.stream(2 * layer + (0 if block.parallel else 1))
            self._parts[layer, "mlp"] = block.mlp_out(x)
        return self._parts[layer, "mlp"]

    def _next(self, depth: int) -> Tensor:
        block = self.anatomy.blocks[depth // 2]
        x = self._streams[depth]
        if depth % 2 == 0:
            x = x + block.attn_out(self.part(block.layer, "z").permute(1, 2, 0, 3))
            return x + self.mlp(block.layer) if block.parallel and block.mlp is not None else x
        return x if block.parallel or block.mlp is None else x + self.mlp(block.layer)

    def _project(self, layer: int, part: str) -> Tensor:
        block = self.anatomy.blocks[layer]
        if layer not in self._normed:
            self._normed = {layer: block.ln1(self.stream(2 * layer))}
        return block.attn.project(self._normed[layer], part).permute(2, 0, 1, 3)

    def _heads(self, layer: int) -> Tensor:
        attn = self.anatomy.blocks[layer].attn
        q, k, v = (self.part(layer, p) for p in "qkv")
        if attn.group > 1:
            k, v = (t.repeat_interleave(attn.group, 0) for t in (k, v))
        return attend_heads(attn, q, k, v, self.around[layer])


class Base(End):
    """Everything replaced."""

    def __init__(self, anatomy: Anatomy, replacement: Replacement, n_prompts: int) -> None:
        def spread(value: Tensor) -> Tensor:
            return value.expand(n_prompts, *value.shape[1:])

        super().__init__(anatomy, spread(replacement.embed))
        self.z = [spread(value).permute(2, 0, 1, 3) for value in replacement.z]
        self.mlps = [spread(value) for value in replacement.mlp]
        self.mixed = [block.attn.write(self.z[block.layer].permute(1, 2, 0, 3)) for block in anatomy.blocks]

    def _next(self, depth: int) -> Tensor:
        layer, block = depth // 2, self.anatomy.blocks[depth // 2]
        x = self._streams[depth]
        if depth % 2 == 0:
            x = x + block.ln1_post(self.mixed[layer])
            return x + self.mlps[layer] if block.parallel and block.mlp is not None else x
        return x if block.parallel or block.mlp is None else x + self.mlps[layer]

    def offset(self, wiring: Wiring, clean: Float[Tensor, "prompt pos d_model"]) -> Bool[Tensor, " writer"]:
        """Writers whose value differs from the replaced one although all their inputs are replaced."""
        found = torch.zeros(wiring.n_writers, dtype=torch.bool)
        found[0] = not torch.equal(clean, self._streams[0])
        for layer, rows in enumerate(wiring.heads):
            differs = _differ(self.part(layer, "z"), self.z[layer]).flatten(1).any(1)
            found[list(rows)] = differs.cpu()
            if wiring.mlps[layer] >= 0:
                found[wiring.mlps[layer]] = bool(_differ(self.mlp(layer), self.mlps[layer]).any())
        return found


def _differ(value: Tensor, replaced: Tensor) -> Tensor:
    """Where two values differ by more than rounding."""
    bound = _ROUNDING.get(value.dtype, 5e-2) * max(1e-30, float(replaced.abs().max()))
    return (value - replaced).abs() > bound
