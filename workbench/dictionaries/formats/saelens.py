"""SAELens 6 directories: `cfg.json` and `sae_weights.safetensors`.

The layout is the common language of published dictionaries. SAELens ignores configuration keys that it
does not know and keeps unknown metadata, so what the workbench adds stands under `metadata.workbench`.
It rejects unknown tensors, so none is added. Which architecture has which name: `saelens_names.py`.

    a = (x - b_dec [apply_b_dec_to_input]) W_enc + b_enc,   z = act(a),   x_hat = z W_dec + b_dec [+ x W_skip^T]

Three things are folded when a foreign directory is read (`folding.py`):
`rescale_acts_by_decoder_norm` (TopK and its relatives select by a * |W_dec| and decode with the unit row); the
normalisation of a training checkpoint whose factor or whitening lies beside the weights (a factor before the
norms, so that codes are those of SAELens' own export for inference); and `topk_threshold`, one number, which
becomes the threshold of every latent. Normalisation of each token by itself
(`constant_norm_rescale`, `layer_norm`) is no affine map and cannot be folded.

SAELens passes a pre-activation where it is above the threshold and above 0, and so does the dictionary here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.artifacts import write_json
from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.formats.files import (
    SITES,
    Stored,
    as_float32,
    build,
    check_shapes,
    name_or_none,
    read_config,
    read_sites,
    read_tensors,
    settings_of,
    stored_sites,
    unit_rows_already,
    whole_number,
    write_tensors,
)
from workbench.dictionaries.formats.folding import InputMap, fold_input_map, fold_norms, read_input_map
from workbench.dictionaries.formats.saelens_names import TRAINING, Kind, kind_for, kind_of, modern
from workbench.errors import UserError

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
SAELENS_VERSION = "6.0.0"  # at least 6.0.0-rc.0, or SAELens reads the directory as an old one
OWN = ("hash", *SITES)  # our keys beside the metadata
RESCALED = ("topk", *TRAINING)  # the others have no such key
FOLDED = ("expected_average_only_in", "covariance_whitening")


def write_saelens(dictionary: Dictionary, folder: Path) -> None:
    """Write a SAELens 6 directory; each file is whole or absent, the configuration last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    write_tensors(folder / WEIGHTS, dictionary.tensors)
    write_json(folder / CONFIG, configuration(dictionary))


def configuration(dictionary: Dictionary) -> dict[str, Any]:
    """The content of `cfg.json`."""
    kind, metadata = kind_for(dictionary), dictionary.metadata
    ours = {**metadata, **stored_sites(dictionary), "hash": dictionary.hash}
    dtype = next(iter(dictionary.tensors.values())).dtype
    return {
        "architecture": kind.name,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        **({"d_out": dictionary.d_out} if kind.transcodes or kind.skip else {}),
        **dictionary.settings,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.centred,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if dictionary.hook_name.endswith("hook_z") else "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "prepend_bos": True,
            **metadata.get("saelens", {}),
            "sae_lens_version": SAELENS_VERSION,
            "hook_name": dictionary.hook_name,
            **({"hook_name_out": dictionary.hook_name_out} if dictionary.is_transcoder else {}),
            "model_name": metadata.get("model"),
            "context_size": metadata.get("n_ctx"),
            "workbench": ours,
        },
    }


def read_saelens(folder: Path) -> Dictionary:
    """The dictionary in a SAELens directory, written here or by SAELens, of version 6 or before.

    Raises:
        UserError: a file is missing or damaged, the architecture is not known, or the configuration asks
            for something that is not read and would change the result.
    """
    config, tensors = modern(read_config(folder / CONFIG), folder), read_tensors(folder / WEIGHTS)
    kind = kind_of(str(config.get("architecture")), folder)
    own = (config.get("metadata") or {}).get("workbench")
    foreign = own is None or "hash" not in own
    _refuse_unsupported(folder, config, foldable=foreign and not kind.transcodes)
    tensors = _inference(folder, as_float32(tensors)) if foreign else tensors
    _check(folder, config, kind, tensors)
    tensors = _folded(folder, config, tensors) if foreign else tensors
    settings = settings_of(kind.base, folder, config)
    return build(Stored(folder, kind.base, tensors, settings, _about(config), (own or {}).get("hash")))


