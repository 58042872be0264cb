"""Masks and rotary tables of every layer for one prompt length, recorded from a true forward pass.

Windows and rotary bases may differ from layer to layer, and a library's way of making them changes between
versions; what the model really passes to its attention does not lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.anatomy.attention import Surroundings

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@torch.no_grad()
def record_surroundings(model: TransformerBridge, length: int) -> tuple[Surroundings, ...]:
    """Per layer, what attention gets beside the stream, for prompts of `length` tokens."""
    device = next(model.parameters()).device
    with _recorded(model) as calls:
        model(torch.zeros(1, length, dtype=torch.long, device=device), return_type=None)
    return tuple(
        _surroundings(block.attn, arguments, length, device)
        for block, arguments in zip(model.blocks, calls, strict=True)
    )


def _surroundings(attn: Any, arguments: dict[str, Any], length: int, device: torch.device) -> Surroundings:
    inner = attn.original_component
    causal = bool(getattr(inner, "causal", True)) and bool(getattr(inner, "is_causal", True))
    every = torch.ones(length, length, dtype=torch.bool, device=device)
    allowed = every.tril() if causal else every
    mask = arguments.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 4:
        allowed = allowed & _allowed(mask[0, 0, :, :length])
    cos, sin = _tables(inner, arguments.get("position_embeddings"), length, attn.config)
    return Surroundings(allowed, cos, sin)


def _allowed(mask: Tensor) -> Tensor:
    """True where a mask, boolean or added to the scores, lets a query look."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def _tables(inner: Any, given: Any, length: int, cfg: Any) -> tuple[Tensor | None, Tensor | None]:
    rotary = getattr(inner, "rotary", None)
    if rotary is not None:
        return rotary.cos_cached[:length], rotary.sin_cached[:length]
    if given is None:
        return None, None
    cos, sin = (t.reshape(t.shape[-2:]) if t.ndim == 2 else t[0] for t in given)
    if getattr(cfg, "rotary_adjacent_pairs", False):
        half = cos.shape[-1] // 2
        cos, sin = (t[..., :half].repeat_interleave(2, dim=-1) for t in (cos, sin))
    return cos, sin


@contextmanager
def _recorded(model: TransformerBridge) -> Iterator[list[dict[str, Any]]]:
    """Keyword arguments of every block's attention during a forward pass."""
    calls: list[dict[str, Any]] = []

    def record(_module: object, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append(dict(kwargs))

    handles = [block.attn.register_forward_pre_hook(record, with_kwargs=True) for block in model.blocks]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
