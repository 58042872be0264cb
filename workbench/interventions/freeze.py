"""Attention patterns and norm scales held at what they are in another run.

With patterns frozen the edited run cannot move attention; with norm scales frozen as well, what is left between
two MLPs is linear. By default the values are those of the unedited run of the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.anatomy import Anatomy, Edit, recorder
from workbench.errors import UserError, nearest

FREEZABLE = ("attention", "norms")
_SCALES = ("ln1.hook_scale", "ln2.hook_scale", "ln1_post.hook_scale", "ln2_post.hook_scale")


@torch.no_grad()
def frozen_edits(
    anatomy: Anatomy,
    parts: Sequence[str],
    prompts: Int[Tensor, "prompt pos"],
    to: Int[Tensor, "other_prompt other_pos"],
) -> dict[str, Edit]:
    """Edits that hold the named parts at their values on the prompts `to`.

    Raises:
        UserError: an unknown part, or prompts `to` of another length or number.
    """
    for part in parts:
        if part not in FREEZABLE:
            raise UserError(f"freeze {part!r} is not known; {nearest(part, FREEZABLE)}")
    if to.shape != prompts.shape:
        raise UserError(
            f"freeze_to has shape {tuple(to.shape)} and the prompts {tuple(prompts.shape)}: patterns are held "
            "position by position, so give as many prompts of the same length"
        )
    names = _names(anatomy, parts)
    seen, keep = recorder()
    edits = {name: keep(name) for name in names}
    if names:
        anatomy.logits(anatomy.run(anatomy.embed(to), edits=edits), edits)
    return {name: _holding(value) for name, value in seen.items()}


def _names(anatomy: Anatomy, parts: Sequence[str]) -> list[str]:
    inner = ["attn.hook_pattern"] * ("attention" in parts) + [*_SCALES] * ("norms" in parts)
    names = [f"blocks.{layer}.{name}" for layer in range(anatomy.n_layers) for name in inner]
    return names + ["ln_final.hook_scale"] * ("norms" in parts)


def _holding(value: Tensor) -> Edit:
    return lambda live: value
