"""The model with its activation at one hook replaced, and its loss per token.

Replaced are chosen positions only, under every condition alike: those of which a store keeps rows, for packed
text all but the beginning-of-text token. Losses are of each prediction; which of them count is the caller's
choice. Sequences of one batch are of equal length: nothing is padded, so nothing of a padding enters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from workbench.capture.harvest import per_token
from workbench.errors import UserError
from workbench.hooks.compare import autocast

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@torch.no_grad()
def clean_run(
    model: TransformerBridge,
    ids: Int[Tensor, "block pos"],
    hook_name: str,
    *,
    n_ctx: int | None = None,
    mixed: torch.dtype | None = None,
) -> tuple[Float[Tensor, "block predicted"], Float[Tensor, "block pos d"]]:
    """Loss per predicted token in nats of the unchanged model, and its activations at the hook.

    Args:
        model: The bridge.
        ids: Blocks of token ids.
        hook_name: Where to read.
        n_ctx: Context of the store, to whose width attention patterns are filled up; by default that of `ids`.
        mixed: Dtype of autocast, as the store was captured.

    Returns:
        Losses of tokens 1 to the last; activations as a store holds them, heads side by side.

    Raises:
        UserError: the hook does not fire.

    Status: exact.
    """
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: object) -> None:
        rows = per_token(hook_name, value.detach(), ids.shape, n_ctx or ids.shape[1])
        seen["value"] = rows.unflatten(0, ids.shape).clone()

    losses = _losses(model, ids, hook_name, keep, mixed)
    if not seen:
        raise UserError(
            f"hook {hook_name!r} did not fire in this model's forward pass: evaluate a dictionary of another hook point"
        )
    return losses, seen["value"]


@torch.no_grad()
def spliced_run(
    model: TransformerBridge,
    ids: Int[Tensor, "block pos"],
    hook_name: str,
    replacement: Float[Tensor, "block pos d"],
    replaced: Bool[Tensor, "block pos"],
    *,
    mixed: torch.dtype | None = None,
) -> Float[Tensor, "block predicted"]:
    """Loss per predicted token in nats with the activations of some positions replaced.

    Args:
        model: The bridge.
        ids: Blocks of token ids.
        hook_name: Where to replace.
        replacement: What to put there, as `clean_run` gives activations.
        replaced: Where to put it; elsewhere `replacement` is not read.
        mixed: Dtype of autocast.

    Status: exact (the later layers are run on the replacement; nothing is frozen).
    """

    def replace(value: Tensor, hook: object) -> Tensor:
        chosen, new = replaced.to(value.device), replacement.to(value)
        if _is_pattern(hook_name, value, ids):
            new = new.unflatten(2, (value.shape[1], -1))[..., : value.shape[3]].transpose(1, 2)
            return torch.where(chosen[:, None, :, None], new, value)
        return torch.where(chosen.view(*ids.shape, *[1] * (value.ndim - 2)), new.reshape(value.shape), value)

    return _losses(model, ids, hook_name, replace, mixed)


def _is_pattern(name: str, value: Tensor, ids: Tensor) -> bool:
    """Whether the value is (block, head, query, key): its rows then lie query by query, as `per_token` puts them."""
    square = value.ndim == 4 and value.shape[2:] == (ids.shape[1], ids.shape[1])
    return square and name.endswith(("hook_pattern", "hook_attn_scores"))


def _losses(
    model: TransformerBridge, ids: Tensor, hook_name: str, hook: object, mixed: torch.dtype | None
) -> Float[Tensor, "block predicted"]:
    with autocast(model, mixed), model.hooks(fwd_hooks=[(hook_name, hook)]):
        logits = model(ids, return_type="logits")[:, :-1].float()
    return functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:].long(), reduction="none")
