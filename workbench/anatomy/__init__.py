"""A model taken apart: norms, heads and MLPs as plain functions of the residual stream.

open_anatomy(model)      read a bridge and compare every part with it; refuses what it does not follow
Anatomy.run(x, ...)      from any depth to any depth, values read or replaced by TransformerLens name
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workbench.anatomy.anatomy import Anatomy, Edit, Edits, recorder
from workbench.anatomy.attention import Attention, Surroundings
from workbench.anatomy.block import Block
from workbench.anatomy.check import self_check
from workbench.anatomy.norm import Norm

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

__all__ = [
    "Anatomy",
    "Attention",
    "Block",
    "Edit",
    "Edits",
    "Norm",
    "Surroundings",
    "open_anatomy",
    "recorder",
    "self_check",
]

CHECK_TOKENS = 12


def open_anatomy(model: TransformerBridge) -> Anatomy:
    """The anatomy of a bridge, compared with it on two random prompts.

    Raises:
        UserError: weights that cannot be read, or an architecture that is not followed; the message names the part.
    """
    anatomy = Anatomy(model)
    n_ctx = int(getattr(model.cfg, "n_ctx", 0) or CHECK_TOKENS)
    shape = (2, min(CHECK_TOKENS, n_ctx))
    ids = torch.randint(0, int(model.cfg.d_vocab), shape, generator=torch.Generator().manual_seed(0))
    self_check(anatomy, ids.to(anatomy.device))
    return anatomy
