"""What an edge carries when it is not kept: one value for every writer.

    resample   the values of another run (the counterfactual prompts'), `replacement_run`
    others     mean, zero, learned values: any tensors of these shapes

A value may be shared by all prompts (first axis 1) or belong to each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, recorder
from workbench.errors import UserError


@dataclass(frozen=True, eq=False)
class Replacement:
    """The replaced value of every writer.

    Attributes:
        embed: Of the embedding, (1 or prompt, pos, d_model).
        z: Of the heads, per layer (1 or prompt, pos, head, d_head), before W_O.
        mlp: Of the MLPs, per layer (1 or prompt, pos, d_model): what is added to the stream. Empty without MLPs.
        positions: True where edges are replaced; elsewhere everything stays live. None: at all positions.
    """

    embed: Float[Tensor, "one_or_prompt pos d_model"]
    z: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...] = ()
    positions: Bool[Tensor, " pos"] | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Replacement:
        """The same with every value changed; positions stay."""
        z, mlp = (tuple(change(value) for value in values) for values in (self.z, self.mlp))
        return Replacement(change(self.embed), z, mlp, self.positions)

    def prompts(self, chosen: slice) -> Replacement:
        """The same for some of the prompts."""
        return self.map(lambda value: value if value.shape[0] == 1 else value[chosen])

    def check(self, anatomy: Anatomy, ids: Int[Tensor, "prompt pos"]) -> None:
        """Refuse values that do not fit a model and its prompts.

        Raises:
            UserError: a missing layer or another shape.
        """
        n_prompts, length = ids.shape
        attn = anatomy.blocks[0].attn
        stream = (length, anatomy.d_model)
        wanted = {
            "embed": ((self.embed,), stream, 1),
            "z": (self.z, (length, attn.n_heads, attn.d_head), anatomy.n_layers),
            "mlp": (self.mlp, stream, anatomy.n_layers if anatomy.has_mlp else 0),
        }
        for name, (values, shape, n) in wanted.items():
            if len(values) != n:
                raise UserError(
                    f"replacement.{name} has {len(values)} layers, the model {n}: give one value a layer"
                )
            for layer, value in enumerate(values):
                if value.shape[1:] != shape or value.shape[0] not in (1, n_prompts):
                    raise UserError(
                        f"replacement.{name} of layer {layer} has shape {tuple(value.shape)}, but these prompts need "
                        f"(1 or {n_prompts}, {', '.join(map(str, shape))})"
                    )


@torch.no_grad()
def replacement_run(anatomy: Anatomy, ids: Int[Tensor, "prompt pos"]) -> Replacement:
    """The values of every writer on other prompts, usually `batch.counterfactual`. Status: exact."""
    return replacement_from(anatomy, anatomy.embed(ids))


@torch.no_grad()
def replacement_from(anatomy: Anatomy, embedded: Float[Tensor, "prompt pos d_model"]) -> Replacement:
    """The same from a stream at depth 0."""
    seen, keep = recorder()
    z_names = [f"blocks.{block.layer}.attn.hook_z" for block in anatomy.blocks]
    mlp_names = [f"blocks.{block.layer}.hook_mlp_out" for block in anatomy.blocks if block.mlp is not None]
    anatomy.run(embedded, edits={name: keep(name) for name in (*z_names, *mlp_names)})
    z, mlp = (tuple(seen[name] for name in names) for names in (z_names, mlp_names))
    return Replacement(embedded, z, mlp)
