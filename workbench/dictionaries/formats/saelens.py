"""SAELens 6 directories: `cfg.json` and `sae_weights.safetensors`.

The layout is the common language of published dictionaries. SAELens ignores configuration keys that it
does not know and keeps unknown metadata, so what the workbench adds stands under `metadata.workbench`.
It rejects unknown tensors, so none is added.

With `rescale_acts_by_decoder_norm` SAELens selects by pre * |W_dec| and decodes with the unit row. Reading
folds the norms in (W_enc and b_enc times them, W_dec divided by them), which is the same function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.artifacts import atomic_file, read_json, write_json
from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.registry import find_architecture
from workbench.errors import UserError

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SAELENS_VERSION = "6.0.0"  # at least 6.0.0-rc.0, or SAELens reads the directory as an old one


def save_dictionary(dictionary: Dictionary, folder: Path) -> Path:
    """Write a dictionary as a SAELens 6 directory; each file is whole or absent, the configuration last.

    Args:
        dictionary: What to write; its `metadata` goes under `metadata.workbench`.
        folder: Made if missing; other files in it stay.

    Returns:
        The folder. `load_dictionary` gives back equal tensors and the same hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    with atomic_file(folder / WEIGHTS) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in dictionary.tensors.items()},
            temporary,
        )
    write_json(folder / CONFIG, configuration(dictionary))
    return folder


def configuration(dictionary: Dictionary) -> dict[str, Any]:
    """The content of `cfg.json`."""
    return {
        "architecture": dictionary.architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        "k": dictionary.k,
        "dtype": str(dictionary.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if dictionary.hook_name.endswith("hook_z") else "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            "hook_name": dictionary.hook_name,
            "model_name": dictionary.metadata.get("model"),
            "context_size": dictionary.metadata.get("n_ctx"),
            "prepend_bos": True,
            "workbench": {**dictionary.metadata, "hash": dictionary.hash},
        },
    }


def load_dictionary(folder: Path) -> Dictionary:
    """The dictionary in a SAELens 6 directory, written here or by SAELens.

    Raises:
        UserError: a file is missing or damaged, the architecture is not known, or the configuration asks
            for something that is not read and would change the result (input normalisation).
    """
    config, tensors = _read(folder)
    architecture = find_architecture(str(config.get("architecture")))
    _refuse_unsupported(folder, config)
    _check_shapes(folder, config, tensors)
    if config.get("rescale_acts_by_decoder_norm"):
        tensors = _fold_norms(tensors)
    metadata = config.get("metadata", {})
    ours = dict(metadata.get("workbench", {}))
    stored_hash = ours.pop("hash", None)
    dictionary = architecture.dictionary(
        **tensors, k=int(config["k"]), hook_name=str(metadata.get("hook_name", "")), metadata=ours
    )
    if stored_hash not in (None, dictionary.hash):
        raise UserError(
            f"dictionary {str(folder)!r}: its weights are not those that cfg.json describes: train again"
        )
    return dictionary


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise UserError(
                f"dictionary {str(folder)!r} has no {name}: train one or give a SAELens directory"
            )
    try:
        tensors = load_file(folder / WEIGHTS)
        config = read_json(folder / CONFIG)
    except (SafetensorError, ValueError) as error:
        raise UserError(
            f"dictionary {str(folder)!r} is damaged ({error}): train again or copy it again"
        ) from error
    return config, {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def _refuse_unsupported(folder: Path, config: dict[str, Any]) -> None:
    rules = {"apply_b_dec_to_input": True, "normalize_activations": "none"}
    for key, wanted in rules.items():
        if config.get(key, wanted) != wanted:
            raise UserError(
                f"dictionary {str(folder)!r} has {key} {config[key]!r}, but only {wanted!r} is read: "
                "fold it into the weights before loading"
            )


def _fold_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function with unit decoder rows, folded in float64; unchanged where they are unit already."""
    norm = tensors["W_dec"].double().norm(dim=1)
    if bool((norm - 1).abs().max() < 1e-6):
        return tensors
    folded = {"W_enc": tensors["W_enc"] * norm, "b_enc": tensors["b_enc"] * norm}
    folded["W_dec"] = tensors["W_dec"] / norm.unsqueeze(1)
    return {**tensors, **{name: tensor.float() for name, tensor in folded.items()}}


def _check_shapes(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    missing = [key for key in ("d_in", "d_sae", "k") if not isinstance(config.get(key), int)]
    if missing:
        raise UserError(
            f"dictionary {str(folder)!r} has no whole number {missing[0]!r} in cfg.json: write it there"
        )
    d_in, d_sae = config["d_in"], config["d_sae"]
    shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes:
        raise UserError(
            f"dictionary {str(folder)!r} holds {found}, but its cfg.json means {shapes}: copy it again"
        )
    if not 1 <= config["k"] <= d_sae:
        raise UserError(
            f"dictionary {str(folder)!r} has k {config['k']}, which is not between 1 and d_sae {d_sae}"
        )
