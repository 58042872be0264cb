"""A second Hugging Face model over the weights of a bridge, without the bridge's wrappers.

The modules are made anew on the meta device, where they take no memory, from the class and the configuration
of the model inside the bridge. Each of their parameters, buffers and loose tensors is then the very tensor
object of the original, so nothing is doubled, tied weights stay tied and an update in place is seen by both.
Attention is Hugging Face's `sdpa` (torch's scaled dot product) or `eager`; some architectures have only one.

Where a bridge computes with a copy of a weight, a change of that copy is noticed and not followed.

Limits: modules must be what the configuration makes (no quantised layers, no adapters), and all weights must
be in memory (no offload). Everything else is refused here, and the bridge path serves instead.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.hooks.recorder import version
from workbench.hooks.tree import original_modules

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class NoPlainPathError(Exception):
    """The plain path cannot serve; the message says why."""


class PlainModel:
    """The plain modules, and the tensors that they share with the bridge."""

    def __init__(self, model: TransformerBridge, attention: str) -> None:
        originals = original_modules(model)
        self.root: Any = _skeleton(originals[""], attention)
        self.modules = dict(self.root.named_modules(remove_duplicate=False))
        self._shared: list[tuple[dict[str, Any], str, Tensor]] = []
        if self.modules.keys() != originals.keys():
            odd = min(self.modules.keys() ^ originals.keys())
            raise NoPlainPathError(f"module {odd!r} is in one of the two models only")
        for path, module in self.modules.items():
            self._share(path, module, originals[path])
        self._copies = _copies(model, {storage(tensor) for _, _, tensor in self._shared})
        self.root.eval()

    def _share(self, path: str, module: nn.Module, original: nn.Module) -> None:
        if type(module) is not type(original):
            raise NoPlainPathError(f"module {path!r} was changed to a {type(original).__name__}")
        if tensor_names(module) != tensor_names(original):
            raise NoPlainPathError(f"module {path!r} has other tensors than its configuration makes")
        for kept in ("_parameters", "_buffers"):  # whole: a bridge may keep a parameter as a buffer
            theirs = getattr(original, kept)
            setattr(module, kept, dict(theirs))
            self._shared += [(theirs, name, tensor) for name, tensor in theirs.items() if tensor is not None]
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                setattr(module, name, getattr(original, name))
        if any(tensor.is_meta for _, _, tensor in self._shared):
            raise NoPlainPathError(f"the weights of module {path!r} are not in memory (offloaded)")

    def current(self) -> bool:
        """Whether the bridge still holds the very tensors that are shared, and its copies as they were."""
        return all(holder.get(name) is tensor for holder, name, tensor in self._shared) and all(
            holder.get(name) is tensor and version(tensor) == written
            for holder, name, tensor, written in self._copies
        )


def storage(tensor: Tensor) -> int:
    """Address of the memory that a tensor or any view of it uses."""
    return tensor.untyped_storage().data_ptr()


def _copies(model: TransformerBridge, shared: set[int]) -> list[tuple[dict[str, Any], str, Tensor, int]]:
    """The bridge's parameters in memory of their own (GPT-NeoX: q, k and v), and how often each was written."""
    holders: list[dict[str, Any]] = [module._parameters for module in model.modules()]
    named = [(holder, name, p) for holder in holders for name, p in holder.items() if p is not None]
    return [(holder, name, p, version(p)) for holder, name, p in named if storage(p) not in shared]


def tensor_names(module: nn.Module) -> set[str]:
    """Names of a module's own parameters and buffers, also of those that are None."""
    return {*module._parameters, *module._buffers}


def _skeleton(original: nn.Module, attention: str) -> nn.Module:
    """The original's class on the meta device, with one of Hugging Face's implementations of attention."""
    from transformers import PreTrainedModel

    if not isinstance(original, PreTrainedModel):
        raise NoPlainPathError(
            f"the model inside the bridge, a {type(original).__name__}, is not Hugging Face's"
        )
    if len(set(getattr(original, "hf_device_map", {}).values())) > 1:
        raise NoPlainPathError("the model is split over several devices")
    try:
        with torch.device("meta"):
            return type(original)._from_config(_quiet(original.config), attn_implementation=attention)
    except Exception as error:  # whatever it is, the bridge path serves
        raise NoPlainPathError(f"no plain model with {attention} attention: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first sentence of an error's message, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]


def _quiet(config: Any) -> Any:
    """A copy of the configuration that keeps no cache and returns nothing on the side."""
    config = copy.deepcopy(config)
    for part in (config, config.get_text_config()):
        part.use_cache = part.output_attentions = part.output_hidden_states = False
    return config
