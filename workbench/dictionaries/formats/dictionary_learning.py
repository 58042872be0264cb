"""dictionary_learning: `ae.pt`, a pickled state dict of which only tensors are read, and `config.json`.

`config.json` names the class under `trainer.dict_class`; F latents, d columns:

    AutoEncoder        bias (d), encoder.weight (F,d), encoder.bias, decoder.weight (d,F)     ReLU, centred
    AutoEncoderNew     encoder.*, decoder.weight, decoder.bias                                ReLU, not centred
    GatedAutoEncoder   decoder_bias, encoder.weight, r_mag, gate_bias, mag_bias, decoder.weight     centred
    AutoEncoderTopK    k, threshold, encoder.*, decoder.weight, b_dec                         TopK, centred
    BatchTopKSAE       the same                                      JumpReLU with one threshold, centred
    MatryoshkaBatchTopKSAE   k, threshold, group_sizes, W_enc (d,F), b_enc, W_dec (F,d), b_dec      likewise
    JumpReluAutoEncoder      W_enc, b_enc, W_dec, b_dec, threshold (F)                        not centred

Its own loader gives the latents of an `AutoEncoder` unit decoder rows (codes times the norms); so does this.
A threshold below 0 is one that was never set, and lets through what is positive.

Where the class decides about centring and the dictionary differs, the encoder bias takes b_dec up (exact in
float64, rounded once); it then reads back as the same function under another hash. Transcoders of one width
can be written; a skip, two widths and GroupMax cannot.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workbench.artifacts import atomic_file, write_json
from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.formats.files import (
    Stored,
    as_float32,
    build,
    check_shapes,
    own_keys,
    read_config,
    read_own,
    unit_rows_already,
)
from workbench.dictionaries.formats.folding import centred, fold_norms, uncentred
from workbench.dictionaries.formats.hookpoints import from_submodule_name
from workbench.errors import UserError, nearest

CONFIG, WEIGHTS = "config.json", "ae.pt"
UNIT_ROWS = 1e-5  # within which its loader takes rows for unit ones
LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec"}
PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
GATED = {
    "encoder.weight": "W_enc", "decoder.weight": "W_dec", "decoder_bias": "b_dec",
    "gate_bias": "b_gate", "mag_bias": "b_mag", "r_mag": "r_mag",
}  # fmt: skip


class Form(NamedTuple):
    """How a class stores what."""

    architecture: str
    centred: bool
    names: Mapping[str, str]  # theirs: ours
    scalars: tuple[str, ...] = ()  # what is stored besides


FORMS = {
    "AutoEncoder": Form("standard", True, {**LINEAR, "bias": "b_dec"}),
    "AutoEncoderNew": Form("standard", False, {**LINEAR, "decoder.bias": "b_dec"}),
    "GatedAutoEncoder": Form("gated", True, GATED),
    "AutoEncoderTopK": Form("topk", True, {**LINEAR, "b_dec": "b_dec"}, ("k", "threshold")),
    "BatchTopKSAE": Form("jumprelu", True, {**LINEAR, "b_dec": "b_dec"}, ("k", "threshold")),
    "MatryoshkaBatchTopKSAE": Form("jumprelu", True, PLAIN, ("k", "threshold", "group_sizes")),
    "JumpReluAutoEncoder": Form("jumprelu", False, {**PLAIN, "threshold": "threshold"}),
}  # fmt: skip


def read_dictionary_learning(folder: Path) -> Dictionary:
    """The dictionary in a dictionary_learning folder, written here or by it.

    Raises:
        UserError: a file is missing or damaged, the pickle holds more than tensors, or the class is not known.
    """
    config, stored = read_config(folder / CONFIG), read_state(folder / WEIGHTS)
    trainer = config.get("trainer")
    name = str((trainer if isinstance(trainer, dict) else {}).get("dict_class"))
    if name not in FORMS:
        raise UserError(
            f"dictionary {str(folder)!r} has dict_class {name!r}, which is not read; {nearest(name, FORMS)}"
        )
    form = FORMS[name]
    own = config.get("workbench")
    tensors = _ours(folder, form, stored)
    tensors = tensors if own else as_float32(tensors)
    if name == "AutoEncoder" and not unit_rows_already(tensors["W_dec"], within=UNIT_ROWS):
        tensors = fold_norms(tensors)
    about = {**(read_own(own) if own else _about(config, stored)), "centred": form.centred}
    settings = {"k": _k(folder, config, stored)} if form.architecture == "topk" else {}
    return build(Stored(folder, form.architecture, tensors, settings, about, own["hash"] if own else None))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled state dict; nothing in it is executed.

    Raises:
        UserError: the file is missing or damaged, or holds anything but tensors by name.
    """
    if not path.is_file():
        raise UserError(
            f"dictionary {str(path.parent)!r} has no {path.name}: give a dictionary_learning folder"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path.name} in {str(path.parent)!r} holds more than tensors, or is damaged, and was not run: ask its "
            "author for a plain state dict"
        ) from error
    except Exception as error:  # whatever a reader makes of damaged bytes
        raise UserError(f"dictionary {str(path.parent)!r} is damaged ({error}): copy it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"{path.name} in {str(path.parent)!r} is no plain state dict: give the file of a finished training"
        )
    return {str(name): tensor for name, tensor in state.items()}


