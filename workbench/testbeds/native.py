"""TransformerLens' own small transformer with given weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import UserError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def boot(
    weights: Mapping[str, Tensor], shape: Mapping[str, object], *, dtype: torch.dtype
) -> TransformerBridge:
    """A native bridge with given weights, in evaluation mode with frozen parameters.

    Args:
        weights: By the names of the native model (`layers.0.attn.q.weight`), all of them.
        shape: Its configuration.
        dtype: Of the parameters.
    """
    from transformer_lens.model_bridge.sources.native import boot as boot_native

    model = boot_native({"init_weights": False, **shape}, dtype=dtype)
    model.eval().requires_grad_(False)
    named = {n.replace("_original_component.", ""): p for n, p in model.original_model.named_parameters()}
    if named.keys() != weights.keys():
        raise UserError(
            f"weights {sorted(named.keys() ^ weights.keys())} are missing or too many: give those of the model"
        )
    for name, parameter in named.items():
        parameter.copy_(weights[name])
    return model
