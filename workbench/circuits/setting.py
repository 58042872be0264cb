"""What a circuit stage works on: the run's dictionary, the model it was trained on, the anatomy.

The model is loaded by the name that the run recorded, and refused when its weights are not those that the
dictionary was trained on: the features of another model's dictionary mean nothing. Weights that were captured
in bfloat16 are loaded in it, recognised, and then used in float32: the same numbers with finer arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.anatomy import Anatomy, open_anatomy
from workbench.artifacts import read_json
from workbench.capture.options import PRECISIONS
from workbench.circuits.nodes import Site, site_of_hook
from workbench.dictionaries import Dictionary, load_dictionary
from workbench.errors import UserError
from workbench.models import EMBEDDED, load_model, model_hash

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Setting:
    """The model and the dictionary of a run.

    Attributes:
        anatomy: Runs the model from any depth.
        dictionary: On the model's device.
        site: Where the dictionary's hook lies.
        model_source: The name the model was loaded by.
        model_hash: SHA-256 of its weights.
    """

    anatomy: Anatomy
    dictionary: Dictionary
    site: Site
    model_source: str
    model_hash: str

    @property
    def model(self) -> TransformerBridge:
        """The bridge."""
        return self.anatomy.model


def open_setting(
    run: Path, *, hook: str | None = None, model: str | None = None, device: str | None = None
) -> Setting:
    """Load a run's dictionary and the model it belongs to.

    Args:
        run: Run folder.
        hook: Must be the dictionary's hook when given.
        model: Overrides the recorded model source, for a run that was moved; its weights are checked.
        device: Torch device.

    Raises:
        UserError: no dictionary, another hook, or a model whose weights are not the dictionary's.
    """
    folder = run / "dictionary"
    if not (folder / "cfg.json").is_file():
        raise UserError(f"run {str(run)!r} has no dictionary: train one first (workbench train)")
    dictionary = load_dictionary(folder)
    if hook is not None and hook != dictionary.hook_name:
        raise UserError(
            f"hook {hook!r} is not the hook of this run's dictionary ({dictionary.hook_name!r}): leave hook out "
            "or train a dictionary there"
        )
    recorded = recorded_model(run, dictionary.hook_name, dictionary.metadata)
    if model is None and "model" in recorded and recorded["model"] is None:
        raise UserError(
            f"the dictionary of run {str(run)!r} was trained on an array, so there is no model whose circuits could be "
            "traced: capture a model's activations and train on them, or name the model"
        )
    source = model or recorded.get("model") or EMBEDDED
    weights, _ = PRECISIONS[recorded.get("precision") or "float32"]
    bridge = load_model(source, device=device, dtype=weights)
    found = model_hash(bridge)
    _check_hash(source, found, recorded.get("model_hash"))
    if weights != torch.float32:
        torch.nn.Module.to(bridge, torch.float32)
        bridge.cfg.dtype = torch.float32
    site = site_of_hook(bridge, dictionary.hook_name)
    anatomy = open_anatomy(bridge)
    return Setting(anatomy, _on_device(dictionary, anatomy.device), site, str(source), found)


def _on_device(dictionary: Dictionary, device: torch.device) -> Dictionary:
    return replace(dictionary, **{name: tensor.to(device) for name, tensor in dictionary.tensors.items()})


def recorded_model(run: Path, hook: str, metadata: Mapping[str, Any]) -> dict[str, str | None]:
    """`model`, `model_hash` and `precision` as the dictionary recorded them, else as the run's activations did.

    What neither tells is left out; a `model` of None says that there is none.
    """
    path = run / "activations" / hook / "manifest.json"
    manifest = read_json(path) if path.is_file() else {}
    known = {**manifest.get("about", {}), **manifest.get("description", {}), **metadata}
    return {key: known[key] for key in ("model", "model_hash", "precision") if key in known}


def _check_hash(source: str, found: str, wanted: str | None) -> None:
    if wanted is not None and wanted != found:
        raise UserError(
            f"model {source!r} has weights {found[:12]}, but this run's dictionary was trained on {wanted[:12]}: "
            "use the dictionary's own model, or capture and train again"
        )