def _ours(folder: Path, form: Form, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names and in our orientation, with a threshold for every latent."""
    wanted = {*form.names, *form.scalars}
    if set(stored) != wanted:
        raise UserError(
            f"dictionary {str(folder)!r} holds {sorted(stored)}, but its class means {sorted(wanted)}"
        )
    tensors = {ours: stored[theirs] for theirs, ours in form.names.items()}
    for name in ("W_enc", "W_dec"):
        if tensors[name].ndim != 2:
            raise UserError(f"dictionary {str(folder)!r} has a {name} of shape {tuple(tensors[name].shape)}")
    if "encoder.weight" in form.names:
        tensors |= {name: tensors[name].T.contiguous() for name in ("W_enc", "W_dec")}
    d_in, d_sae = tensors["W_enc"].shape
    if form.architecture == "jumprelu":
        threshold = stored["threshold"]
        tensors["threshold"] = threshold.expand(d_sae).clone() if threshold.ndim == 0 else threshold
    check_shapes(folder, tensors, tuple(tensors), {"d_in": d_in, "d_sae": d_sae, "d_out": d_in})
    return tensors


def _k(folder: Path, config: Mapping[str, Any], stored: Mapping[str, Tensor]) -> int:
    k = int(stored["k"])
    if config["trainer"].get("k", k) != k:
        raise UserError(
            f"dictionary {str(folder)!r} has k {k} in {WEIGHTS} and {config['trainer']['k']} in {CONFIG}: copy it again"
        )
    return k


def _about(config: Mapping[str, Any], stored: Mapping[str, Tensor]) -> dict[str, Any]:
    trainer, buffer = config["trainer"], config.get("buffer") or {}
    name, io = str(trainer.get("submodule_name") or ""), buffer.get("io", "out")
    sizes = {"group_sizes": stored["group_sizes"].tolist()} if "group_sizes" in stored else {}
    known = {"model": trainer.get("lm_name"), "n_ctx": buffer.get("ctx_len")}
    return {
        "hook_name": from_submodule_name(name) if io == "out" else name,
        "hook_name_out": from_submodule_name(name) if io == "in_and_out" else None,
        "metadata": {
            **{key: value for key, value in known.items() if value is not None},
            "dictionary_learning": {**trainer, **sizes},
        },
    }


def write_dictionary_learning(dictionary: Dictionary, folder: Path) -> None:
    """Write a dictionary_learning folder; each file is whole or absent, the configuration last.

    Raises:
        UserError: the layout cannot hold the dictionary.
    """
    name = class_for(dictionary)
    form = FORMS[name]
    made = centred(dictionary) if form.centred else uncentred(dictionary)
    state = {theirs: made.tensors[ours] for theirs, ours in form.names.items()} | _scalars(made, form)
    state |= {theirs: state[theirs].T for theirs in ("encoder.weight", "decoder.weight") if theirs in state}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    with atomic_file(folder / WEIGHTS) as temporary:
        torch.save(
            {theirs: tensor.detach().cpu().contiguous() for theirs, tensor in state.items()}, temporary
        )
    write_json(folder / CONFIG, _configuration(made, name))


def class_for(dictionary: Dictionary) -> str:
    """The class that a dictionary is written as.

    Raises:
        UserError: there is none.
    """
    if dictionary.W_skip is not None or dictionary.d_in != dictionary.d_out:
        raise UserError(
            "a dictionary with a skip or of two widths cannot be written for dictionary_learning: write it for SAELens"
        )
    names = [name for name, form in FORMS.items() if form.architecture == dictionary.architecture]
    if not names:
        raise UserError(
            f"a dictionary of architecture {dictionary.architecture!r} cannot be written for "
            "dictionary_learning, which holds standard, gated, topk and jumprelu: write it for SAELens"
        )
    if dictionary.architecture == "standard":
        unit = unit_rows_already(dictionary.W_dec, within=UNIT_ROWS)
        return "AutoEncoder" if dictionary.centred and unit else "AutoEncoderNew"
    if dictionary.architecture == "jumprelu":
        return _jumprelu_class(dictionary)
    return names[0]


def _jumprelu_class(dictionary: Dictionary) -> str:
    """The class that it was read as, or trained as; else the one with a threshold for every latent."""
    shared = bool((dictionary.tensors["threshold"] == dictionary.tensors["threshold"][0]).all())
    if not (dictionary.centred and shared and _stated_k(dictionary)):
        return "JumpReluAutoEncoder"
    nested = "group_sizes" in dictionary.metadata.get("dictionary_learning", {})
    return "MatryoshkaBatchTopKSAE" if nested else "BatchTopKSAE"


def _stated_k(dictionary: Dictionary) -> int | None:
    """The k of its training, which the two BatchTopK classes store and do not use at inference."""
    for key in ("dictionary_learning", "identity"):
        k = dictionary.metadata.get(key, {}).get("k")
        if isinstance(k, int) and k > 0:
            return k
    return None


def _scalars(dictionary: Dictionary, form: Form) -> dict[str, Tensor]:
    """What a class stores beside the weights."""
    if not form.scalars:
        return {}
    k = dictionary.settings.get("k", _stated_k(dictionary))
    threshold = dictionary.tensors.get("threshold", torch.tensor([-1.0]))[0].clone()
    found = {"k": torch.tensor(k, dtype=torch.int32), "threshold": threshold}
    if "group_sizes" in form.scalars:
        found["group_sizes"] = torch.tensor(dictionary.metadata["dictionary_learning"]["group_sizes"])
    return found


def _configuration(dictionary: Dictionary, name: str) -> dict[str, Any]:
    """The content of `config.json`."""
    k = dictionary.settings.get("k", _stated_k(dictionary))
    return {
        "trainer": {
            **dictionary.metadata.get("dictionary_learning", {}),
            "dict_class": name,
            "activation_dim": dictionary.d_in,
            "dict_size": dictionary.d_sae,
            **({"k": k} if "k" in FORMS[name].scalars else {}),
            "lm_name": dictionary.metadata.get("model"),
            "submodule_name": dictionary.hook_name,
        },
        "buffer": {"d_submodule": dictionary.d_in, "io": "out", "ctx_len": dictionary.metadata.get("n_ctx")},
        "workbench": own_keys(dictionary),
    }
