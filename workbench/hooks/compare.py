"""Comparing a path with TransformerLens' own `run_with_cache`, element by element, on a batch.

The tolerance follows the precision of the computation. In float32 two right ways to compute a value differ by
the order of their sums (scaled-dot-product against eager attention): some tens of machine epsilons of the
value's largest element, and 1e-5 is allowed. In 16 bits each operation rounds its result, and 8 epsilons are
allowed. That is loose (6% of the largest element in bfloat16), so mixed precision is compared in the weights'
own precision as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import UserError
from workbench.hooks.bridge_path import evaluation_mode

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EPSILONS = {2: 8, 4: 80, 8: 80}  # bytes of the type: epsilons of the largest element


class DiffersError(Exception):
    """A path gives another value than `run_with_cache`."""


@dataclass(frozen=True)
class Layout:
    """How a module's tensor becomes the value that TransformerLens gives."""

    heads: tuple[int, int] | None = None  # (heads, width of one) into which the last axis is split
    repeated: bool = False  # one row stands for the whole batch

    def __call__(self, value: Tensor, n_rows: int) -> Tensor:
        if self.heads is not None:
            value = value.unflatten(2, self.heads)
        return value.expand(n_rows, *value.shape[1:]) if self.repeated else value


def layout(got: Tensor, wanted: Tensor) -> Layout:
    """The layout that turns the shape of `got` into that of `wanted`, if it is a simple one."""
    if got.ndim == 3 and wanted.ndim == 4 and got.shape == wanted.flatten(2).shape:
        return Layout(heads=(wanted.shape[2], wanted.shape[3]))
    rows = (got.ndim, got.shape[:1], got.shape[1:]) == (wanted.ndim, (1,), wanted.shape[1:])
    return Layout(repeated=rows and wanted.shape[0] > 1)


def autocast(model: TransformerBridge, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Mixed precision in `dtype` on the model's device, or nothing."""
    device = torch.device(str(model.cfg.device)).type
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)


def reference(
    model: TransformerBridge, ids: Int[Tensor, "batch pos"], names: Sequence[str], mixed: torch.dtype | None
) -> dict[str, Tensor]:
    """What `run_with_cache` gives; without the hooks that do not fire."""
    with torch.no_grad(), evaluation_mode(model), autocast(model, mixed):
        _, cache = model.run_with_cache(ids, names_filter=list(names), return_cache_object=False)
    return {name: value for name, value in cache.items() if isinstance(value, Tensor)}


def tolerance_frac(model: TransformerBridge, mixed: torch.dtype | None) -> float:
    """The allowed difference as a share of the value's largest element."""
    dtypes = {p.dtype for p in model.original_model.parameters() if p.dtype.is_floating_point}
    return max(EPSILONS[d.itemsize] * torch.finfo(d).eps for d in (dtypes if mixed is None else {mixed}))


def compare(what: str, got: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Refuse a value that is not the reference.

    Raises:
        DiffersError: another shape, or an element further off than `tolerance` of the largest element.
    """
    if got.shape != wanted.shape:
        raise DiffersError(f"{what} has shape {tuple(got.shape)}, run_with_cache {tuple(wanted.shape)}")
    error, largest = difference(got, wanted)
    if not error <= tolerance * largest:
        share = error / largest if largest else error
        raise DiffersError(
            f"{what} differs from run_with_cache by {share:.2g} of its largest element, more than {tolerance:.1g}"
        )


def difference(got: Tensor, wanted: Tensor) -> tuple[float, float]:
    """(largest difference, largest finite element of the reference); equal infinities do not differ."""
    a, b = got.double(), wanted.double()
    error = (a - b).abs().masked_fill(a == b, 0)
    return float(error.max()), float(b.abs().masked_fill(b.isinf(), 0).max())


def refuse_pattern_as_scores(name: str, value: Tensor) -> None:
    """Refuse attention scores that are the pattern.

    On architectures whose attention TransformerLens calls as a whole (BERT, its own native models), it shows
    the weights after the softmax under the name of the scores.

    Raises:
        UserError: the rows of `hook_attn_scores` are probabilities.
    """
    if name.endswith("hook_attn_scores") and _probabilities(value):
        raise UserError(
            f"hook {name!r} holds the pattern after the softmax on this architecture, not the scores: "
            f"use {name.replace('hook_attn_scores', 'hook_pattern')!r}"
        )


def _probabilities(value: Tensor) -> bool:
    """Whether nothing is negative and each row sums to one."""
    return bool((value >= 0).all()) and bool(((value.double().sum(-1) - 1).abs() < 1e-2).all())
