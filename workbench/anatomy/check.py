"""Does an anatomy compute what its bridge computes? Compared part by part, and refused by the part's name.

On random prompts, for every block: the raw queries, keys and values, the pattern, the heads' outputs, and the
stream after the block; and the logits at every position. A wrong norm, mask, rotary table, cap or order of
the halves shows as an error of order one; rounding stays below the tolerance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.anatomy.anatomy import Anatomy, recorder
from workbench.errors import UserError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

TOLERANCES = {torch.float64: 1e-5, torch.float32: 3e-5}  # some models norm in float32 whatever they are given
_LOW_PRECISION = 0.25  # order of operations shows in patterns; a wrong part is of order one
_PARTS = ("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_pattern", "attn.hook_z", "hook_resid_post")


@torch.no_grad()
def self_check(anatomy: Anatomy, ids: Int[Tensor, "batch pos"]) -> float:
    """Largest difference between anatomy and bridge over all parts, as a share of the part's largest value.

    Raises:
        UserError: a part differs by more than rounding, so every effect would be wrong for this architecture.
    """
    model, allowed = anatomy.model, tolerance(anatomy)
    names = [f"blocks.{layer}.{part}" for layer in range(anatomy.n_layers) for part in _PARTS]
    theirs = _bridge_values(model, ids, names)
    seen, keep = recorder()
    embedded = anatomy.embed(ids)
    anatomy.run(embedded, edits={name: keep(name) for name in names})
    seen["logits"] = anatomy.logits(anatomy.run(embedded))  # without edits attention takes its fast path
    worst = 0.0
    for name, value in theirs.items():
        error = _error(seen[name].reshape(value.shape), value)
        if not error <= allowed:
            raise UserError(
                f"model {model.cfg.model_name!r} computes {name} in a way that the circuits' own forward pass does not "
                f"follow (largest difference {error:.1e} of its size, at most {allowed:.0e} is rounding): this "
                "architecture is refused, since its effects would be wrong"
            )
        worst = max(worst, error)
    return worst


def tolerance(anatomy: Anatomy) -> float:
    """Largest relative difference that counts as rounding, by the weights' dtype."""
    return TOLERANCES.get(anatomy.readout.W_U.dtype, _LOW_PRECISION)


def _bridge_values(model: TransformerBridge, ids: Tensor, names: list[str]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: object) -> None:
        values[_pending[id(hook)]] = value.clone()

    _pending = {id(model.hook_dict[name]): name for name in names if name in model.hook_dict}
    with model.hooks(fwd_hooks=[(name, keep) for name in _pending.values()]):
        values["logits"] = model(ids, return_type="logits")
    return values


def _error(found: Tensor, wanted: Tensor) -> float:
    size = max(1.0, float(wanted.abs().max()))
    return float((found - wanted).abs().max()) / size
