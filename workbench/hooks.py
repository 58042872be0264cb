"""Hook points by TransformerLens name: checking them, and a forward pass that stops when all are seen.

The forward stops as soon as the last requested hook has fired, so capturing block 2 of 24 costs two
blocks. `self_check` compares this path with TransformerLens' own `run_with_cache`, because bridges have
had silent errors per architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import UserError, nearest

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class _AllSeen(Exception):  # noqa: N818 - control flow, not an error
    """Raised inside the forward pass when every requested hook has fired."""


def hook_names(model: TransformerBridge) -> list[str]:
    """Every name that `check_hook` accepts, canonical names and TransformerLens aliases."""
    return list(model.hook_dict)


def check_hook(model: TransformerBridge, name: str) -> str:
    """The name itself if the model has such a hook point.

    Raises:
        UserError: unknown name, with the nearest ones.
    """
    known = hook_names(model)
    if name not in known:
        raise UserError(f"hook {name!r} is not a hook point of this model; {nearest(name, known)}")
    return name


def check_context(model: TransformerBridge, n_ctx: int) -> int:
    """`n_ctx` if the model's positions reach that far.

    Raises:
        UserError: longer than the model's context, or shorter than 2 tokens.
    """
    longest = int(model.cfg.n_ctx)
    if not 2 <= n_ctx <= longest:
        raise UserError(
            f"n_ctx {n_ctx} does not fit: this model's context is {longest} tokens and the least is 2"
        )
    return n_ctx


@torch.no_grad()
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
    """
    wanted, seen = set(names), {}

    def keep(name: str):
        def hook(value: Tensor, hook: object) -> None:
            seen[name] = value.detach()
            if seen.keys() == wanted:
                raise _AllSeen

        return hook

    try:
        with model.hooks(fwd_hooks=[(name, keep(name)) for name in wanted]):
            model(ids, return_type=None)
    except _AllSeen:
        pass
    missing = wanted - seen.keys()
    if missing:
        raise UserError(
            f"hook {min(missing)!r} did not fire in this model's forward pass: choose another hook point"
        )
    return seen


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
