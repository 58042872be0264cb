"""Where the bridge's parts sit in the Hugging Face model, read from the component tree.

A bridge puts its components in the places of the model's own modules and keeps each original as
`_original_component`. Walking down through the originals gives every module the path that it has in a model
without a bridge. A component's `hook_out` is the output of its module and `hook_in` the input; aliases such
as `hook_resid_post` are the same HookPoint objects under other names, so the object is the key. Hook points
that no module's input or output is (patterns, scores, the q, k and v of one fused projection, the parts of a
norm) are not in the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import nn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ORIGINAL = "_original_component"


@dataclass(frozen=True)
class Site:
    """One side of one module of the plain model."""

    module: str  # path in the plain model
    side: Literal["in", "out"]


def original_modules(model: TransformerBridge) -> dict[str, nn.Module]:
    """The model's own modules by the path that each has in a model without a bridge."""
    found: dict[str, nn.Module] = {}

    def walk(path: str, module: nn.Module) -> None:
        inner = cast(nn.Module, module._modules.get(ORIGINAL, module))
        found[path] = inner
        for name, child in inner._modules.items():
            if child is not None:
                walk(f"{path}.{name}" if path else name, child)

    walk("", model.original_model)
    return found


def sites(model: TransformerBridge) -> dict[int, Site]:
    """Per HookPoint, by identity, the module side where a plain model has its value."""
    paths = {id(module): path for path, module in original_modules(model).items()}
    found: dict[int, Site] = {}
    components: list[Any] = [part for part in model.modules() if ORIGINAL in part._modules]
    for part in components:
        path = paths.get(id(part._modules[ORIGINAL]))
        if path is not None and part.name is not None:
            found[id(part.hook_in)] = Site(path, "in")
            found[id(part.hook_out)] = Site(path, "out")
    for part in components:
        if getattr(part, "_placeholder_hooks_wired", False):
            _add_mirror(found, part)
    return found


def _add_mirror(found: dict[int, Site], part: Any) -> None:
    """A part without a module of its own shows the input of its first projection and the output of its last."""
    for side, name in (("hook_in", "in"), ("hook_out", "out")):
        shown = found.get(id(getattr(part._modules.get(name), side, None)))
        if shown is not None:
            found[id(getattr(part, side))] = shown
