"""Hook names and context lengths: what a model has, and one sentence for what it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import UserError, nearest

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


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
