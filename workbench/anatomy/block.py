"""One block: what each half reads from the residual stream and what it adds.

    sequential   x' = x + A(x);  x'' = x' + M(x')          A(x) = ln1_post(attn(ln1 x))
    parallel     x'' = x + A(x) + M(x)                     M(x) = ln2_post(mlp(ln2 x))

Norms that a model lacks are the identity; a parallel block without a second norm shares the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from workbench.anatomy.affine import Mlp
from workbench.anatomy.attention import Attention, read_attention
from workbench.anatomy.norm import NONE, Norm, read_norm


@dataclass(frozen=True)
class Block:
    """One block of a transformer.

    Attributes:
        layer: Its index.
        ln1: Norm before attention.
        attn: Attention.
        ln1_post: Norm of what attention gives, before it is added.
        ln2: Norm before the MLP.
        mlp: The MLP, None for attention-only models.
        ln2_post: Norm of what the MLP gives, before it is added.
        parallel: Both halves read the same stream.
    """

    layer: int
    ln1: Norm
    attn: Attention
    ln1_post: Norm
    ln2: Norm
    mlp: Mlp | None
    ln2_post: Norm
    parallel: bool

    def attn_out(self, z: Tensor) -> Float[Tensor, "*batch pos d_model"]:
        """What attention adds to the stream, from the heads' outputs z (*batch, pos, head, d_head)."""
        return self.ln1_post(self.attn.write(z))

    def mlp_out(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch pos d_model"]:
        """What the MLP adds to the stream, from the stream that it reads; zero where there is no MLP."""
        if self.mlp is None:
            return x.new_zeros(x.shape)
        return self.ln2_post(self.mlp(self.ln2(x)))


def read_block(module: Any, cfg: Any, layer: int) -> Block:
    """The parts of a bridge's block.

    Raises:
        UserError: a part that is not understood; the message names it.
    """
    d, name = int(cfg.d_model), f"block {layer}"

    def norm(key: str) -> Norm:
        return read_norm(getattr(module, key), d, f"{key} of {name}") if key in module.submodules else NONE

    parallel = bool(getattr(cfg, "parallel_attn_mlp", False))
    mlp = Mlp(module.mlp, d, f"the MLP of {name}") if "mlp" in module.submodules else None
    ln1 = norm("ln1")
    ln2 = ln1 if parallel and "ln2" not in module.submodules else norm("ln2")
    return Block(
        layer, ln1, read_attention(module.attn, cfg, f"attention of {name}"), norm("ln1_post"),
        ln2, mlp, norm("ln2_post"), parallel,
    )  # fmt: skip
