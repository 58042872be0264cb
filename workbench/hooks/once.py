"""One batch through the bridge: `capture_forward` stops as soon as the last requested hook has fired.

Capturing block 2 of 24 costs two blocks. `self_check` compares the values with TransformerLens' own
`run_with_cache`. For many batches use `open_forward`, which registers its hooks once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import UserError
from workbench.hooks.bridge_path import BridgePath

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def capture_forward(
    model: TransformerBridge, ids: Int[Tensor, "batch pos"], names: Sequence[str]
) -> dict[str, Tensor]:
    """Activations at `names` for one batch, in one forward that stops after the deepest of them.

    Args:
        model: The bridge.
        ids: Token ids, each row starting as the model expects (the embedded model: with the end-of-text token).
        names: Hook names; order and depth do not matter.

    Returns:
        Per name the activation as TransformerLens gives it ((batch, pos, d_model) for the residual stream,
        (batch, pos, head_index, d_head) for `hook_z`), detached. Status: exact.

    Raises:
        UserError: a hook does not fire in this model's forward pass.
    """
    path = BridgePath(model, tuple(dict.fromkeys(names)))
    path.recorder.stop_when_all_seen = True
    try:
        path.run(ids, None)
    finally:
        path.close()
    refuse_missing(path.recorder.missing())
    return path.recorder.release()


def refuse_missing(names: list[str]) -> None:
    """Refuse hooks that did not fire.

    Raises:
        UserError: there is one; names the first.
    """
    if names:
        raise UserError(
            f"hook {names[0]!r} did not fire in this model's forward pass: choose another hook point"
        )


def self_check(model: TransformerBridge, ids: Int[Tensor, "batch pos"], names: Sequence[str]) -> None:
    """Compare `capture_forward` with `run_with_cache` on a batch and refuse at the first difference.

    Raises:
        UserError: the two differ by more than 1e-5 of the activation's largest value; names the hook.
    """
    fast = capture_forward(model, ids, names)
    with torch.no_grad():
        _, cache = model.run_with_cache(ids, names_filter=list(names))
    for name in names:
        slow = cache[name]
        error = float((fast[name] - slow).abs().max())
        if fast[name].shape != slow.shape or not error <= 1e-5 * float(slow.abs().max()) + 1e-12:
            raise UserError(
                f"hook {name!r}: early-exit capture differs from run_with_cache by {error:.2g}; "
                "this architecture is not captured correctly, choose another hook point"
            )