def _check(folder: Path, config: Mapping[str, Any], kind: Kind, tensors: Mapping[str, Tensor]) -> None:
    sizes = {size: whole_number(folder, config, size) for size in ("d_in", "d_sae")}
    sizes["d_out"] = whole_number(folder, config, "d_out") if "d_out" in config else sizes["d_in"]
    if kind.layered:
        return
    check_shapes(folder, tensors, kind.tensors, sizes)


def _about(config: Mapping[str, Any]) -> dict[str, Any]:
    metadata = config.get("metadata") or {}
    own = metadata.get("workbench")
    return {
        "hook_name": str(metadata.get("hook_name") or ""),
        "hook_name_out": name_or_none(metadata.get("hook_name_out")),
        "centred": bool(config.get("apply_b_dec_to_input", True)),
        **read_sites(own or {}),
        "metadata": _foreign_metadata(metadata)
        if own is None
        else {key: value for key, value in own.items() if key not in OWN},
    }


def _foreign_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Model and context under our names, the rest under `saelens`; what is null is left out."""
    known = {"model_name": "model", "context_size": "n_ctx"}
    found = {ours: metadata[theirs] for theirs, ours in known.items() if metadata.get(theirs) is not None}
    left_out = {*known, "hook_name", "hook_name_out", "sae_lens_version"}
    rest = {key: value for key, value in metadata.items() if key not in left_out and value is not None}
    return {**found, **({"saelens": rest} if rest else {})}


def _folded(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Another tool's tensors as weights for raw activations, in the order in which SAELens folds; see the module."""
    plain = config.get("normalize_activations", "none") == "none"
    applied = None if plain else _input_map(folder, config)
    centred = bool(config.get("apply_b_dec_to_input", True))
    rescaled = bool(config.get("rescale_acts_by_decoder_norm")) and config["architecture"] in RESCALED
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    if applied is not None and applied.is_factor:
        exact = fold_input_map(exact, applied, centred=centred)
        if rescaled and "threshold" in exact:
            exact["threshold"] = exact["threshold"] * applied.inverse
    if rescaled and not unit_rows_already(exact["W_dec"]):
        exact = fold_norms(exact)
    if applied is not None and not applied.is_factor:
        exact = fold_input_map(exact, applied, centred=centred)
    return as_float32(exact)


def _inference(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A training checkpoint's tensors under the names of inference."""
    found = dict(tensors)
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        factor = found.pop(name, None)
        if factor is not None and not bool((factor == 1).all()):
            raise UserError(
                f"dictionary {str(folder)!r} has a {name} that is not 1, which is not read: fold it into W_dec first"
            )
    threshold = found.pop("topk_threshold", None)
    if threshold is not None:
        found["threshold"] = threshold.expand(len(found["W_dec"])).clone()
    return found


def _refuse_unsupported(folder: Path, config: Mapping[str, Any], *, foldable: bool) -> None:
    found = config.get("normalize_activations", "none")
    if found == "none" or (found in FOLDED and foldable and _input_map(folder, config)):
        return
    raise UserError(
        f"dictionary {str(folder)!r} has normalize_activations {found!r}, but only 'none' is read, and "
        f"{' and '.join(FOLDED)} of an autoencoder with activation_scaler.json beside it: fold it into the weights "
        "before loading"
    )


def _input_map(folder: Path, config: Mapping[str, Any]) -> InputMap | None:
    return read_input_map(folder, whole_number(folder, config, "d_in"))


def write_firing_rates(folder: Path, rates_frac: Float[Tensor, " d_sae"]) -> None:
    """Add SAELens' `sparsity.safetensors`: log10 of how often each latent fires; never is 1e-10."""
    write_tensors(folder / SPARSITY, {"sparsity": rates_frac.clamp_min(1e-10).log10()})


def read_firing_rates(folder: Path) -> Float[Tensor, " d_sae"] | None:
    """How often each latent fires, from `sparsity.safetensors`; None where there is none.

    Raises:
        UserError: the file is damaged or has no tensor `sparsity`.
    """
    if not (folder / SPARSITY).exists():
        return None
    found = read_tensors(folder / SPARSITY)
    if set(found) != {"sparsity"}:
        raise UserError(f"{SPARSITY} in {str(folder)!r} has no tensor 'sparsity' alone: copy it again")
    return torch.pow(10.0, found["sparsity"].float())
