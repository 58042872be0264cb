"""The model with its activation at one hook replaced: its loss per token, and how far its predictions move.

Replaced are chosen positions only, under every condition alike: those of which a store keeps rows, for packed
text all but the beginning-of-text token. Figures are of each prediction; which of them count is the caller's
choice. Sequences of one batch are of equal length: nothing is padded, so nothing of a padding enters.

    loss = -log q(next token)        KL = sum over tokens t of p(t) * (log p(t) - log q(t))

with p the clean model's prediction and q the spliced one's. The loss asks about the text's next token alone,
KL about the whole prediction: a reconstruction can keep the first and move the second.

Memory: the clean log-probabilities of a batch, blocks x positions x vocabulary x 4 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.capture.harvest import per_token
from workbench.errors import UserError
from workbench.hooks.compare import autocast

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Hook = tuple[str, Callable[..., Tensor | None]]


@dataclass(frozen=True)
class CleanRun:
    """The unchanged model on some blocks.

    Attributes:
        losses: Loss of tokens 1 to the last, in nats (block, predicted).
        log_probs: Log-probabilities of what is predicted there (block, predicted, vocab).
        values: Activations by hook as a store holds them, heads side by side, each (block, pos, d).
    """

    losses: Float[Tensor, "block predicted"]
    log_probs: Float[Tensor, "block predicted vocab"]
    values: dict[str, Tensor]


@dataclass(frozen=True)
class SplicedRun:
    """The model with a replaced activation.

    Attributes:
        losses: Loss of tokens 1 to the last, in nats (block, predicted).
        kl: Divergence of its predictions from the clean ones, in nats (block, predicted).
    """

    losses: Float[Tensor, "block predicted"]
    kl: Float[Tensor, "block predicted"]


@torch.no_grad()
def clean_run(
    model: TransformerBridge,
    ids: Int[Tensor, "block pos"],
    hook_names: Sequence[str],
    *,
    n_ctx: int | None = None,
    mixed: torch.dtype | None = None,
) -> CleanRun:
    """Losses, predictions and activations of the unchanged model.

    Args:
        model: The bridge.
        ids: Blocks of token ids.
        hook_names: Where to read.
        n_ctx: Context of the store, to whose width attention patterns are filled up; by default that of `ids`.
        mixed: Dtype of autocast, as the store was captured.

    Raises:
        UserError: a hook does not fire.

    Status: exact.
    """
    seen: dict[str, Tensor] = {}

    def reader(name: str) -> Callable[..., None]:
        def keep(value: Tensor, hook: object) -> None:
            rows = per_token(name, value.detach(), ids.shape, n_ctx or ids.shape[1])
            seen[name] = rows.unflatten(0, ids.shape).clone()

        return keep

    rows = list(_log_probs(model, ids, [(name, reader(name)) for name in dict.fromkeys(hook_names)], mixed))
    for name in hook_names:
        if name not in seen:
            raise UserError(
                f"hook {name!r} did not fire in this model's forward pass: evaluate a dictionary of another hook point"
            )
    log_probs = torch.stack(rows)
    return CleanRun(_losses(log_probs, ids), log_probs, seen)


@torch.no_grad()
def spliced_run(
    model: TransformerBridge,
    ids: Int[Tensor, "block pos"],
    hook_name: str,
    replacement: Float[Tensor, "block pos d"],
    replaced: Bool[Tensor, "block pos"],
    *,
    clean: CleanRun,
    mixed: torch.dtype | None = None,
) -> SplicedRun:
    """Losses, and divergence from the clean predictions, with the activations of some positions replaced.

    Args:
        model: The bridge.
        ids: Blocks of token ids.
        hook_name: Where to replace.
        replacement: What to put there, as `clean_run` gives activations.
        replaced: Where to put it; elsewhere `replacement` is not read.
        clean: The clean run of the same blocks.
        mixed: Dtype of autocast.

    Status: exact (the later layers are run on the replacement; nothing is frozen).
    """

    def replace(value: Tensor, hook: object) -> Tensor:
        chosen, new = replaced.to(value.device), replacement.to(value)
        if _is_pattern(hook_name, value, ids):
            new = new.unflatten(2, (value.shape[1], -1))[..., : value.shape[3]].transpose(1, 2)
            return torch.where(chosen[:, None, :, None], new, value)
        return torch.where(chosen.view(*ids.shape, *[1] * (value.ndim - 2)), new.reshape(value.shape), value)

    losses, kl = [], []
    for own, known, row in zip(
        _log_probs(model, ids, [(hook_name, replace)], mixed), clean.log_probs, ids, strict=True
    ):
        losses.append(_losses(own[None], row[None])[0])
        kl.append((known.exp() * (known - own)).sum(-1))
    return SplicedRun(torch.stack(losses), torch.stack(kl))


def _is_pattern(name: str, value: Tensor, ids: Tensor) -> bool:
    """Whether the value is (block, head, query, key): its rows then lie query by query, as `per_token` puts them."""
    square = value.ndim == 4 and value.shape[2:] == (ids.shape[1], ids.shape[1])
    return square and name.endswith(("hook_pattern", "hook_attn_scores"))


def _log_probs(
    model: TransformerBridge, ids: Tensor, hooks: list[Hook], mixed: torch.dtype | None
) -> Iterator[Float[Tensor, "predicted vocab"]]:
    """Log-probabilities of the tokens after the first, one block at a time."""
    with autocast(model, mixed), model.hooks(fwd_hooks=hooks):
        logits = model(ids, return_type="logits")[:, :-1]
    return (block.float().log_softmax(-1) for block in logits)


def _losses(
    log_probs: Float[Tensor, "block predicted vocab"], ids: Tensor
) -> Float[Tensor, "block predicted"]:
    return -log_probs.gather(2, ids[:, 1:, None].long())[..., 0]
