"""The model with its activation at one hook replaced, and its loss per token.

Replaced are the positions that a store holds: all but the first of each block (the beginning-of-text
token), under every condition alike. Losses are those of the predictions made at replaced positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

FIRST = 1  # first replaced position


@torch.no_grad()
def clean_run(
    model: TransformerBridge, ids: Int[Tensor, "block pos"], hook_name: str
) -> tuple[Float[Tensor, "block predicted"], Float[Tensor, "block pos1 d"]]:
    """Loss per predicted token in nats of the unchanged model, and its activations at the hook.

    Returns:
        Losses of tokens 2 to n_ctx - 1; activations of positions 1 to n_ctx - 1, heads side by side.

    Status: exact.
    """
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: object) -> None:
        seen["value"] = value.detach()[:, FIRST:].flatten(2).clone()

    return _losses(model, ids, hook_name, keep), seen["value"]


@torch.no_grad()
def spliced_run(
    model: TransformerBridge,
    ids: Int[Tensor, "block pos"],
    hook_name: str,
    replacement: Float[Tensor, "block pos1 d"],
) -> Float[Tensor, "block predicted"]:
    """Loss per predicted token in nats with the activations of positions 1 on replaced.

    Args:
        model: The bridge.
        ids: Blocks of token ids.
        hook_name: Where to replace.
        replacement: What to put there, heads side by side.

    Status: exact (the later layers are run on the replacement; nothing is frozen).
    """

    def replace(value: Tensor, hook: object) -> Tensor:
        new = replacement.to(value).reshape(value[:, FIRST:].shape)
        return torch.cat([value[:, :FIRST], new], dim=1)

    return _losses(model, ids, hook_name, replace)


def _losses(
    model: TransformerBridge, ids: Tensor, hook_name: str, hook: object
) -> Float[Tensor, "block predicted"]:
    with model.hooks(fwd_hooks=[(hook_name, hook)]):
        logits = model(ids, return_type="logits")[:, FIRST:-1].float()
    return functional.cross_entropy(logits.transpose(1, 2), ids[:, FIRST + 1 :].long(), reduction="none")
