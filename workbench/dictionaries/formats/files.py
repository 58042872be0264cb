"""What the layouts on disk share: reading safely, checking what was read, and making the frozen dictionary of it.

Nothing that is read is executed: JSON, safetensors, and pickles that may hold tensors only. What the
workbench knows and a layout has no key for (the output hook point, the sites of a crosscoder, the metadata,
the hash) is written under a key of its own, `workbench`, which the other tools pass over. With it a folder
that was written here gives back equal tensors and the same hash, whatever the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.artifacts import atomic_file, read_json
from workbench.dictionaries.base import Dictionary, Site
from workbench.dictionaries.registry import find_frozen
from workbench.errors import UserError

SHAPES = {
    "W_enc": ("d_in", "d_sae"),
    "W_dec": ("d_sae", "d_out"),
    "b_dec": ("d_out",),
    "W_skip": ("d_out", "d_in"),
    **dict.fromkeys(("b_enc", "threshold", "b_gate", "b_mag", "r_mag"), ("d_sae",)),
}
SITES = ("sites", "sites_out")


@dataclass(frozen=True)
class Stored:
    """A dictionary as a folder holds it, in the workbench's names.

    Attributes:
        folder: Where it was read.
        architecture: Name of the frozen class.
        tensors: Weights by field.
        settings: What else decides a code, by field.
        about: hook_name, hook_name_out, centred, sites, metadata.
        hash: What the writer says the dictionary's hash is; None if it says nothing.
    """

    folder: Path
    architecture: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    about: Mapping[str, Any]
    hash: str | None = None


def build(stored: Stored) -> Dictionary:
    """The frozen dictionary of what was read.

    Raises:
        UserError: a setting is out of range, a weight is not finite, or the hash is not the stored one.
    """
    name = str(stored.folder)
    kind: Any = find_frozen(stored.architecture)
    _check_finite(name, stored.tensors)
    if hasattr(kind, "from_tensors"):  # a class of several layers, which makes itself of their weights
        about = {key: value for key, value in stored.about.items() if key != "centred"}
        made = kind.from_tensors(stored.tensors, stored.settings, **about)
    else:
        _check_k(name, stored)
        made = kind(**stored.tensors, **stored.settings, **stored.about)
    if stored.hash not in (None, made.hash):
        raise UserError(
            f"dictionary {name!r}: its weights are not those that cfg.json describes: train again"
        )
    return made


def _check_k(name: str, stored: Stored) -> None:
    k, d_sae = stored.settings.get("k"), len(stored.tensors["W_dec"])
    if k is not None and not 1 <= k <= d_sae:
        raise UserError(f"dictionary {name!r} has k {k}, which is not between 1 and d_sae {d_sae}")
    if stored.architecture == "group_max" and d_sae % stored.settings["k"]:
        raise UserError(f"dictionary {name!r} has d_sae {d_sae}, which k {k} groups of latents do not divide")


def _check_finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    for tensor_name, tensor in tensors.items():
        allowed = (
            not bool(tensor.isnan().any()) if tensor_name == "threshold" else bool(tensor.isfinite().all())
        )
        if not allowed:
            raise UserError(
                f"dictionary {name!r} has {tensor_name} with values that are not finite: copy it again"
            )


def settings_of(architecture: str, folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the fields that a frozen class adds to the weights, from the keys of those names.

    A class that makes itself of several layers takes from the configuration what it needs.

    Raises:
        UserError: one is missing, or not the whole number that it should be.
    """
    kind = find_frozen(architecture)
    if hasattr(kind, "from_tensors"):
        return dict(config)
    common = {field.name for field in fields(Dictionary)}
    own = [field for field in fields(kind) if field.name not in common and field.name not in SHAPES]
    for field in own:
        if field.type == "int":
            whole_number(folder, config, field.name)
    return {field.name: config[field.name] for field in own if field.name in config}


def whole_number(folder: Path, config: Mapping[str, Any], key: str) -> int:
    """A whole number of the configuration.

    Raises:
        UserError: there is none.
    """
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"dictionary {str(folder)!r} has no whole number {key!r} in cfg.json: write it there")
    return value


def check_shapes(
    folder: Path, tensors: Mapping[str, Tensor], names: tuple[str, ...], sizes: Mapping[str, int]
) -> None:
    """Refuse tensors of other names or shapes than a configuration means.

    Args:
        folder: For the message.
        tensors: What was read, by the names of `SHAPES`.
        names: What should be there.
        sizes: d_in, d_sae and d_out.

    Raises:
        UserError: with what is there and what should be.
    """
    for size, value in sizes.items():
        if value < 1:
            raise UserError(
                f"dictionary {str(folder)!r} has {size} {value}, which is not at least 1: copy it again"
            )
    wanted = {name: tuple(sizes[size] for size in SHAPES[name]) for name in names}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != wanted:
        raise UserError(
            f"dictionary {str(folder)!r} holds {found}, but its cfg.json means {wanted}: copy it again"
        )


def own_keys(dictionary: Dictionary) -> dict[str, Any]:
    """What goes under `workbench`; `read_own` takes it back."""
    return {
        "hash": dictionary.hash,
        "hook_name": dictionary.hook_name,
        "hook_name_out": dictionary.hook_name_out,
        **stored_sites(dictionary),
        "metadata": dict(dictionary.metadata),
    }


def read_own(own: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a dictionary from the keys that `own_keys` wrote."""
    return {
        "hook_name": str(own["hook_name"]),
        "hook_name_out": name_or_none(own.get("hook_name_out")),
        **read_sites(own),
        "metadata": own.get("metadata", {}),
    }


def name_or_none(found: Any) -> str | None:
    """A hook point that may be missing."""
    return str(found) if found else None


def stored_sites(dictionary: Dictionary) -> dict[str, list[dict[str, Any]]]:
    """Sites of the input, and of the output where it has its own, where there are any."""
    found = {key: getattr(dictionary, key, ()) for key in SITES}
    return {key: [asdict(site) for site in sites] for key, sites in found.items() if sites}


def read_sites(own: Mapping[str, Any]) -> dict[str, tuple[Site, ...]]:
    """What `stored_sites` wrote."""
    return {key: tuple(Site(**site) for site in own[key]) for key in SITES if own.get(key)}


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the file is missing, is no JSON, or is no object.
    """
    _require(path)
    try:
        config = read_json(path)
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error
    if not isinstance(config, dict):
        raise _damaged(path, f"{path.name} holds no JSON object")
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: the file is missing or damaged, or a tensor holds no floating-point numbers.
    """
    _require(path)
    try:
        tensors = load_file(path)
    except Exception as error:  # whatever a reader makes of damaged bytes
        raise _damaged(path, error) from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise _damaged(path, f"{name} is of {tensor.dtype}")
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, whole or absent."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(plain, temporary)


def as_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Another tool's tensors in the precision that everything here works in."""
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def unit_rows_already(W_dec: Tensor, *, within: float = 1e-6) -> bool:
    """Whether every decoder row has unit length."""
    return bool((W_dec.double().norm(dim=1) - 1).abs().max() < within)


def _require(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"dictionary {str(path.parent)!r} has no {path.name}: train one or give a SAELens directory"
        )


def _damaged(path: Path, error: object) -> UserError:
    return UserError(f"dictionary {str(path.parent)!r} is damaged ({error}): train again or copy it again")
