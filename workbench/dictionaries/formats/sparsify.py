"""EleutherAI's sparsify: `cfg.json` and `sae.safetensors`, one folder per hook point.

    x' = x - b_dec, or x where `transcode`;   z = the k largest of ReLU(x' W^T + b), or the largest of each of k groups
    y  = z W_dec + b_dec [+ x W_skip^T where `skip_connection`]

    encoder.weight (d_sae, d), encoder.bias (d_sae), W_dec (d_sae, d), b_dec (d), W_skip (d, d)

The layout holds TopK and GroupMax whose input and output are equally wide; nothing else is written. The skip
reads the raw input. `num_latents` 0 means d_in times `expansion_factor`; files from before `activation` and
`transcode` existed are TopK autoencoders, and `signed` ones are refused. sparsify drops keys that it does not
know, so ours stand under `workbench`. The hook point of a foreign folder is the folder's name, a module path
(`hookpoints.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.artifacts import write_json
from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.formats.files import (
    Stored,
    as_float32,
    build,
    check_shapes,
    own_keys,
    read_config,
    read_own,
    read_tensors,
    unit_rows_already,
    whole_number,
    write_tensors,
)
from workbench.dictionaries.formats.hookpoints import from_module_path
from workbench.errors import UserError, nearest

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
ACTIVATIONS = {"topk": "topk", "groupmax": "group_max"}
NAMES = {
    "encoder.weight": "W_enc",
    "encoder.bias": "b_enc",
    "W_dec": "W_dec",
    "b_dec": "b_dec",
    "W_skip": "W_skip",
}


def write_sparsify(dictionary: Dictionary, folder: Path) -> None:
    """Write a sparsify folder; each file is whole or absent, the configuration last.

    Raises:
        UserError: the layout cannot hold the dictionary.
    """
    config = configuration(dictionary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    ours = {**dictionary.tensors, "W_enc": dictionary.W_enc.T}
    write_tensors(folder / WEIGHTS, {name: ours[own] for name, own in NAMES.items() if own in ours})
    write_json(folder / CONFIG, config)


def configuration(dictionary: Dictionary) -> dict[str, Any]:
    """The content of `cfg.json`.

    Raises:
        UserError: the layout cannot hold the dictionary.
    """
    activations = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    if dictionary.architecture not in activations:
        raise UserError(
            f"a dictionary of architecture {dictionary.architecture!r} cannot be written for sparsify, which holds "
            f"{' and '.join(activations)}: write it for SAELens"
        )
    if dictionary.d_in != dictionary.d_out:
        raise UserError(
            f"a dictionary of d_in {dictionary.d_in} and d_out {dictionary.d_out} cannot be written for sparsify, "
            "which has one width for both: write it for SAELens"
        )
    return {
        "activation": activations[dictionary.architecture],
        "expansion_factor": max(1, dictionary.d_sae // dictionary.d_in),
        "normalize_decoder": unit_rows_already(dictionary.W_dec, within=1e-3),
        "num_latents": dictionary.d_sae,
        **dictionary.settings,
        "multi_topk": False,
        "skip_connection": dictionary.W_skip is not None,
        "transcode": not dictionary.centred,
        "d_in": dictionary.d_in,
        "workbench": own_keys(dictionary),
    }


def read_sparsify(folder: Path) -> Dictionary:
    """The dictionary in a sparsify folder, written here or by sparsify.

    Raises:
        UserError: a file is missing or damaged, or the configuration asks for something that is not read.
    """
    config, tensors = read_config(folder / CONFIG), _ours(read_tensors(folder / WEIGHTS))
    activation = str(config.get("activation", "topk"))
    if activation not in ACTIVATIONS:
        raise UserError(
            f"dictionary {str(folder)!r} has activation {activation!r}, which is not read; "
            f"{nearest(activation, ACTIVATIONS)}"
        )
    if config.get("signed"):
        raise UserError(f"dictionary {str(folder)!r} is signed: latents below 0 are not read")
    _check(folder, config, tensors)
    own = config.get("workbench")
    tensors = tensors if own else as_float32(tensors)
    about = {
        **(read_own(own) if own else _about(folder, config)),
        "centred": not config.get("transcode", False),
    }
    k = {"k": whole_number(folder, config, "k")}
    return build(Stored(folder, ACTIVATIONS[activation], tensors, k, about, own["hash"] if own else None))


def _ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {NAMES.get(name, name): tensor for name, tensor in tensors.items()}
    return {**renamed, "W_enc": renamed["W_enc"].T} if "W_enc" in renamed else renamed


def _check(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    d_in = whole_number(folder, config, "d_in")
    d_sae = config.get("num_latents") or d_in * whole_number(folder, config, "expansion_factor")
    names = tuple(NAMES.values()) if config.get("skip_connection") else tuple(NAMES.values())[:-1]
    check_shapes(folder, tensors, names, {"d_in": d_in, "d_sae": d_sae, "d_out": d_in})


def _about(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Hook points from the folder's name; of `<hook point>/seed3`, its parent's."""
    where = folder.resolve()
    hookpoint = where.parent.name if re.fullmatch(r"seed\d+", where.name) else where.name
    hook_name, hook_name_out = from_module_path(hookpoint, transcode=bool(config.get("transcode")))
    return {
        "hook_name": hook_name,
        "hook_name_out": hook_name_out,
        "metadata": {"sparsify": {"hookpoint": hookpoint, **config}},
    }
