"""A bridge's model as plain functions of the residual stream, every architecture alike.

A bridge runs whole or not at all, forks no inputs and shows other tensors under one name from architecture
to architecture. `Anatomy` holds the same weights as blocks of norms, attention and MLPs (`block.py`) and runs
them from any depth of the stream, with any value replaced on the way:

    depth 2l      the stream before block l
    depth 2l + 1  after its attention    (parallel blocks: after both halves; the second step adds nothing)
    depth 2n      after the last block

    logits = softcap(ln_final(x) W_U + b_U)

Values that can be read or replaced (`edits`), by TransformerLens name; a head axis stays an axis:

    blocks.l.hook_resid_pre, hook_resid_mid, hook_resid_post     the stream at depths 2l, 2l + 1, 2l + 2
    blocks.l.attn.hook_q, hook_k, hook_v     raw projections (pos, head, d_head)
    blocks.l.attn.hook_pattern, hook_z       (head, query, key), (pos, head, d_head)
    blocks.l.hook_attn_out, hook_mlp_out     what the half adds to the stream, after a post-norm
    blocks.l.mlp.hook_post                   neurons
    blocks.l.ln1.hook_scale, ln2, ln1_post, ln2_post, ln_final.hook_scale     norm scales

Here `hook_resid_mid` is the stream itself, so replacing it replaces what the skip connection carries too.
Status: exact, as far as `check.self_check`, which runs when an anatomy is opened, confirms it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy.attention import Surroundings
from workbench.anatomy.block import Block, read_block
from workbench.anatomy.norm import Norm, read_norm
from workbench.anatomy.readout import Readout, read_readout
from workbench.anatomy.surroundings import record_surroundings

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Edit = Callable[[Tensor], Tensor]
Edits = Mapping[str, Edit]


class Anatomy:
    """The parts of a model and the order in which they run.

    Attributes:
        model: The bridge it was read from.
        blocks: One per layer.
        ln_final: Norm before the unembedding.
        readout: Unembedding with its cap.
    """

    def __init__(self, model: TransformerBridge) -> None:
        self.model = model
        cfg = model.cfg
        self.blocks: tuple[Block, ...] = tuple(read_block(b, cfg, i) for i, b in enumerate(model.blocks))
        self.ln_final: Norm = read_norm(model.ln_final, int(cfg.d_model), "the final norm")
        self.readout: Readout = read_readout(model)
        self._around: dict[int, tuple[Surroundings, ...]] = {}

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def last_depth(self) -> int:
        """Depth of the stream after the last block."""
        return 2 * self.n_layers

    @property
    def n_heads(self) -> int:
        """Query heads per layer."""
        return self.blocks[0].attn.n_heads

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads per layer."""
        return self.blocks[0].attn.n_kv_heads

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        return int(self.model.cfg.d_model)

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP of a block read the same stream."""
        return self.blocks[0].parallel

    @property
    def has_mlp(self) -> bool:
        """Whether the blocks have an MLP."""
        return self.blocks[0].mlp is not None

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.readout.W_U.device

    def around(self, length: int) -> tuple[Surroundings, ...]:
        """Per layer, mask and rotary tables for prompts of `length` tokens."""
        if length not in self._around:
            self._around[length] = record_surroundings(self.model, length)
        return self._around[length]

    @torch.no_grad()
    def embed(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """The stream at depth 0: token and position embeddings, with the model's own scaling."""
        from workbench.hooks import capture_forward

        return capture_forward(self.model, ids, ["blocks.0.hook_resid_pre"])["blocks.0.hook_resid_pre"]

    def step(
        self, x: Float[Tensor, "*batch pos d_model"], depth: int, edits: Edits | None = None
    ) -> Float[Tensor, "*batch pos d_model"]:
        """The stream at `depth + 1` from the stream at `depth`."""
        edits, block = edits or {}, self.blocks[depth // 2]
        if depth % 2 == 0:
            added = self.attend(x, block, edits)
            if block.parallel:
                added = added + self.feed(x, block, edits)
            return _edit(edits, f"blocks.{block.layer}.hook_resid_mid", x + added)
        added = x if block.parallel or block.mlp is None else x + self.feed(x, block, edits)
        return _edit(edits, f"blocks.{block.layer}.hook_resid_post", added)

    def attend(self, x: Tensor, block: Block, edits: Edits) -> Float[Tensor, "*batch pos d_model"]:
        """What attention adds to the stream `x`."""
        name, around = f"blocks.{block.layer}.", self.around(x.shape[-2])[block.layer]
        normed = _norm(block.ln1, x, edits, f"{name}ln1.hook_scale")
        q, k, v = (_edit(edits, f"{name}attn.hook_{p}", block.attn.project(normed, p)) for p in "qkv")
        if f"{name}attn.hook_pattern" in edits:
            pattern = edits[f"{name}attn.hook_pattern"](block.attn.pattern(q, k, around))
            z = block.attn.mix(pattern, v)
        else:
            z = block.attn.attend(q, k, v, around)
        written = block.attn.write(_edit(edits, f"{name}attn.hook_z", z))
        written = _norm(block.ln1_post, written, edits, f"{name}ln1_post.hook_scale")
        return _edit(edits, f"{name}hook_attn_out", written)

    def feed(self, x: Tensor, block: Block, edits: Edits) -> Float[Tensor, "*batch pos d_model"]:
        """What the MLP adds to the stream `x`; zero where there is none."""
        if block.mlp is None:
            return torch.zeros_like(x)
        name = f"blocks.{block.layer}."
        normed = _norm(block.ln2, x, edits, f"{name}ln2.hook_scale")
        if f"{name}mlp.hook_post" in edits:
            written = block.mlp.out(edits[f"{name}mlp.hook_post"](block.mlp.post(normed)))
        else:
            written = block.mlp(normed)
        written = _norm(block.ln2_post, written, edits, f"{name}ln2_post.hook_scale")
        return _edit(edits, f"{name}hook_mlp_out", written)

    def run(
        self,
        x: Float[Tensor, "*batch pos d_model"],
        *,
        start: int = 0,
        stop: int | None = None,
        edits: Edits | None = None,
    ) -> Float[Tensor, "*batch pos d_model"]:
        """The stream at depth `stop` (the last by default) from the stream `x` at depth `start`."""
        edits, stop = edits or {}, self.last_depth if stop is None else stop
        for depth in range(start, stop):
            if depth % 2 == 0:
                x = _edit(edits, f"blocks.{depth // 2}.hook_resid_pre", x)
            x = self.step(x, depth, edits)
        return x

    def logits(
        self, x: Float[Tensor, "*batch pos d_model"], edits: Edits | None = None
    ) -> Float[Tensor, "*batch pos d_vocab"]:
        """Logits from the stream at the last depth, for all positions of `x`."""
        return self.readout(_norm(self.ln_final, x, edits or {}, "ln_final.hook_scale"))

    def last_logits(
        self, x: Float[Tensor, "*batch pos d_model"], depth: int, edits: Edits | None = None
    ) -> Float[Tensor, "*batch d_vocab"]:
        """Logits at the last position when the stream at `depth` is `x`.

        After the last attention only the last position matters, so only it goes through the last MLP where
        nothing is edited there.
        """
        if edits:
            x = self.run(x, start=depth, edits=edits)
            return self.readout(_norm(self.ln_final, x, edits, "ln_final.hook_scale")[..., -1, :])
        x = self.run(x, start=depth, stop=max(depth, self.last_depth - 1))[..., -1:, :]
        x = self.run(x, start=max(depth, self.last_depth - 1))
        return self.logits(x)[..., 0, :]


def _edit(edits: Edits, name: str, value: Tensor) -> Tensor:
    return edits[name](value) if name in edits else value


def _norm(norm: Norm, x: Tensor, edits: Edits, name: str) -> Tensor:
    return norm(x, edits[name](norm.scale(x))) if name in edits else norm(x)


def recorder(*, detach: bool = True) -> tuple[dict[str, Tensor], Callable[[str], Edit]]:
    """A dictionary of values and a function that makes, for a name, an edit which stores the value there."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Edit:
        def edit(value: Tensor) -> Tensor:
            seen[name] = value.detach() if detach else value
            return value

        return edit

    return seen, keep
